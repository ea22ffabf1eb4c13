"""An end without loss: the owner's hook, then everything that is open and unsaved.

Before the lease's end, by this server's own clock, so that a service that is away takes nothing
from it; and when the service says that the lease ends early.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import signal
import stat
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from gpudev_client import errors, words
from gpudev_client.models import ClosingReport, ClosingTimes, LabView
from gpudev_client.states import State

from .link import Link

log = logging.getLogger(__name__)

#: Below the home directory: what the owner wants to be run before the end, and what it said.
HOOK, HOOK_LOG = ".gpudev/before-expiry", ".gpudev/before-expiry.log"
#: Seconds between the end of a program that was asked to end and its end by force.
_HOOK_GRACE = 1.0
#: Of the time for saving, what is kept for the report to the service.
_REPORT_SHARE = 0.2
#: Most documents that are named one by one.
_NAMED = 20


class SaveRequest(BaseModel, defer_build=True):
    """Asks all open tabs to save; a tab answers with the same id."""

    id: str
    until: datetime


class Saved(BaseModel, defer_build=True):
    """What one tab has saved."""

    id: str
    saved: int
    unsaved: list[str] = []


class Moments(NamedTuple):
    """When the hook begins and when saving does; the hook has the time between the two."""

    hook: datetime
    save: datetime


def closing_moments(begins: datetime, end: datetime, times: ClosingTimes) -> Moments:
    """When a lease from `begins` to `end` starts to end.

    Hook and saving have the times that the operator set, and together at most the second half of
    the lease: on a short one both are shortened in the same ratio, so that nothing runs at its
    start, when there is nothing to keep yet.
    """
    wanted = times.hook_seconds + times.save_seconds
    half = max(0.0, (end - begins).total_seconds() / 2)
    share = min(1.0, half / wanted) if wanted > 0 else 0.0
    return Moments(
        hook=end - timedelta(seconds=share * wanted),
        save=end - timedelta(seconds=share * times.save_seconds),
    )


@dataclass(slots=True)
class _Round:
    """One request to all tabs, with their answers so far."""

    request: SaveRequest
    wanted: int
    saved: int = 0
    answers: int = 0
    unsaved: list[str] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class Closing:
    """Watches for the end of a lease and does what has to be done before it.

    Args:
        link: the connection to the service.
        home: the home directory, which is on the disk.
        tabs: how many tabs are open now.
        announce: makes all tabs look at what is asked of them.
    """

    def __init__(
        self,
        link: Link,
        home: Path,
        *,
        tabs: Callable[[], int],
        announce: Callable[[], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._link, self._home, self._tabs, self._announce = link, home, tabs, announce
        self._now = now
        self._round: _Round | None = None
        self._task: asyncio.Task[None] | None = None
        self._hook: asyncio.Task[str | None] | None = None
        #: The end that the task is about: an extended lease ends anew.
        self._end: datetime | None = None
        #: The end for which the hook was begun.
        self._hook_end: datetime | None = None
        #: Whether the task is past the point at which an early end would change anything.
        self._saving = False

    @property
    def request(self) -> SaveRequest | None:
        """What is asked of the tabs at this moment."""
        return None if self._round is None else self._round.request

    def update(self) -> None:
        """Takes in what the link knows now; called after each new view."""
        view = self._link.view
        if view is None or view.reservation.expires_at is None:
            return
        end, state = view.reservation.expires_at, view.reservation.state
        begins = view.reservation.starts_at or end
        if state is State.STOPPING and not self._saving:
            self._saving = True
            self._begin(end, self._early(end, view))
        elif state in (State.ACTIVE, State.PREPARING) and end != self._end:
            self._saving = False
            self._begin(end, self._at(end, closing_moments(begins, end, view.closing)))

    def _begin(self, end: datetime, work: Coroutine[None, None, None]) -> None:
        if self._task is not None:
            self._task.cancel()
        self._end = end
        self._task = asyncio.create_task(work, name="gpudev closing")
        self._task.add_done_callback(_failed)

    async def stop(self) -> None:
        for task in (self._task, self._hook):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    # --- the tabs -----------------------------------------------------------------------------

    def take(self, saved: Saved) -> bool:
        """A tab's answer; False for one that nobody waits for."""
        current = self._round
        if current is None or not secrets.compare_digest(saved.id, current.request.id):
            return False
        current.answers += 1
        current.saved += saved.saved
        current.unsaved += saved.unsaved
        if current.answers >= current.wanted:
            current.complete.set()
        return True

    async def save(self, seconds: float) -> ClosingReport:
        """Asks all tabs to save and waits for their answers, at most `seconds`."""
        until = datetime.fromtimestamp(self._now().timestamp() + seconds, UTC)
        current = _Round(SaveRequest(id=secrets.token_urlsafe(8), until=until), self._tabs())
        if current.wanted == 0:
            return ClosingReport(saved=0)
        self._round = current
        try:
            self._announce()
            async with asyncio.timeout(seconds):
                await current.complete.wait()
        except TimeoutError:
            silent = current.wanted - current.answers
            log.warning("%s did not say whether they saved", words.counted(silent, "open tab"))
            current.unsaved.append(f"({words.counted(silent, 'open tab')} did not answer)")
        finally:
            self._round = None
        return ClosingReport(saved=current.saved, unsaved=current.unsaved[:_NAMED])

    # --- the two ends -------------------------------------------------------------------------

    async def _at(self, end: datetime, moments: Moments) -> None:
        """The end that everybody knew of: first the hook, then the documents, which it may have
        changed."""
        await self._sleep_until(moments.hook)
        hook = await self._hook_for(end, self._left(moments.save))
        await self._sleep_until(moments.save)
        self._saving = True
        report = await self.save(self._left(end) * (1 - _REPORT_SHARE))
        await self._report(report, hook)

    async def _early(self, end: datetime, view: LabView) -> None:
        """Somebody ends the lease now; the service waits for a moment, so both at once."""
        seconds = view.closing.early_seconds * (1 - _REPORT_SHARE)
        report, hook = await asyncio.gather(self.save(seconds), self._hook_for(end, seconds))
        await self._report(report, hook)

    async def _report(self, report: ClosingReport, hook: str | None) -> None:
        try:
            await self._link.closing(report.model_copy(update={"hook": hook}))
        except (errors.GpuDevError, TimeoutError) as error:
            log.warning("the service was not told what was saved: %s", error)

    def _left(self, moment: datetime) -> float:
        return max(0.0, (moment - self._now()).total_seconds())

    async def _sleep_until(self, moment: datetime) -> None:
        """In pieces: after a machine's sleep or a change of its clock the rest is counted anew."""
        while left := self._left(moment):  # noqa: ASYNC110 - waits for a time, not an event
            await asyncio.sleep(min(left, 30.0))

    # --- the hook -----------------------------------------------------------------------------

    async def _hook_for(self, end: datetime, seconds: float) -> str | None:
        """How the hook of this end went, in at most `seconds`. One that runs already is waited for,
        not begun again; the task of a lease that is extended meanwhile leaves it alone."""
        running = self._hook is not None and not self._hook.done()
        if self._hook is None or not (running or self._hook_end == end):
            self._hook_end = end
            self._hook = asyncio.create_task(self.run_hook(seconds), name="gpudev hook")
        done, _ = await asyncio.wait(
            [self._hook], timeout=seconds + (0.0 if running else 3 * _HOOK_GRACE)
        )
        if not done:
            self._hook.cancel()
            await asyncio.wait([self._hook])
            return f"~/{HOOK} was ended, since the lease ends early."
        if (error := self._hook.exception()) is not None:
            # Saving goes on, whatever became of the hook.
            log.error("the hook before the end", exc_info=error)
            return f"~/{HOOK} could not be run; the server's log says why."
        return self._hook.result()

    async def run_hook(self, seconds: float) -> str | None:
        """Runs the owner's hook with a time limit; how it went, in words. None without a hook.

        It gets the seconds that it has in `GPUDEV_SECONDS_LEFT`; what it says is kept.
        """
        path = self._home / HOOK
        refused = hook_refused(path)
        if refused is not None:
            return refused or None
        whole = math.floor(seconds)
        if whole < 1:
            return f"~/{HOOK} was not run: there was no time left."
        output, lost = _kept(self._home / HOOK_LOG)
        try:
            process = await asyncio.create_subprocess_exec(
                path,
                cwd=self._home,
                env={**os.environ, "GPUDEV_SECONDS_LEFT": str(whole)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            return f"~/{HOOK} could not be run: {error.strerror}."
        finally:
            if output != asyncio.subprocess.DEVNULL:
                os.close(output)
        how = await self._await_hook(process, seconds)
        return how if lost is None else f"{how} Its output could not be kept: {lost}."

    async def _await_hook(self, process: asyncio.subprocess.Process, seconds: float) -> str:
        try:
            async with asyncio.timeout(seconds):
                code = await process.wait()
        except TimeoutError:
            await _end(process)
            return f"~/{HOOK} was ended after {words.duration(seconds)}, its time limit."
        except asyncio.CancelledError:
            await _end(process)
            raise
        how = "ran to its end" if code == 0 else f"ended with exit code {code}"
        return f"~/{HOOK} {how}."


def _failed(task: asyncio.Task[None]) -> None:
    """Nobody waits for what is done before the end, so its failure is told here."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("what is done before the end of the lease failed", exc_info=error)


def _kept(path: Path) -> tuple[int, str | None]:
    """Where the hook's output goes, and why it is not kept where it is not: nothing there may keep
    the hook, and with it the documents, from being taken care of."""
    try:
        # Without O_NONBLOCK a pipe there would be waited for.
        found = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        return asyncio.subprocess.DEVNULL, f"~/{HOOK_LOG}: {error.strerror}"
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        return asyncio.subprocess.DEVNULL, f"~/{HOOK_LOG}: it is not a file"
    os.truncate(found, 0)
    return found, None


def hook_refused(path: Path) -> str | None:
    """Why the hook is not run: "" where there is none, None where it can be run."""
    try:
        found = path.stat()
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.X_OK):
        return f"~/{HOOK} was not run: it is not an executable file."
    return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the hook and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(_HOOK_GRACE):
                await process.wait()
        except TimeoutError:
            continue
