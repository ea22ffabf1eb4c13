"""What goes on in this server, told to the service, which judges whether the lease is used.

Looked at once a minute, and only where policy judges at all; told when it changes the picture, and
from time to time so that the service knows that somebody still looks. What counts as use:

- a kernel: it is busy, with a browser open or not, or it has just been;
- a terminal: somebody typed, or what runs there works the processor. Printing alone is none, or
  `watch nvidia-smi` and our own warnings would keep a lease for ever;
- SSH: as the sessions say;
- any other program of the lease that works the processor, whoever is logged in;
- a GPU: it computes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gpudev_client import errors, words
from gpudev_client.ids import MARK
from gpudev_client.models import ActivityReport, ActivitySource, IdleVerdict
from gpudev_client.states import State

from . import usage
from .gpu import GpuFigures, Sampler
from .link import Link

log = logging.getLogger(__name__)

#: Seconds between two looks.
EVERY = 60.0
#: Seconds before the first look, again and again until the service has said how things are.
FIRST = 2.0
#: What is known is told anew after this, though nothing has changed.
HEARTBEAT = timedelta(minutes=5)
#: Percent of a GPU's time from which on it computes.
COMPUTING = 5


def kernels(manager: Any) -> ActivitySource:
    """The kernels of a `MappingKernelManager`, which keeps their states by itself."""
    running = [manager.get_kernel(key) for key in manager.list_kernel_ids()]
    busy = [kernel for kernel in running if getattr(kernel, "execution_state", "") == "busy"]
    seen = [at for kernel in running if (at := getattr(kernel, "last_activity", None)) is not None]
    told = words.counted(len(busy), "kernel")
    return ActivitySource(
        source="kernels",
        busy=bool(busy),
        last_at=max(seen, default=None),
        detail=f"{told} {'is' if len(busy) == 1 else 'are'} busy." if busy else None,
    )


@dataclass(slots=True)
class Terminals:
    """The terminals of the Lab; the processor's time counts from one look to the next."""

    _spent: dict[int, float] = field(default_factory=dict)
    _looked: datetime | None = None
    _worked: datetime | None = None

    def look(self, pids: Iterable[int], now: datetime) -> ActivitySource:
        """`pids` are the shells. Reads /proc, so not in the event loop."""
        spent: dict[int, float] = {}
        typed: list[datetime] = []
        for pid in pids:
            members = usage.tree(pid)
            spent[pid] = usage.processor_time(members)
            typed.extend(usage.typed(members).values())
        working = 0
        if self._looked is not None:
            enough = usage.WORKING * (now - self._looked).total_seconds()
            working = sum(
                spent[pid] - self._spent[pid] >= enough for pid in spent if pid in self._spent
            )
        if working:
            self._worked = now
        self._spent, self._looked = spent, now
        signs = [*typed, *([self._worked] if self._worked else [])]
        detail = f"Something works in {words.counted(working, 'terminal')}." if working else None
        return ActivitySource(
            source="terminals",
            busy=bool(working),
            last_at=min(now, max(signs)) if signs else None,
            detail=detail,
        )


@dataclass(slots=True)
class Programs:
    """Everything else that works: what was started with `nohup`, from a notebook, or by a scheduler
    of the person's own, whoever is logged in."""

    reservation_id: str
    _spent: dict[int, float] = field(default_factory=dict)
    _looked: datetime | None = None
    _worked: datetime | None = None

    def look(self, now: datetime) -> ActivitySource:
        """Reads /proc, so not in the event loop. The Jupyter server itself is none of them."""
        members = usage.marked(MARK, self.reservation_id)
        spent = {
            process.pid: usage.processor_time([process])
            for process in members
            if process.pid != os.getpid()
        }
        busy = False
        if self._looked is not None:
            worked = sum(max(0.0, spent[pid] - self._spent.get(pid, 0.0)) for pid in spent)
            busy = worked >= usage.WORKING * (now - self._looked).total_seconds()
        if busy:
            self._worked = now
        self._spent, self._looked = spent, now
        return ActivitySource(
            source="programs",
            busy=busy,
            last_at=self._worked,
            detail="Programs work the processor." if busy else None,
        )


def ssh(sessions: Sequence[datetime], now: datetime) -> ActivitySource:
    """SSH sessions by when each was last used; one that was used since the last look is busy."""
    recent = [at for at in sessions if (now - at).total_seconds() < EVERY]
    told = words.counted(len(recent), "SSH session")
    return ActivitySource(
        source="ssh",
        busy=bool(recent),
        last_at=min(now, max(sessions)) if sessions else None,
        detail=f"{told} in use." if recent else None,
    )


