"""A trace through the real slurmctld, in a hurry: a day passes in minutes.

Its nodes never come up, so a job's end is made by `scancel` when its time has passed. Limits are
whole minutes, as Slurm takes them; whoever is compared with it gets the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import slurm
from gpudev_service.simulate.requests import Request

_MINUTE_MS = 60_000
#: Between two looks at the queue, in seconds.
_LOOK = 0.2


def hurried(requests: Sequence[Request], times: int) -> list[Request]:
    """The same with time passing so many times as fast, and limits of whole minutes."""
    found = []
    for request in requests:
        asked = -(-request.asked_ms // (times * _MINUTE_MS)) * _MINUTE_MS
        run = max(1000, min(asked, request.run_ms // times))
        found.append(replace(request, at_ms=request.at_ms // times, asked_ms=asked, run_ms=run))
    return found


def parameters(window_minutes: int) -> Mapping[str, str]:
    """Slurm as quick as it can be set: a cycle every second, to the second."""
    return {
        "bf_interval": "1",
        "bf_resolution": "1",
        "bf_window": str(window_minutes),
        "bf_max_time": "30",
        "bf_yield_interval": "600000000",
        "sched_interval": "1",
    }


@dataclass(frozen=True)
class Happened:
    """What slurmctld made of a trace: the requests as they really came and ran, for others to be
    asked the same, and the seconds that each waited, by its order."""

    requests: list[Request]
    waits: dict[int, float]


def through_slurmctld(requests: Sequence[Request], nodes: int, window_minutes: int) -> Happened:
    with slurm.Slurm(nodes, parameters=parameters(window_minutes)) as controller:
        return _Run(controller, requests).go()


@dataclass
class _Submitted:
    request: Request
    asked: float
    begun: float | None = None


class _Run:
    def __init__(self, controller: slurm.Slurm, requests: Sequence[Request]) -> None:
        self._controller = controller
        self._to_come = list(reversed(requests))
        self._there: dict[int, _Submitted] = {}
        self._found = Happened([], {})
        self._begin = time.time()
        last = max(request.at_ms for request in requests)
        everything = sum(request.asked_ms for request in requests)
        #: After that something is wrong: one after the other they would have been done.
        self._deadline = self._begin + (last + everything) / 1000

    def go(self) -> Happened:
        while self._to_come or self._there:
            if time.time() > self._deadline:
                raise TimeoutError("slurmctld does not come to the end of the trace")
            while self._to_come and self._begin + self._to_come[-1].at_ms / 1000 <= time.time():
                self._submit(self._to_come.pop())
            self._look()
            time.sleep(_LOOK)
        self._found.requests.sort(key=lambda request: request.at_ms)
        return self._found

    def _submit(self, request: Request) -> None:
        job = slurm.Job(request.nodes, request.units, request.asked_ms // _MINUTE_MS)
        asked = time.time()
        self._there[self._controller.submit_one(job)] = _Submitted(request, asked)

    def _look(self) -> None:
        for number, since in self._controller.begun().items():
            job = self._there.get(number)
            if job is not None and job.begun is None:
                # squeue tells whole seconds: in the middle of that one, as far as it can be.
                job.begun = min(max(since + 0.5, job.asked), time.time())
        over = [
            number
            for number, job in self._there.items()
            if job.begun is not None and job.begun + job.request.run_ms / 1000 <= time.time()
        ]
        self._controller.end(over)
        for number in over:
            self._ended(self._there.pop(number), time.time())

    def _ended(self, job: _Submitted, now: float) -> None:
        begun = job.begun or now
        self._found.waits[job.request.order] = begun - job.asked
        self._found.requests.append(
            replace(
                job.request,
                at_ms=round((job.asked - self._begin) * 1000),
                run_ms=min(job.request.asked_ms, round((now - begun) * 1000)),
            )
        )
