"""Weeks of a service in one process, and what it holds after them: the simulated days of R9.

Real operations, planner, loops and store over a SQLite file, in the world of `tests/simulation`
with all of its troubles off: each hour people ask, extend and cancel, servers come up, and the
loops run when they asked for it. The clock is the simulation's. Counted is what Python holds that
was allocated in the service and in the libraries that it calls (not in the simulation's own
doubles), every six hours, after a collection; and what is open then: background work that is not
done, tasks of the event loop, connections to the database, files.
"""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import statistics
import sys
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from sqlalchemy.pool import QueuePool

from benchmarks.campaign import quiet, scratch, size
from gpudev_service.errors import Refusal
from gpudev_service.loops import driving
from gpudev_service.store import migrate
from tests.simulation.steps import bring_up, cancel, extend, submit
from tests.simulation.world import Life

FULL = 48
DAYS = size("DAYS", FULL, 1)
#: The part of the days that does not count: caches fill, and what is kept for a time is not yet
#: old enough to go.
WARM = 0.25
#: Hours between two looks.
HOURS = 6
#: What is asked for in an hour.
ASKED = 3
MEGABYTE = 2**20


class Open(NamedTuple):
    """What is there and may have been forgotten."""

    work: int
    tasks: int
    connections: int
    files: int

    @classmethod
    def of(cls, life: Life) -> Open:
        engines = life.store._engines
        pools = [engine.sync_engine.pool for engine in (engines.write, engines.read)]
        assert all(isinstance(pool, QueuePool) for pool in pools)
        return cls(
            life.background.waiting,
            len(asyncio.all_tasks()),
            sum(pool.checkedin() + pool.checkedout() for pool in pools),  # type: ignore[attr-defined]
            psutil.Process().num_fds(),
        )


@dataclass
class Days:
    """What was seen every `HOURS` hours."""

    held: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    open: list[Open] = field(default_factory=list)
    operations: int = 0

    @property
    def left(self) -> dict[str, int]:
        """What is open at the end beyond the most that was in the days that do not count."""
        first = self.open[: max(1, int(WARM * len(self.open)))]
        counted = {
            name: getattr(self.open[-1], name) - max(getattr(each, name) for each in first)
            for name in Open._fields
        }
        return {name: number for name, number in counted.items() if number > 0}

    @property
    def growth(self) -> float:
        """How much more is held at the end of the days that count, as a share, by a straight line
        through them."""
        counted = self.held[int(WARM * len(self.held)) :]
        if len(counted) < 3:
            return float("nan")
        gained, _ = statistics.linear_regression(range(len(counted)), counted)
        return gained * (len(counted) - 1) / statistics.fmean(counted)

    @property
    def hourly(self) -> float:
        """The same for each hour."""
        counted = len(self.held) - int(WARM * len(self.held))
        return self.growth / max(HOURS * (counted - 1), 1)


def _held() -> float:
    """MB that Python holds on behalf of the service."""
    gc.collect()
    ours = [
        tracemalloc.Filter(False, "*/tests/*"),
        tracemalloc.Filter(False, tracemalloc.__file__),
    ]
    found = tracemalloc.take_snapshot().filter_traces(ours)
    return sum(trace.size for trace in found.traces) / MEGABYTE


async def _hours(life: Life, number: int) -> None:
    for hour in range(HOURS):
        end = life.clock.now() + timedelta(hours=1)
        life.chance.rng = random.Random(f"{life.seed}:{number}:{hour}")
        for step in (*[submit] * ASKED, extend, cancel):
            with suppress(Refusal):
                await step(life)
        for key in list(life.hub.rows):
            with suppress(Refusal):
                await bring_up(life, key)
        await life.live_through(timedelta(hours=1))
        # Where the loops had much to do, not all of the hour has passed.
        life.pass_time(max(end - life.clock.now(), timedelta(0)))
        life.log.clear()
        life.checker.answered.clear()


async def _live(folder: Path) -> Days:
    life, found = Life(1, folder, f"sqlite:///{folder / 'gpudev.sqlite'}"), Days()
    life.chance.calm = True
    await migrate.upgrade(life.store)
    tracemalloc.start()
    try:
        for number in range(DAYS * 24 // HOURS):
            await _hours(life, number)
            found.held.append(_held())
            found.resident.append(psutil.Process().memory_info().rss / MEGABYTE)
            found.open.append(Open.of(life))
            print(
                f"simulated day {(number + 1) * HOURS / 24:.2f}: {found.held[-1]:.2f} MB held,"
                f" {found.resident[-1]:.0f} MB as the system sees it, open {found.open[-1]}",
                flush=True,
            )
        found.operations = life.operations
    finally:
        tracemalloc.stop()
        await life.close()
    return found


def measure() -> Days:
    """Lives through `DAYS`; prints more."""
    quiet()
    folder = scratch()
    try:
        with pytest.MonkeyPatch.context() as patch:
            # Time is the simulation's: nobody waits for it.
            patch.setattr(driving, "PAUSE", 0.0)
            return asyncio.run(_live(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    seen = measure()
    print(f"{seen.growth:+.2%} in {DAYS} days, {seen.hourly:+.4%} an hour; left: {seen.left}")
    sys.exit(0)
