"""Traces made up from a seed: what people of a GPU cluster ask for in the course of weeks.

Most ask for one to eight GPUs of a node, some for several whole nodes. Working days are busier than
weekends, afternoons than nights. People ask for round numbers of hours and often end early. How
much is asked for in all is a share of what the fleet could deliver: that is the load.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from types import MappingProxyType

from .trace import Job, Status, Trace

#: GPU-hours that are used, as a share of what the fleet could deliver.
LOADS: Mapping[str, float] = MappingProxyType({"light": 0.6, "busy": 0.85, "full": 1.0})
DAYS = 30

HOUR = 3600
_DAY = 24 * HOUR
#: Out of a hundred requests on one node, how many ask for so many GPUs (of eight).
_SIZES = {1: 34, 2: 22, 3: 2, 4: 18, 5: 1, 6: 2, 7: 1, 8: 20}
#: The same for hours.
_HOURS = {0.5: 10, 1: 18, 2: 20, 4: 18, 8: 16, 12: 8, 24: 10}
#: How many requests are for several whole nodes, and for no more than so large a part of the fleet.
_GANGS, _LARGEST_GANG = 0.06, 0.25
#: How busy the hours of a day are, and a day at the weekend.
_BY_HOUR = (2, 1, 1, 1, 1, 1, 2, 4, 8, 11, 12, 11, 10, 12, 13, 12, 11, 10, 8, 6, 5, 4, 4, 3)
_WEEKEND = 0.35
#: Who fails early, who uses all that was asked for; the rest ends somewhere between.
_FAILS, _USES_ALL = 0.12, 0.3
_USERS = 40


def make(
    load: float, nodes: int, gpus_per_node: int, *, days: int = DAYS, seed: int = 1, name: str = ""
) -> Trace:
    """A trace that asks a fleet of `nodes` for `load` times what it can deliver in `days`."""
    rng = random.Random(f"gpudev synthetic {seed}")  # noqa: S311 - it has to be repeatable
    wanted = load * nodes * gpus_per_node * days * _DAY
    asked: list[tuple[int, int, int, bool]] = []
    while wanted > 0:
        gpus = _gpus(rng, nodes, gpus_per_node)
        requested, run, failed = _times(rng)
        wanted -= gpus * run
        asked.append((gpus, requested, run, failed))
    submits = sorted(_moments(rng, days, len(asked)))
    users = [1 / rank for rank in range(1, _USERS + 1)]
    jobs = tuple(
        Job(
            number=at,
            submit_s=submit,
            run_s=run,
            gpus=gpus,
            requested_s=requested,
            status=Status.FAILED if failed else Status.COMPLETED,
            user=f"user {rng.choices(range(1, _USERS + 1), users)[0]}",
        )
        for at, (submit, (gpus, requested, run, failed)) in enumerate(
            zip(submits, asked, strict=True), 1
        )
    )
    header = {
        "Computer": f"made up: {nodes} nodes of {gpus_per_node} GPUs",
        "Note": f"load {load:g}, {days} days, seed {seed}",
        "MaxNodes": str(nodes),
        "MaxProcs": str(nodes * gpus_per_node),
    }
    return Trace(name or f"load {load:g}, seed {seed}", jobs, header)


def _gpus(rng: random.Random, nodes: int, gpus_per_node: int) -> int:
    largest = int(nodes * _LARGEST_GANG)
    if largest > 1 and rng.random() < _GANGS:
        return rng.randint(2, largest) * gpus_per_node
    of_eight = rng.choices(list(_SIZES), list(_SIZES.values()))[0]
    return max(1, of_eight * gpus_per_node // 8)


def _times(rng: random.Random) -> tuple[int, int, bool]:
    """(Seconds asked for, seconds used, whether it failed)."""
    requested = round(rng.choices(list(_HOURS), list(_HOURS.values()))[0] * HOUR)
    kind = rng.random()
    if kind < _FAILS:
        return requested, max(30, round(requested * rng.uniform(0, 0.05))), True
    if kind < _FAILS + _USES_ALL:
        return requested, requested, False
    return requested, max(60, round(requested * rng.uniform(0.05, 1))), False


def _moments(rng: random.Random, days: int, count: int) -> list[int]:
    """Moments of submission. The first day is a Monday."""
    weights = [
        busy * (_WEEKEND if day % 7 >= 5 else 1)  # noqa: PLR2004 - Saturday and Sunday
        for day in range(days)
        for busy in _BY_HOUR
    ]
    sums = list(accumulate(weights))
    return [
        bisect(sums, rng.random() * sums[-1]) * HOUR + rng.randrange(HOUR) for _ in range(count)
    ]
