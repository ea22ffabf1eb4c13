"""Which units of a pool's nodes are taken when, and where there is room.

`Calendar` keeps, per node, how many units are free over time (a step function), and for each number
of units that is asked for an index of the windows in which so many are free (`windows.Windows`). It
knows nothing of queues or promises. Nodes go by their place in the pool's list; times before the
calendar's beginning do not exist.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from .windows import FOREVER, MAX_NODES, Window, Windows

_NONE: Mapping[int, Window] = {}


class Calendar:
    """Free units over time for each node of a pool.

    `open_nodes` are those on which something new may be placed; only these are searched. Taking
    more than is free is possible, because a lease may overstay: then less than nothing is free.
    """

    def __init__(self, since: int, units: Sequence[int], open_nodes: Sequence[bool]) -> None:
        if len(units) > MAX_NODES:
            raise ValueError(f"a pool has at most {MAX_NODES} nodes")
        self.since = since
        self._units = list(units)
        self._open = list(open_nodes)
        self._times = [[since] for _ in units]
        self._free = [[count] for count in units]
        self._indexes: list[tuple[int, Windows]] = []  # by number of units, descending

    def take(self, nodes: Sequence[int], start: int, end: int, units: int) -> None:
        """Takes `units` on each of `nodes` over [start, end)."""
        for node in nodes:
            self._change(node, max(start, self.since), end, -units)

    def give(self, nodes: Sequence[int], start: int, end: int, units: int) -> None:
        """Gives back what was taken with the same arguments."""
        for node in nodes:
            self._change(node, max(start, self.since), end, units)

    def fits(self, nodes: Sequence[int], start: int, end: int, units: int) -> bool:
        """Whether all `nodes` are open and have `units` free throughout [start, end)."""
        return all(self._open[node] and self._has(node, start, end, units) for node in nodes)

    def find(
        self,
        count: int,
        units: int,
        duration: int,
        earliest: int,
        before: int = FOREVER,
        own: Mapping[int, Window] = _NONE,
    ) -> tuple[int, tuple[int, ...]] | None:
        """The first start in [earliest, before) for `units` on `count` nodes, and the nodes.

        `own`: windows, by node, that there would be if the asker's own slot were not (see
        `freed_by`); they are searched as well.
        """
        index = self._index(units)
        if count > 1:
            return index.together(count, duration, earliest, before, own)
        best: tuple[int, tuple[int, ...]] | None = None
        for start, end, node in own.values():
            begin = max(start, earliest)
            if begin < before and end - begin >= duration:
                best, before = (begin, (node,)), begin
        found = index.first(duration, earliest, before)
        return best if found is None else (found[0], (found[1],))

    def freed_by(self, nodes: Sequence[int], start: int, end: int, units: int) -> dict[int, Window]:
        """The wider windows, up to `end`, that `nodes` would have if [start, end) were given back.

        Only those that begin before `start`: nothing else can let the slot begin earlier.
        """
        wider: dict[int, Window] = {}
        for node in nodes:
            times, free = self._times[node], self._free[node]
            at = bisect_left(times, start)
            if at == 0 or free[at - 1] < units:
                continue
            while at and free[at - 1] >= units:
                at -= 1
            wider[node] = (times[at], end, node)
        return wider

    def set_open(self, node: int, is_open: bool) -> None:
        """Lets a node be used for new slots, or not."""
        if self._open[node] == is_open:
            return
        self._open[node] = is_open
        for units, index in self._indexes:
            for start, end in self._runs(node, units, 0, len(self._times[node])):
                if is_open:
                    index.add(start, end, node)
                else:
                    index.discard(start, end, node)

    def _has(self, node: int, start: int, end: int, units: int) -> bool:
        times, free = self._times[node], self._free[node]
        first = max(bisect_right(times, start) - 1, 0)
        last = bisect_left(times, end, first)
        return min(free[first:last], default=units) >= units

    def _index(self, units: int) -> Windows:
        for known, index in self._indexes:
            if known == units:
                return index
        index = Windows(
            (start, end, node)
            for node in range(len(self._units))
            if self._open[node]
            for start, end in self._runs(node, units, 0, len(self._times[node]))
        )
        self._indexes.append((units, index))
        self._indexes.sort(key=_units_of, reverse=True)
        return index

    def _change(self, node: int, start: int, end: int, by: int) -> None:
        """Adds `by` to what is free on `node` over [start, end), and keeps the indexes true."""
        if end <= start:
            return
        times, free = self._times[node], self._free[node]
        first = bisect_left(times, start)
        if first == len(times) or times[first] != start:
            times.insert(first, start)
            free.insert(first, free[first - 1])
        last = bisect_left(times, end, first)
        if last == len(times) or times[last] != end:
            times.insert(last, end)
            free.insert(last, free[last - 1])
        before = free[first:last]
        after = [count + by for count in before]
        if self._indexes and self._open[node]:
            low, high = min(min(before), min(after)), max(max(before), max(after))
            for units, index in self._indexes:
                if low < units <= high:
                    old = self._runs(node, units, first, last)
                    free[first:last] = after
                    new = self._runs(node, units, first, last)
                    free[first:last] = before
                    _replace(index, node, old, new)
        free[first:last] = after
        if free[last] == free[last - 1]:
            del times[last], free[last]
        if first and free[first] == free[first - 1]:
            del times[first], free[first]

    def _runs(self, node: int, units: int, first: int, last: int) -> list[tuple[int, int]]:
        """The maximal spans with `units` free that touch the steps [first, last) of `node`."""
        times, free = self._times[node], self._free[node]
        steps = len(times)
        at = first
        while at and free[at - 1] >= units:
            at -= 1
        runs: list[tuple[int, int]] = []
        while True:
            while at < steps and free[at] < units:
                at += 1
            if at > last or at == steps:
                return runs
            start = times[at]
            while at < steps and free[at] >= units:
                at += 1
            runs.append((start, FOREVER if at == steps else times[at]))


def _units_of(entry: tuple[int, Windows]) -> int:
    return entry[0]


def _replace(
    index: Windows, node: int, old: list[tuple[int, int]], new: list[tuple[int, int]]
) -> None:
    for start, end in old:
        if (start, end) not in new:
            index.discard(start, end, node)
    for start, end in new:
        if (start, end) not in old:
            index.add(start, end, node)
