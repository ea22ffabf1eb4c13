"""Which units of a pool's nodes are taken when, and where there is room.

`Calendar` keeps, per node, how many units are free over time (a step function), and for each number
of units that is asked for an index of the windows in which so many are free (`windows.Windows`). It
knows nothing of queues or promises. Nodes go by their place in the pool's list; times before the
calendar's beginning do not exist.
"""

# As in `windows`, an `if` is preferred to a call of `max` where the time goes.
# ruff: noqa: FURB136

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from .holes import Window
from .windows import FOREVER, MAX_NODES, Windows

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
        self._indexes: dict[int, Windows] = {}  # by number of units

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
            return self._find_together(index, count, units, duration, earliest, before, own)
        best: tuple[int, tuple[int, ...]] | None = None
        for start, end, node in own.values():
            begin = max(start, earliest)
            if begin < before and end - begin >= duration:
                best, before = (begin, (node,)), begin
        found = self._first_tail(index, units)
        if found is not None:
            begin = found[0] if found[0] > earliest else earliest
            if begin < before:
                # A hole is preferred to a tail with the same start: that leaves long spans to those
                # who need them.
                best, before = (begin, (found[1],)), begin + 1
        found = self._first_hole(index, units, duration, earliest, before)
        return best if found is None else (found[0], (found[1],))

    def _first_tail(self, index: Windows, units: int) -> tuple[int, int] | None:
        """Start and node of the first true tail."""
        while True:
            found = index.first_tail()
            if found is None:
                return None
            start, node = found
            free = self._free[node]
            at = len(free) - 1
            while at and free[at - 1] >= units:
                at -= 1
            true_start = self._times[node][at]
            if true_start <= start:
                return found
            index.cut_tail(node, true_start, self._edges_within(node, start, true_start, units))

    def _first_hole(
        self, index: Windows, units: int, duration: int, earliest: int, before: int
    ) -> tuple[int, int] | None:
        """The first start in [earliest, before) in a true hole, and its node."""
        while True:
            found = index.holes.first(duration, earliest, before)
            if found is None:
                return None
            start, node = found
            begin = start if start > earliest else earliest
            if self._has(node, begin, begin + duration, units):
                return begin, node
            self._cut_hole(index, units, node, start)

    def _find_together(
        self,
        index: Windows,
        count: int,
        units: int,
        duration: int,
        earliest: int,
        before: int,
        own: Mapping[int, Window],
    ) -> tuple[int, tuple[int, ...]] | None:
        for node in own:
            index.update(node, self._edges(node, units))
        while True:
            found = index.together(count, duration, earliest, before, own)
            if found is None:
                return None
            begin, windows = found
            outdated = [
                window
                for window in windows
                if own.get(window[2]) != window
                and not self._has(window[2], begin, begin + duration, units)
            ]
            if not outdated:
                return begin, tuple(sorted([node for _, _, node in windows]))
            for start, end, node in outdated:
                if end == FOREVER:
                    index.update(node, self._edges(node, units))
                else:
                    self._cut_hole(index, units, node, start)

    def _cut_hole(self, index: Windows, units: int, node: int, start: int) -> None:
        end = index.hole_end(node, start)
        index.cut_hole(node, start, self._edges_within(node, start, end, units))

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
        self._open[node] = is_open
        for units, index in self._indexes.items():
            index.update(node, self._edges(node, units))

    def _has(self, node: int, start: int, end: int, units: int) -> bool:
        times, free = self._times[node], self._free[node]
        first = max(bisect_right(times, start) - 1, 0)
        last = bisect_left(times, end, first)
        return min(free[first:last], default=units) >= units

    def _index(self, units: int) -> Windows:
        index = self._indexes.get(units)
        if index is None:
            index = Windows([self._edges(node, units) for node in range(len(self._free))])
            self._indexes[units] = index
        return index

    def _change(self, node: int, start: int, end: int, by: int) -> None:
        """Adds `by` to what is free on `node` over [start, end).

        An index may promise too much, never too little: of less room than before it is told when a
        search comes upon the window, and many changes are then one; of more room at once.
        """
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
        changed = free[first:last]
        low, high = min(changed), max(changed)
        free[first:last] = [count + by for count in changed]
        if free[last] == free[last - 1]:
            del times[last], free[last]
        if first and free[first] == free[first - 1]:
            del times[first], free[first]
        if by > 0 and self._open[node]:
            for units, index in self._indexes.items():
                if low < units <= high + by:
                    index.update(node, self._edges(node, units))

    def _edges_within(self, node: int, start: int, end: int, units: int) -> list[int]:
        """Like `_edges`, of the part from `start` to `end`."""
        times, free = self._times[node], self._free[node]
        edges: list[int] = []
        inside = False
        at, steps = bisect_right(times, start) - 1, len(times)
        time = start
        while time < end:
            if (free[at] >= units) is not inside:
                inside = not inside
                edges.append(time)
            at += 1
            time = times[at] if at < steps else end
        if inside:
            edges.append(end)
        return edges

    def _edges(self, node: int, units: int) -> list[int]:
        """Start and end, by turns, of the spans in which an open node has `units` free."""
        edges: list[int] = []
        if not self._open[node]:
            return edges
        inside = False
        for time, count in zip(self._times[node], self._free[node], strict=True):
            if (count >= units) is not inside:
                inside = not inside
                edges.append(time)
        if inside:
            edges.append(FOREVER)
        return edges
