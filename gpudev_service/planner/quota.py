"""How much of a quota is in use, over time.

A quota behaves like one more resource: a start must not only find nodes, its users must also stay
below their limit for the whole of the slot. So a promise under a quota is as firm as any other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from .profiles import FOREVER


class Usage:
    """Units in use under one quota key: a step function that ends at zero."""

    __slots__ = ("_times", "_used")

    def __init__(self, since: int) -> None:
        self._times = [since]
        self._used = [0]

    def copy(self) -> Usage:
        """The same use, to go on from."""
        copy = Usage(0)
        copy._times, copy._used = self._times[:], self._used[:]
        return copy

    def add(self, start: int, end: int, units: int) -> None:
        """Counts `units` more (fewer, if negative) over [start, end)."""
        times, used = self._times, self._used
        first = bisect_left(times, start)
        if first == len(times) or times[first] != start:
            times.insert(first, start)
            used.insert(first, used[first - 1])
        last = bisect_left(times, end, first)
        if last == len(times) or times[last] != end:
            times.insert(last, end)
            used.insert(last, used[last - 1])
        for at in range(first, last):
            used[at] += units
        if used[last] == used[last - 1]:
            del times[last], used[last]
        if first and used[first] == used[first - 1]:
            del times[first], used[first]

    def earliest(self, start: int, duration: int, most: int, own_start: int = FOREVER) -> int:
        """The first moment from `start` on from which no more than `most` is used for `duration`.

        `most` is at least 0, so there is one: after everything that is planned.
        `own_start`: who asks has the units from then on, for as long, and wants to begin before;
        if they cannot, it is a moment no earlier.
        """
        times, used = self._times, self._used
        count = len(times)
        at = bisect_right(times, start) - 1
        while True:
            end = min(start + duration, own_start)
            while at < count and times[at] < end and used[at] <= most:
                at += 1
            if at == count or times[at] >= end:
                return start
            while used[at] > most:
                at += 1
            start = times[at]
