"""Which units of a pool's nodes are taken when, and where there is room.

The profiles hold the truth, and an index for each number of units that is asked for finds the first
room. The calendar knows nothing of queues or promises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .holes import NO_WINDOWS, Window
from .profiles import FOREVER, Profiles
from .windows import MAX_NODES, Windows


class Calendar:
    """Free units over time for each node of a pool; nodes go by their place in the pool's list.

    `open_nodes` says on which something new may be placed; only these are searched. A search may be
    narrowed to some nodes (`among`); few different such sets are expected.
    """

    def __init__(self, since: int, units: Sequence[int], open_nodes: Sequence[bool]) -> None:
        if len(units) > MAX_NODES:
            raise ValueError(f"a pool has at most {MAX_NODES} nodes")
        self.since = since
        self.open = list(open_nodes)
        self.profiles = Profiles(since, units)
        self._indexes: dict[int, Windows] = {}  # by number of units
        self._narrow: dict[tuple[int, frozenset[int]], Windows] = {}  # of some nodes only
        self._least = FOREVER  # no search is for less time than this

    def copy(self) -> Calendar:
        """The same units taken, to go on from."""
        copy = Calendar(self.since, (), self.open)
        copy.profiles = self.profiles.copy()
        copy.expect(self._least)
        return copy

    def take(self, nodes: Sequence[int], start: int, end: int, units: int) -> None:
        """Takes `units` on each of `nodes` over [start, end)."""
        start = max(start, self.since)
        if start >= end:
            return
        index = self._indexes.get(units)
        for node in nodes:
            self.profiles.change(node, start, end, -units)
            if index is not None:
                index.took(node, start)
            for (level, among), narrow in self._narrow.items():
                if level == units and node in among:
                    narrow.took(node, start)

    def give(self, nodes: Sequence[int], start: int, end: int, units: int) -> None:
        """Gives back what was taken with the same arguments."""
        start = max(start, self.since)
        if start >= end:
            return
        for node in nodes:
            before = self.profiles.change(node, start, end, units)
            if self.open[node]:
                low, high = min(before), max(before)
                for level, index in self._indexes.items():
                    if low < level <= high + units:
                        index.update(node, is_open=True)
                for (level, among), narrow in self._narrow.items():
                    if node in among and low < level <= high + units:
                        narrow.update(node, is_open=True)

    def fits(self, nodes: Sequence[int], start: int, end: int, units: int) -> bool:
        """Whether all `nodes` are open and have `units` free throughout [start, end)."""
        profiles = self.profiles
        return all(self.open[node] and profiles.has(node, units, start, end) for node in nodes)

    def find(
        self,
        count: int,
        units: int,
        duration: int,
        earliest: int,
        before: int = FOREVER,
        own: Mapping[int, Window] = NO_WINDOWS,
        among: frozenset[int] | None = None,
    ) -> tuple[int, tuple[int, ...]] | None:
        """The first start in [earliest, before) for `units` on `count` nodes, and the nodes.

        `own`: windows, by node, that there would be if the asker's own slot were not (see
        `freed_by`); they are searched as well. `among`: the nodes that may be used.
        """
        index = self._index(units, among)
        if count > 1:
            return index.together(count, duration, earliest, before, own)
        if not own:
            found = index.first(duration, earliest, before)
            return None if found is None else (found[0], (found[1],))
        best: tuple[int, tuple[int, ...]] | None = None
        for start, end, node in own.values():
            begin = max(start, earliest)
            if begin < before and end - begin >= duration:
                best, before = (begin, (node,)), begin
        found = index.first(duration, earliest, before)
        return best if found is None else (found[0], (found[1],))

    def soonest(self, units: int, duration: int, among: frozenset[int] | None = None) -> int:
        """No start for so much on any node is before this, and to search before it changes nothing.

        Quickly told: 0 where nothing is known.
        """
        index = self._indexes.get(units) if among is None else self._narrow.get((units, among))
        return 0 if index is None else index.soonest(duration)

    def room_at(
        self,
        start: int,
        units: int,
        duration: int,
        count: int,
        among: frozenset[int] | None = None,
    ) -> list[int]:
        """Up to `count` nodes with `units` free throughout `duration` from `start` on."""
        return self._index(units, among).at(duration, start, count)

    def expect(self, duration: int) -> None:
        """Prepares for searches for so much time; nothing shorter may be searched for.

        Cheap, unless it is much less than was ever expected.
        """
        if duration < self._least:
            # In powers of two, so that it happens a few times at most.
            self._least = 1 << (duration.bit_length() - 1)
            self._indexes.clear()
            self._narrow.clear()

    def index_of(self, nodes: Iterable[int], units: int) -> Windows:
        """An index of the windows on some nodes only. It is the caller's to keep up to date."""
        open_nodes = [node for node in nodes if self.open[node]]
        return Windows(self.profiles, units, self._least, open_nodes)

    def _index(self, units: int, among: frozenset[int] | None) -> Windows:
        if among is None:
            index = self._indexes.get(units)
            if index is None:
                index = self._indexes[units] = self.index_of(range(len(self.open)), units)
            return index
        narrow = self._narrow.get((units, among))
        if narrow is None:
            narrow = self._narrow[units, among] = self.index_of(sorted(among), units)
        return narrow

    def freed_by(self, nodes: Sequence[int], start: int, end: int, units: int) -> dict[int, Window]:
        """The wider windows, up to `end`, that `nodes` would have if [start, end) were given back.

        Only those that begin before `start`: nothing else can let the slot begin earlier.
        """
        wider: dict[int, Window] = {}
        for node in nodes:
            since = self.profiles.free_since(node, units, start)
            if since < start:
                wider[node] = (since, end, node)
        return wider

    def set_open(self, node: int, is_open: bool) -> None:
        """Lets a node be used for new slots, or not."""
        self.open[node] = is_open
        for index in self._indexes.values():
            index.update(node, is_open)
        for (_, among), narrow in self._narrow.items():
            if node in among:
                narrow.update(node, is_open)
