"""A trace through the real slurmctld, in a hurry: a day passes in minutes.

Its nodes never come up, so a job's end is made by `scancel` when its time has passed. Limits are
whole minutes, as Slurm takes them; whoever is compared with it gets the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

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


def waits(requests: Sequence[Request], nodes: int, window_minutes: int) -> dict[int, float]:
    """How long each request waited in slurmctld, in seconds, by its order."""
    with slurm.Slurm(nodes, parameters=parameters(window_minutes)) as controller:
        return _Run(controller, requests).go()


class _Run:
    def __init__(self, controller: slurm.Slurm, requests: Sequence[Request]) -> None:
        self._controller = controller
        self._to_come = list(reversed(requests))
        self._submitted: dict[int, tuple[Request, float]] = {}
        self._ending: dict[int, float] = {}
        self._waits: dict[int, float] = {}
        last = max(request.at_ms for request in requests)
        everything = sum(request.asked_ms for request in requests)
        #: After that something is wrong: one after the other they would have been done.
        self._deadline = time.time() + (last + everything) / 1000

    def go(self) -> dict[int, float]:
        begin = time.time()
        while self._to_come or self._submitted:
            if time.time() > self._deadline:
                raise TimeoutError("slurmctld does not come to the end of the trace")
            while self._to_come and begin + self._to_come[-1].at_ms / 1000 <= time.time():
                self._submit(self._to_come.pop())
            self._look()
            time.sleep(_LOOK)
        return self._waits

    def _submit(self, request: Request) -> None:
        job = slurm.Job(request.nodes, request.units, request.asked_ms // _MINUTE_MS)
        asked = time.time()
        self._submitted[self._controller.submit_one(job)] = request, asked

    def _look(self) -> None:
        for number, since in self._controller.begun().items():
            if number in self._submitted and number not in self._ending:
                request, asked = self._submitted[number]
                self._waits[request.order] = max(0.0, since - asked)
                self._ending[number] = since + request.run_ms / 1000
        over = [number for number, end in self._ending.items() if end <= time.time()]
        self._controller.end(over)
        for number in over:
            del self._ending[number], self._submitted[number]
