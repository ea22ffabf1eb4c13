"""An index of the windows in which nodes have a given number of units free.

A window is a span [start, end) in which one node has at least `k` units free; each number `k` that
somebody asks for has an index of its own. A window that never ends (there is nothing planned behind
it) is a tail, any other one a hole. Each node has one tail, so the first tail bounds every search:
nothing that starts after it can be the earliest.

What the index says may be out of date in one direction: each true window lies inside one of the
index, but there may be less room than it says. Whoever searches checks what is found, and has the
window cut down to the truth if need be (`calendar` does that).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush

from .holes import NODE_BITS, NODE_MASK, Holes, Window

#: The end of a window with nothing behind it.
FOREVER = 1 << 62
#: How many nodes a pool may have.
MAX_NODES = 1 << NODE_BITS

_NO_TAIL = -1


class Windows:
    """The windows of all nodes of a pool for one number of units.

    It is given each node's windows as edges: start and end by turns, ascending.
    """

    __slots__ = ("_hole_edges", "_tail", "_tails", "holes")

    def __init__(self, edges: Sequence[list[int]]) -> None:
        self._tail = [_NO_TAIL] * len(edges)  # where each node's tail begins
        self._tails: list[int] = []  # the same as keys, in order
        self._hole_edges: list[list[int]] = [[]] * len(edges)
        holes: list[tuple[int, int]] = []
        for node, own in enumerate(edges):
            closed = self._set(node, own)
            holes += [
                (closed[at] << NODE_BITS | node, closed[at + 1] - closed[at])
                for at in range(0, len(closed), 2)
            ]
        holes.sort()
        self.holes = Holes(holes)

    def update(self, node: int, edges: list[int]) -> None:
        """Replaces all windows of one node."""
        if self._tail[node] != _NO_TAIL:
            del self._tails[bisect_left(self._tails, self._tail[node] << NODE_BITS | node)]
        old = self._hole_edges[node]
        new = self._set(node, edges)
        before = set(zip(old[::2], old[1::2], strict=True))
        after = set(zip(new[::2], new[1::2], strict=True))
        for start, _ in before - after:
            self.holes.discard(start, node)
        for start, end in after - before:
            self.holes.add(start, end, node)

    def first_tail(self) -> tuple[int, int] | None:
        """Start and node of the first tail."""
        if not self._tails:
            return None
        key = self._tails[0]
        return key >> NODE_BITS, key & NODE_MASK

    def cut_tail(self, node: int, start: int, holes: list[int]) -> None:
        """The tail of `node` begins at `start` only; of what was before, `holes` are left."""
        del self._tails[bisect_left(self._tails, self._tail[node] << NODE_BITS | node)]
        insort(self._tails, start << NODE_BITS | node)
        self._tail[node] = start
        self._hole_edges[node] += holes
        for at in range(0, len(holes), 2):
            self.holes.add(holes[at], holes[at + 1], node)

    def hole_end(self, node: int, start: int) -> int:
        """Where the hole of `node` that begins at `start` ends."""
        own = self._hole_edges[node]
        return own[bisect_left(own, start) + 1]

    def cut_hole(self, node: int, start: int, holes: list[int]) -> None:
        """Of the hole of `node` that begins at `start`, `holes` are left."""
        own = self._hole_edges[node]
        at = bisect_left(own, start)
        own[at : at + 2] = holes
        self.holes.discard(start, node)
        for at in range(0, len(holes), 2):
            self.holes.add(holes[at], holes[at + 1], node)

    def together(
        self, count: int, duration: int, earliest: int, before: int, own: Mapping[int, Window]
    ) -> tuple[int, list[Window]] | None:
        """The first start in [earliest, before) with room for `duration` on `count` nodes at once.

        Returns it with the windows. `own` are windows, by node, that count in place of those of the
        index that begin no earlier on that node.
        """
        usable: list[Window] = []  # what is open, as a heap by end
        for window in self._in_order(count, duration, earliest, own):
            start, end, node = window
            begin = max(start, earliest)
            if begin >= before:
                return None
            while usable and usable[0][0] < begin + duration:
                heappop(usable)
            heappush(usable, (end, start, node))
            if len(usable) == count:
                return begin, [(start, end, node) for end, start, node in usable]
        return None

    def _in_order(
        self, count: int, duration: int, earliest: int, own: Mapping[int, Window]
    ) -> Iterator[Window]:
        """Windows with room for `duration` from `earliest` on, by start.

        Of the tails only as many as can matter: with `count` of them open the search has ended.
        """
        others = [
            (key >> NODE_BITS, FOREVER, key & NODE_MASK) for key in self._tails[: count + len(own)]
        ]
        if own:
            others = [tail for tail in others if not _is_within(tail, own)]
            others += [w for w in own.values() if w[1] - max(w[0], earliest) >= duration]
            others.sort()
        others.reverse()
        for hole in self.holes.all(duration, earliest):
            if own and _is_within(hole, own):
                continue
            while others and others[-1][0] <= hole[0]:
                yield others.pop()
            yield hole
        yield from reversed(others)

    def _set(self, node: int, edges: list[int]) -> list[int]:
        """Notes the windows of one node; returns the edges of its holes."""
        if edges and edges[-1] == FOREVER:
            self._tail[node] = edges[-2]
            insort(self._tails, edges[-2] << NODE_BITS | node)
            edges = edges[:-2]
        else:
            self._tail[node] = _NO_TAIL
        self._hole_edges[node] = edges
        return edges


def _is_within(window: Window, own: Mapping[int, Window]) -> bool:
    """Whether `window` is part of the asker's own, wider window on that node."""
    mine = own.get(window[2])
    return mine is not None and window[0] >= mine[0]
