"""An ordered index of the windows in which nodes have a given number of units free.

A window is a maximal span [start, end) in which one node has at least `k` units free; each number
`k` that somebody asks for has an index of its own. A window that never ends (there is nothing
planned behind it) is a tail, any other one a hole. Each node has one tail, so the first tail bounds
every search: nothing that starts after it can be the earliest.

Holes are kept in order of start, cut into chunks, and each chunk knows bounds for the longest and
the latest ending of its holes. A search skips a chunk without looking into it when nothing in it is
long enough; that is what keeps the cost of a start nearly independent of the length of the queue.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush

#: The end of a window with nothing behind it.
FOREVER = 1 << 62

# A window's key is its start and its node in one integer: integers compare much faster than pairs.
_NODE_BITS = 20
_NODE_MASK = (1 << _NODE_BITS) - 1
#: How many nodes a pool may have.
MAX_NODES = 1 << _NODE_BITS

_CHUNK = 192

#: (start, end, node)
Window = tuple[int, int, int]


class Windows:
    """The windows of all nodes of a pool for one number of units."""

    __slots__ = ("_ends", "_firsts", "_keys", "_latest", "_longest", "tails")

    def __init__(self, windows: Iterable[Window] = ()) -> None:
        tails: list[int] = []
        holes: list[tuple[int, int]] = []
        for start, end, node in windows:
            if end == FOREVER:
                tails.append(start << _NODE_BITS | node)
            else:
                holes.append((start << _NODE_BITS | node, end))
        tails.sort()
        holes.sort()
        #: Keys of the tails, in order.
        self.tails = tails
        self._keys: list[list[int]] = []
        self._ends: list[list[int]] = []
        self._firsts: list[int] = []  # the first key of each chunk
        self._longest: list[int] = []  # at least the length of each hole of the chunk
        self._latest: list[int] = []  # at least the end of each hole of the chunk
        for at in range(0, len(holes), _CHUNK):
            part = holes[at : at + _CHUNK]
            self._insert_chunk(len(self._keys), [key for key, _ in part], [end for _, end in part])

    def add(self, start: int, end: int, node: int) -> None:
        """Enters a window that was not there."""
        key = start << _NODE_BITS | node
        if end == FOREVER:
            insort(self.tails, key)
            return
        at = bisect_right(self._firsts, key) - 1
        if at < 0:
            if not self._firsts:
                self._insert_chunk(0, [key], [end])
                return
            at = 0
        keys = self._keys[at]
        place = bisect_left(keys, key)
        keys.insert(place, key)
        self._ends[at].insert(place, end)
        if place == 0:
            self._firsts[at] = key
        self._longest[at] = max(self._longest[at], end - start)
        self._latest[at] = max(self._latest[at], end)
        if len(keys) > 2 * _CHUNK:
            self._split(at)

    def discard(self, start: int, end: int, node: int) -> None:
        """Removes a window that is there."""
        key = start << _NODE_BITS | node
        if end == FOREVER:
            del self.tails[bisect_left(self.tails, key)]
            return
        at = bisect_right(self._firsts, key) - 1
        keys = self._keys[at]
        place = bisect_left(keys, key)
        del keys[place], self._ends[at][place]
        if not keys:
            del self._keys[at], self._ends[at], self._firsts[at]
            del self._longest[at], self._latest[at]
        elif place == 0:
            self._firsts[at] = keys[0]

    def first(self, duration: int, earliest: int, before: int) -> tuple[int, int] | None:
        """The first start in [earliest, before) with room for `duration`, and its node.

        Holes are preferred to tails that would start at the same time, which leaves long spans to
        those who need them.
        """
        found = None
        if self.tails:
            key = self.tails[0]
            start = key >> _NODE_BITS
            start = max(start, earliest)
            if start < before:
                found = start, key & _NODE_MASK
                before = start + 1
        return self._first_hole(duration, earliest, before) or found

    def _first_hole(self, duration: int, earliest: int, before: int) -> tuple[int, int] | None:
        must_reach = earliest + duration
        latest = self._latest
        for at, longest in enumerate(self._longest):
            if longest < duration or latest[at] < must_reach:
                continue
            if self._firsts[at] >> _NODE_BITS >= before:
                return None
            for key, end in zip(self._keys[at], self._ends[at], strict=True):
                start = key >> _NODE_BITS
                start = max(start, earliest)
                if end - start >= duration:
                    return (start, key & _NODE_MASK) if start < before else None
            self._tighten(at)
        return None

    def together(
        self, count: int, duration: int, earliest: int, before: int, own: Mapping[int, Window]
    ) -> tuple[int, tuple[int, ...]] | None:
        """The first start in [earliest, before) with room for `duration` on `count` nodes at once.

        `own` are windows, by node, that count in place of what is indexed for that node from the
        same start on: the wider windows that there would be if the asker's own slot were not.
        """
        usable: list[tuple[int, int]] = []  # (end, node) of the windows open at `start`, a heap
        for start, end, node in self._in_order(count, duration, earliest, own):
            if start >= before:
                return None
            while usable and usable[0][0] < start + duration:
                heappop(usable)
            heappush(usable, (end, node))
            if len(usable) == count:
                return start, tuple(sorted(node for _, node in usable))
        return None

    def _in_order(
        self, count: int, duration: int, earliest: int, own: Mapping[int, Window]
    ) -> Iterator[Window]:
        """Windows with room for `duration` by start, with starts before `earliest` raised to it.

        Of the tails only as many as can matter: with `count` of them open the search has ended.
        """
        tails = (
            (key >> _NODE_BITS, FOREVER, key & _NODE_MASK) for key in self.tails[: count + len(own)]
        )
        others = [tail for tail in tails if not _is_within(tail, own)]
        others += [
            window for window in own.values() if window[1] - max(window[0], earliest) >= duration
        ]
        others.sort(reverse=True)
        for hole in self._long_holes(duration, earliest):
            if own and _is_within(hole, own):
                continue
            while others and others[-1][0] <= hole[0]:
                start, end, node = others.pop()
                yield max(start, earliest), end, node
            yield max(hole[0], earliest), hole[1], hole[2]
        for start, end, node in reversed(others):
            yield max(start, earliest), end, node

    def _long_holes(self, duration: int, earliest: int) -> Iterator[Window]:
        must_reach = earliest + duration
        for at, longest in enumerate(self._longest):
            if longest < duration or self._latest[at] < must_reach:
                continue
            found = False
            for key, end in zip(self._keys[at], self._ends[at], strict=True):
                start = key >> _NODE_BITS
                if end - (max(earliest, start)) >= duration:
                    found = True
                    yield start, end, key & _NODE_MASK
            if not found:
                self._tighten(at)

    def _tighten(self, at: int) -> None:
        """Makes the bounds of a chunk exact again: removals leave them too high."""
        ends = self._ends[at]
        self._latest[at] = max(ends)
        self._longest[at] = max(
            end - (key >> _NODE_BITS) for key, end in zip(self._keys[at], ends, strict=True)
        )

    def _insert_chunk(self, at: int, keys: list[int], ends: list[int]) -> None:
        self._keys.insert(at, keys)
        self._ends.insert(at, ends)
        self._firsts.insert(at, keys[0])
        self._longest.insert(at, 0)
        self._latest.insert(at, 0)
        self._tighten(at)

    def _split(self, at: int) -> None:
        keys, ends = self._keys[at], self._ends[at]
        self._insert_chunk(at + 1, keys[_CHUNK:], ends[_CHUNK:])
        del keys[_CHUNK:], ends[_CHUNK:]
        self._tighten(at)


def _is_within(window: Window, own: Mapping[int, Window]) -> bool:
    """Whether `window` is part of the asker's own, wider window on that node."""
    mine = own.get(window[2])
    return mine is not None and window[0] >= mine[0]
