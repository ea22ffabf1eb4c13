"""Slurm's rules for the same queue: priority order, and `sched/backfill` every half minute.

Written from what slurm.conf(5) says, and it shares nothing with the planner. The rules, with the
names of `SchedulerParameters`:

- When a job arrives or ends, the queue is looked at in the order of priority and arrival (up to
  `default_queue_depth`), and jobs start until the first that does not fit.
- Every `bf_interval`, if something has changed, the backfill goes through the queue in the same
  order (up to `bf_max_job_test`). Each job gets the earliest start at which it delays nobody before
  it, by what running jobs have asked for; whoever could start now does. Starts further away than
  `bf_window` are not reserved. Ends are rounded up to `bf_resolution`.
- Nothing is kept from one cycle to the next: a start time that was told may move either way.

How a start and nodes are found is in `backfill_plans`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .backfill_plans import AsSlurm, Exact, Taken, Want
from .fleet import Fleet
from .replay import Part


@dataclass(frozen=True, slots=True)
class Parameters:
    """Slurm's defaults."""

    bf_interval_ms: int = 30_000
    bf_resolution_ms: int = 60_000
    bf_window_ms: int = 24 * 3_600_000
    bf_max_job_test: int = 500
    default_queue_depth: int = 100
    #: Not Slurm's: each job gets the very first place, GPU by GPU; see `backfill_plans`.
    exact: bool = False


@dataclass(frozen=True, slots=True)
class _Running:
    nodes: tuple[str, ...]
    units: int
    pool: str
    until_ms: int


class Backfill:
    """A queue by Slurm's rules."""

    def __init__(self, fleet: Fleet, parameters: Parameters | None = None) -> None:
        self._parameters = parameters or Parameters()
        self._units = {pool: dict(those) for pool, those in fleet.nodes.items()}
        self._free = {pool: dict(those) for pool, those in fleet.nodes.items()}
        self._queue: list[tuple[int, int, Part]] = []
        self._running: dict[str, _Running] = {}
        self._told: dict[str, int] = {}
        #: When the next cycle is; None while nothing has changed since the last one.
        self._cycle_ms: int | None = None
        self._last_cycle_ms = -self._parameters.bf_interval_ms

    @property
    def told(self) -> Mapping[str, int]:
        return self._told

    def add(self, part: Part, now: int) -> bool:
        request = part.request
        there = self._units.get(request.pool, {}).values()
        if sum(units >= request.units for units in there) < request.nodes:
            return False
        insort(self._queue, (-part.priority, part.order, part), key=lambda entry: entry[:2])
        self._changed(max(now, part.booked_ms or 0))
        return True

    def end(self, key: str, now: int) -> None:
        job = self._running.pop(key)
        for node in job.nodes:
            self._free[job.pool][node] += job.units
        self._changed(now)

    def extend(self, key: str, wanted_ms: int, now: int) -> int:
        """Only an administrator can give a running job more time."""
        return 0

    def due_ms(self) -> int | None:
        return self._cycle_ms

    def _changed(self, now: int) -> None:
        after = self._last_cycle_ms + self._parameters.bf_interval_ms
        at = max(now, after)
        self._cycle_ms = at if self._cycle_ms is None else min(at, self._cycle_ms)

    def begin(self, now: int) -> Iterable[str]:
        begun = self._in_order(now)
        if self._cycle_ms is not None and now >= self._cycle_ms:
            self._cycle_ms, self._last_cycle_ms = None, now
            begun += self._backfill(now)
        gone = set(begun)
        if gone:
            self._queue = [entry for entry in self._queue if entry[2].key not in gone]
        later = [part.booked_ms for _, _, part in self._queue if (part.booked_ms or 0) > now]
        if later:
            self._changed(min(moment for moment in later if moment is not None))
        return begun

    def _in_order(self, now: int) -> list[str]:
        """Starts jobs in order until the first of each partition that does not fit."""
        begun: list[str] = []
        blocked: set[str] = set()
        for _, _, part in self._queue[: self._parameters.default_queue_depth]:
            request = part.request
            if request.pool in blocked or (part.booked_ms or 0) > now:
                continue
            free = self._free[request.pool]
            fitting = sorted(
                (units, node) for node, units in free.items() if units >= request.units
            )
            if len(fitting) < request.nodes:
                blocked.add(request.pool)
                if len(blocked) == len(self._free):
                    break
                continue
            self._start(part, tuple(node for _, node in fitting[: request.nodes]), now)
            begun.append(part.key)
        return begun

    def _start(self, part: Part, nodes: tuple[str, ...], now: int) -> None:
        request = part.request
        for node in nodes:
            self._free[request.pool][node] -= request.units
        until = now + part.lease_ms
        self._running[part.key] = _Running(nodes, request.units, request.pool, until)
        self._told.setdefault(part.key, now)

    def _backfill(self, now: int) -> list[str]:
        """One cycle; who could start now has started."""
        parameters = self._parameters
        kind = Exact if parameters.exact else AsSlurm
        plans = {
            pool: kind(
                now,
                units,
                [
                    Taken(job.nodes, job.units, self._rounded(job.until_ms))
                    for job in self._running.values()
                    if job.pool == pool
                ],
                parameters.bf_window_ms,
            )
            for pool, units in self._units.items()
        }
        begun: list[str] = []
        for _, _, part in self._queue[: parameters.bf_max_job_test]:
            if part.key in self._running:
                continue
            plan, request = plans[part.request.pool], part.request
            want = Want(request.nodes, request.units, part.lease_ms)
            found = plan.place(want, max(now, part.booked_ms or 0))
            if found is None:
                continue
            start, nodes = found
            self._told.setdefault(part.key, start)
            end = self._rounded(start + part.lease_ms)
            if start <= now:
                self._start(part, nodes, now)
                plan.start(Taken(nodes, request.units, end))
                begun.append(part.key)
            else:
                plan.reserve(start, Taken(nodes, request.units, end))
        return begun

    def _rounded(self, moment: int) -> int:
        step = self._parameters.bf_resolution_ms
        return -(-moment // step) * step
