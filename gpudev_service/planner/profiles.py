"""How many units are free on each node, over time: one step function per node.

Taking more than is free is possible, because a lease may overstay: then less than nothing is free.
After the last step everything is free.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

#: The end of a span with nothing behind it.
FOREVER = 1 << 59

_NOT_FREE = -1


class Profiles:
    """Step functions by node: from `times[node][i]` on, `free[node][i]` units are free.

    Nodes go by their place in the pool's list. Times before the beginning do not exist.
    """

    __slots__ = ("free", "times")

    def __init__(self, since: int, units: Iterable[int]) -> None:
        self.free = [[count] for count in units]
        self.times = [[since] for _ in self.free]

    def copy(self) -> Profiles:
        """The same steps, to go on from."""
        copy = Profiles(0, ())
        copy.free = [free[:] for free in self.free]
        copy.times = [times[:] for times in self.times]
        return copy

    def change(self, node: int, start: int, end: int, by: int) -> list[int]:
        """Adds `by` to what is free over [start, end); returns what was free there by step."""
        times, free = self.times[node], self.free[node]
        first = bisect_left(times, start)
        if first == len(times) or times[first] != start:
            times.insert(first, start)
            free.insert(first, free[first - 1])
        last = bisect_left(times, end, first)
        if last == len(times) or times[last] != end:
            times.insert(last, end)
            free.insert(last, free[last - 1])
        before = free[first:last]
        free[first:last] = [count + by for count in before]
        if free[last] == free[last - 1]:
            del times[last], free[last]
        if first and free[first] == free[first - 1]:
            del times[first], free[first]
        return before

    def has(self, node: int, units: int, start: int, end: int) -> bool:
        """Whether `units` are free throughout [start, end)."""
        times, free = self.times[node], self.free[node]
        at = bisect_right(times, start) - 1
        steps = len(times)
        while free[at] >= units:
            at += 1
            if at == steps or times[at] >= end:
                return True
        return False

    def spans(
        self, node: int, units: int, least: int, start: int = 0, end: int = FOREVER
    ) -> list[int]:
        """Start and end, by turns, of the spans within [start, end) in which `units` are free.

        Spans shorter than `least` are left out.
        """
        times, free = self.times[node], self.free[node]
        edges: list[int] = []
        if start >= end:
            return edges
        first = bisect_right(times, start) - 1
        if first < 0:
            first, start = 0, times[0]
        last = bisect_left(times, end, first)
        begin = start if free[first] >= units else _NOT_FREE
        for at in range(first + 1, last):
            if free[at] >= units:
                if begin == _NOT_FREE:
                    begin = times[at]
            elif begin != _NOT_FREE:
                time = times[at]
                if time - begin >= least:
                    edges.append(begin)
                    edges.append(time)
                begin = _NOT_FREE
        if begin != _NOT_FREE and end - begin >= least:
            edges += (begin, end)
        return edges

    def steps(self, node: int, start: int, end: int) -> list[tuple[int, int, int]]:
        """What is free within [start, end): (from, until, units) of each step."""
        times, free = self.times[node], self.free[node]
        first = bisect_right(times, start) - 1
        last = bisect_left(times, end, first)
        edges = [start, *times[first + 1 : last], end]
        return list(zip(edges, edges[1:], free[first:last], strict=False))

    def is_free_before(self, nodes: Iterable[int], units: int, start: int) -> bool:
        """Whether `units` are free right up to `start` on any of `nodes`."""
        for node in nodes:
            at = bisect_left(self.times[node], start)
            if at and self.free[node][at - 1] >= units:
                return True
        return False

    def free_since(self, node: int, units: int, start: int) -> int:
        """Since when `units` have been free right up to `start`; `start` if they are not."""
        times, free = self.times[node], self.free[node]
        at = bisect_left(times, start)
        if at == 0 or free[at - 1] < units:
            return start
        while at and free[at - 1] >= units:
            at -= 1
        return times[at]
