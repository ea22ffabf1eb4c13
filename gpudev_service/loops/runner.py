"""Repeats the loops: when one asks to be run, when something changed, and at its longest interval.

A loop that fails is reported (readiness, metrics, log) and tried again with growing pauses; it
never ends, and it never stops another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import LoopHealth
from gpudev_service.context import Context
from gpudev_service.settings import Times
from gpudev_service.store.errors import StoreError
from gpudev_service.store.models import LoopRunRow

from . import driving, expiry, fleet, idle, reconcile, retention, shares, sizes, starts, warnings
from .slept import Slept
from .surroundings import Surroundings

log = logging.getLogger(__name__)

#: Runs once; returns when it would like to be run again, or None.
Run = Callable[[Context], Awaitable[datetime | None]]

_STORED_EVERY = timedelta(minutes=1)
#: Longest pause after failures, in seconds: once the database is back, what is due must not wait.
_LONGEST_PAUSE = 5.0
#: What a loop may be late without being called stalled, in seconds.
_LATE = 30.0
#: A loop has stalled when it is this many intervals late.
_STALLED_AFTER = 4


def _calm(times: Times) -> float:
    """The longest pause of a loop that says itself when it has left something undone."""
    return times.sweep * 5


@dataclass(frozen=True, slots=True)
class Loop:
    """`interval` is the longest pause between two runs; `eager` loops also run at every change: at
    once after a time of rest, else so many seconds (`rest`) after their last run began. Changes
    come in crowds, and what a loop reads does not grow with how many there were.

    All that a running service changes rings the bell, so that the longest pause of an eager loop is
    for what others may have done to the database; one that left something undone says so itself.
    """

    run: Run
    interval: Callable[[Times], float]
    eager: bool = True
    rest: float = 0.1


LOOPS: Mapping[str, Loop] = MappingProxyType(
    {
        # A change moves no lease's end or warning so near that it could be missed by resting.
        "expiry": Loop(expiry.run, _calm, rest=0.5),
        "starts": Loop(starts.run, _calm),
        "driving": Loop(driving.run, _calm),
        # Whether the fleet can be seen is not rung for.
        "fleet": Loop(fleet.run, lambda t: t.sweep),
        "shares": Loop(shares.run, _calm),
        "warnings": Loop(warnings.run, _calm, rest=0.5),
        "idle": Loop(idle.run, lambda t: t.idle, eager=False),
        "sizes": Loop(sizes.run, lambda t: min(t.measure, 60.0), eager=False),
        "reconcile": Loop(reconcile.run, lambda t: t.reconcile, eager=False),
        "retention": Loop(retention.run, lambda t: t.retention, eager=False),
    }
)


async def run_once(ctx: Context, name: str) -> datetime | None:
    """One run of the loop `name`, recorded; what it raises is recorded and raised."""
    started = ctx.clock.now()
    message: str | None = "did not end"
    try:
        due = await LOOPS[name].run(ctx)
        message = None
        return due
    except Exception as error:
        message = _told(error)
        raise
    finally:
        await _store(ctx, name, started, message)


async def _store(ctx: Context, name: str, started: datetime, message: str | None) -> None:
    async def work(session: AsyncSession) -> None:
        await session.merge(
            LoopRunRow(
                name=name,
                started_at=started,
                finished_at=ctx.clock.now(),
                ok=message is None,
                message=message,
            )
        )

    await ctx.store.run(work)


class Runner:
    """Keeps one task per loop."""

    def __init__(self, ctx: Context) -> None:
        self._ctx, self._surroundings = ctx, Surroundings(ctx)
        self._tasks: list[asyncio.Task[None]] = []
        self._last: dict[str, LoopHealth] = {}
        self._stored: dict[str, tuple[datetime, bool]] = {}
        self._begun: datetime | None = None
        self._slept: Slept | None = None

    def start(self, *, behind: timedelta = timedelta(0)) -> None:
        """Begins.

        Args:
            behind: how far the clock, when it was read at the start, lay behind what had been
                written down before.
        """
        self._begun = self._ctx.other_clocks.begun = self._ctx.clock.now()
        self._surroundings.begin(behind)
        self._slept = Slept(self._ctx)
        self._tasks = [asyncio.create_task(self._repeat(name), name=name) for name in LOOPS]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._ctx.background.close()

    def health(self) -> list[LoopHealth]:
        """How each loop did last, one that is overdue is not ok; and what they depend on."""
        now = self._ctx.clock.now()
        found = []
        for name, loop in LOOPS.items():
            last = self._last.get(name) or LoopHealth(name=name, last_run_at=None, ok=True)
            patience = loop.interval(self._ctx.settings.times) * _STALLED_AFTER + _LATE
            since = last.last_run_at or self._begun
            if last.ok and since and (now - since).total_seconds() > patience:
                last = last.model_copy(update={"ok": False, "message": "has not run for too long"})
            found.append(last)
        return [*found, *self._surroundings.health(now)]

    async def _repeat(self, name: str) -> None:
        loop, failures = LOOPS[name], 0
        now = asyncio.get_running_loop().time
        while True:
            bell, begun = self._ctx.wake.current, now()
            due: datetime | None = None
            try:
                due = await loop.run(self._ctx)
                failures = 0
            except Exception as error:
                failures += 1
                log.exception("loop %s failed (%d in a row)", name, failures)
                await self._ended(name, _told(error))
            else:
                await self._ended(name, None)
            self._surroundings.tell()
            if self._slept is not None:
                self._slept.look()
            pause = self._pause(loop, due)
            if failures:
                first = min(pause, self._ctx.settings.times.sweep)
                await asyncio.sleep(min(_LONGEST_PAUSE, first * 2 ** min(failures, 8)))
            elif loop.eager:
                until = now() + pause
                await _wait(bell, pause)
                await asyncio.sleep(max(0.0, min(begun + loop.rest, until) - now()))
            else:
                await asyncio.sleep(pause)

    def _pause(self, loop: Loop, due: datetime | None) -> float:
        longest = loop.interval(self._ctx.settings.times)
        if due is None:
            return longest
        return min(longest, max(0.0, (due - self._ctx.clock.now()).total_seconds()))

    async def _ended(self, name: str, message: str | None) -> None:
        now, ok = self._ctx.clock.now(), message is None
        self._last[name] = LoopHealth(name=name, last_run_at=now, ok=ok, message=message)
        before = self._stored.get(name)
        if before and before[1] == ok and now - before[0] < _STORED_EVERY:
            return
        try:
            await _store(self._ctx, name, now, message)
            self._stored[name] = (now, ok)
        except Exception:  # noqa: BLE001 - the database is away; readiness says so by itself
            log.warning("the run of loop %s could not be recorded", name)


async def _wait(bell: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(bell.wait(), seconds)
    except TimeoutError:
        return


def _told(error: Exception) -> str:
    """What readiness says of a failure: what the store says is meant for operators."""
    return str(error) if isinstance(error, StoreError) else type(error).__name__