def gpus(figures: GpuFigures) -> ActivitySource | None:
    """The GPUs; None where there are no figures: what cannot be seen must not look idle."""
    rates = [gpu.used_percent for gpu in figures.gpus if gpu.used_percent is not None]
    if figures.unavailable is not None or not rates or figures.simulated:
        return None
    computing = [point.at for point in figures.history if (point.used or 0) >= COMPUTING]
    busy = max(rates) >= COMPUTING
    return ActivitySource(
        source="gpu",
        busy=busy,
        last_at=datetime.fromtimestamp(max(computing), UTC) if computing else None,
        detail=f"The GPUs compute, at {max(rates)} %." if busy else None,
    )


def worth_telling(
    told: Mapping[str, ActivitySource] | None,
    told_at: datetime,
    found: Sequence[ActivitySource],
    now: datetime,
    verdict: IdleVerdict | None,
) -> bool:
    """Whether the service must hear of `found` now."""
    if told is None or now - told_at >= HEARTBEAT:
        return True
    if {source.source: source.busy for source in found} != {
        name: source.busy for name, source in told.items()
    }:
        return True
    used = any(source.last_at and source.last_at > told_at for source in found)
    # Use that ends an idleness must not wait for the next round.
    return used and verdict is not None and verdict.state != "in_use"


class Observer:
    """Looks at everything in one server.

    Args:
        server: the `ServerApp`.
        reservation_id: by which the lease's processes are known.
        sampler: the GPUs' figures; None for a lease without GPUs.
        ssh_sessions: when each SSH session was last used.
    """

    def __init__(
        self,
        server: Any,
        reservation_id: str,
        sampler: Sampler | None,
        ssh_sessions: Callable[[], Awaitable[Sequence[datetime]]],
    ) -> None:
        self._server, self._sampler, self._ssh = server, sampler, ssh_sessions
        self._terminals, self._programs = Terminals(), Programs(reservation_id)

    async def look(self, now: datetime) -> list[ActivitySource]:
        """One look, off the event loop where it reads the machine."""
        manager = self._server.web_app.settings.get("terminal_manager")
        shells = [one.ptyproc.pid for one in manager.terminals.values()] if manager else []
        found = [
            kernels(self._server.kernel_manager),
            await asyncio.to_thread(self._terminals.look, shells, now),
            ssh(await self._ssh(), now),
            await asyncio.to_thread(self._programs.look, now),
        ]
        gpu = gpus(self._sampler.figures()) if self._sampler is not None else None
        return [*found, gpu] if gpu is not None else found


class Reporter:
    """Looks and tells for as long as the server runs.

    Args:
        look: what is seen now; may await a thread.
    """

    def __init__(
        self,
        link: Link,
        look: Callable[[datetime], Awaitable[list[ActivitySource]]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.verdict: IdleVerdict | None = None
        self._link, self._look = link, look
        self._now, self._pause = now, pause
        self._told: dict[str, ActivitySource] | None = None
        self._told_at = datetime.min.replace(tzinfo=UTC)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="gpudev activity")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                await self.once()
            except errors.GpuDevError as error:
                log.debug("the service was not told what goes on here: %s", error)
            except Exception:
                # One look that fails must not end the looking: the lease would never be idle.
                log.exception("could not look at what goes on in this server")
            await self._pause(FIRST if self._begins() else EVERY)

    def _begins(self) -> bool:
        """Whether the service has not said yet that the server is up: judged from then on."""
        view = self._link.view
        return view is None or view.reservation.state is State.PREPARING

    async def once(self) -> None:
        """One look.

        Raises:
            GpuDevError: it could not be told; the next look tells it.
        """
        view = self._link.view
        if view is None or view.reservation.idle is None:
            return  # nothing is judged
        now = self._now()
        found = await self._look(now)
        if not worth_telling(self._told, self._told_at, found, now, self.verdict):
            return
        before = self.verdict
        report = ActivityReport(sources=found)
        told = await self._link.client.report_activity(self._link.reservation_id, report)
        self.verdict = told.idle
        self._told, self._told_at = {source.source: source for source in found}, now
        if before is None or self.verdict is None or before.state != self.verdict.state:
            await self._link.renew()  # which tells the pages
