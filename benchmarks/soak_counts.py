"""What a soak has counted, and what that says: what is left, and how memory went on."""

from __future__ import annotations

import statistics
from collections.abc import Callable

#: By part and kind ("files", "sockets", "children", "tasks"): how many there are.
Counts = dict[str, dict[str, int]]
#: By the second, by part: megabytes.
Samples = dict[float, dict[str, float]]


def drift(samples: Samples, *, warm: float, sizes: Samples) -> dict[str, float]:
    """By part, what `samples` gain in an hour as a share of its size; by the straight line through
    what was seen after the first `warm` seconds."""
    counted = {at: memory for at, memory in samples.items() if at >= warm}
    if len(counted) < 3:
        return {}
    found = {}
    for part in next(iter(counted.values())):
        gained, _ = statistics.linear_regression(
            list(counted), [memory[part] for memory in counted.values()]
        )
        size = statistics.fmean(memory[part] for at, memory in sizes.items() if at >= warm)
        found[part] = gained * 3600 / size
    return found


def course(samples: Samples, seconds: float) -> dict[str, list[float]]:
    """By part, its mean memory in each eighth of the time in which it was looked at."""
    found: dict[str, dict[int, list[float]]] = {}
    for at, memory in samples.items():
        for part, size in memory.items():
            found.setdefault(part, {}).setdefault(int(8 * at / seconds), []).append(size)
    return {part: [statistics.fmean(s) for s in each.values()] for part, each in found.items()}


def extremes(which: Callable[[int, int], int], one: Counts, other: Counts) -> Counts:
    """The greater, or the lesser, of each number. Tasks come and go while a service is at rest:
    what was there at every look is left, not what was there at one."""
    found: Counts = {}
    for part in one.keys() | other.keys():
        mine, theirs = one.get(part, {}), other.get(part, {})
        found[part] = {
            kind: which(mine.get(kind, 0), theirs.get(kind, 0))
            for kind in mine.keys() | theirs.keys()
        }
    return found


def more(before: Counts, after: Counts) -> dict[str, int]:
    """What there is more of now."""
    return {
        f"{part} {kind}": count - before[part].get(kind, 0)
        for part, kinds in after.items()
        for kind, count in kinds.items()
        if count > before[part].get(kind, 0)
    }
