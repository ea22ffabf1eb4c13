"""Jobs of a trace as a fleet can be asked for them. Times are milliseconds since the first one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .fleet import Fleet
from .trace import PARTS, Job, Trace, TraceError

SECOND = 1000
#: Logs have jobs that outlived their limit by the time it takes to end them.
_OVERRUN_MS = 5 * 60 * SECOND


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants: `run_ms` on `units` of each of `nodes` nodes, asked for as `asked_ms`.

    Who needs more than was asked for (`run_ms` above `asked_ms`) extends, or comes again.
    `booked_ms` is the wished start of a booking.
    """

    order: int
    at_ms: int
    run_ms: int
    asked_ms: int
    pool: str
    nodes: int
    units: int
    user: str = ""
    groups: tuple[str, ...] = ()
    booked_ms: int | None = None

    @property
    def gpus(self) -> int:
        return self.nodes * self.units


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests by submission, and how many jobs were left out for which reason."""

    requests: tuple[Request, ...]
    left_out: Counter[str]


def fitted(trace: Trace, fleet: Fleet, *, per_gpu: int = 1) -> Workload:
    """The jobs of `trace` as requests; `per_gpu` processors of it are one GPU.

    Raises:
        TraceError: a job names a partition that is no GPU type of the fleet, or none fits.
    """
    found: list[Request] = []
    left_out: Counter[str] = Counter()
    for job in trace.jobs:
        if job.status in PARTS:
            left_out["parts of jobs that are told as a whole"] += 1
        elif not job.run_s or job.run_s <= 0:
            left_out["never ran"] += 1
        elif job.gpus is None:
            left_out["without a number of GPUs"] += 1
        else:
            pool = _pool(job, fleet, trace.name)
            shape = _shape(-(-job.gpus // per_gpu), list(fleet.nodes[pool].values()))
            if shape is None:
                left_out["more than the fleet has"] += 1
            else:
                found.append(_request(job, pool, *shape))
    if not found:
        raise TraceError(f"{trace.name}: no job can be replayed: {told(left_out)}.")
    first = min(request.at_ms for request in found)
    return Workload(tuple(_from(first, found)), left_out)


def told(left_out: Counter[str]) -> str:
    """In words: "3 never ran, 1 more than the fleet has"."""
    return ", ".join(f"{count} {why}" for why, count in left_out.items())


def _pool(job: Job, fleet: Fleet, name: str) -> str:
    """The GPU type of a job; where the fleet has one only, that one."""
    if job.partition is not None and job.partition in fleet.nodes:
        return job.partition
    if len(fleet.nodes) == 1:
        return next(iter(fleet.nodes))
    raise TraceError(
        f"{name}: job {job.number} is for partition {job.partition or 'unknown'}, which is no GPU "
        f"type. Accepted: {', '.join(fleet.nodes)}, named in the file's header by lines as "
        "'; Partition: 1 h100'."
    )


def _shape(gpus: int, nodes: Sequence[int]) -> tuple[int, int] | None:
    """(Nodes, units on each): on one node where that is enough, else on whole ones."""
    whole = max(nodes)
    count, units = (1, max(1, gpus)) if gpus <= whole else (-(-gpus // whole), whole)
    return (count, units) if sum(there >= units for there in nodes) >= count else None


def _request(job: Job, pool: str, nodes: int, units: int) -> Request:
    run = _ms(job.run_s or 0)
    asked = _ms(job.requested_s) if job.requested_s else run
    if asked < run <= asked + _OVERRUN_MS:
        run = asked
    return Request(
        order=job.number,
        at_ms=_ms(job.submit_s),
        run_ms=run,
        asked_ms=asked,
        pool=pool,
        nodes=nodes,
        units=units,
        user=job.user,
        groups=job.groups,
        booked_ms=None if job.booked_s is None else _ms(job.booked_s),
    )


def _from(first: int, requests: list[Request]) -> list[Request]:
    """The same with `first` as the beginning of time, numbered by submission."""
    return [
        replace(
            request,
            order=at,
            at_ms=request.at_ms - first,
            booked_ms=None if request.booked_ms is None else request.booked_ms - first,
        )
        for at, request in enumerate(sorted(requests, key=lambda one: (one.at_ms, one.order)))
    ]


def _ms(seconds: float) -> int:
    return max(0, round(seconds * SECOND))
