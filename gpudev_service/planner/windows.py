"""An index of the windows in which nodes have a given number of units free, to find the first.

A window is a span [start, end) in which one node has at least so many units free; each number that
somebody asks for has an index of its own. A window that never ends (there is nothing planned behind
it) is a tail, any other one a hole. Each node has one tail, so the first tail bounds every search:
nothing that starts after it can be the earliest.

What the index says may be out of date in one direction: each true window lies inside one of the
index, but there may be less room than it says. A search checks what it comes upon against the
profiles, cuts the window down to the truth if need be, and goes on. So most changes cost the index
nothing, and many changes of one window are seen as one.
"""

# As in `holes`, an `if` is preferred to a call of `max` where the time goes.
# ruff: noqa: PLR1730

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping
from heapq import heappop, heappush

from .holes import NO_WINDOWS, NODE_BITS, NODE_MASK, Holes, Window
from .profiles import FOREVER, Profiles

#: How many nodes a pool may have.
MAX_NODES = 1 << NODE_BITS

_NO_TAIL = -1
_NO_EDGES: list[int] = []


class Windows:
    """The windows with at least `units` free on the open nodes of a pool.

    Nothing shorter than `least` is ever searched for. Many holes are shorter, and are left out.
    """

    __slots__ = ("_edges", "_holes", "_least", "_profiles", "_tail", "_tails", "_units")

    def __init__(
        self, profiles: Profiles, units: int, least: int, open_nodes: Collection[int]
    ) -> None:
        self._least = least
        self._profiles = profiles
        self._units = units
        self._tails: list[int] = []  # keys of the tails, in order
        self._tail = [_NO_TAIL] * len(profiles.times)  # where each node's tail begins
        self._edges: dict[int, list[int]] = {}  # of each node's holes, if it has any
        holes: list[tuple[int, int]] = []
        for node in open_nodes:
            tail, edges = self._windows_of(node)
            if tail != _NO_TAIL:
                self._tail[node] = tail
                self._tails.append(tail << NODE_BITS | node)
            if edges:
                self._edges[node] = edges
                holes += [
                    (edges[at] << NODE_BITS | node, edges[at + 1] - edges[at])
                    for at in range(0, len(edges), 2)
                ]
        self._tails.sort()
        holes.sort()
        self._holes = Holes(holes)

    def update(self, node: int, is_open: bool) -> None:
        """Looks at a node anew. Needed when it has more room than before, or is closed."""
        old_tail, old = self._tail[node], self._edges.get(node, _NO_EDGES)
        tail, new = self._windows_of(node) if is_open else (_NO_TAIL, _NO_EDGES)
        if tail != old_tail:
            self._tail[node] = tail
            if old_tail != _NO_TAIL:
                del self._tails[bisect_left(self._tails, old_tail << NODE_BITS | node)]
            if tail != _NO_TAIL:
                insort(self._tails, tail << NODE_BITS | node)
        if new == old:
            return
        if new:
            self._edges[node] = new
        else:
            del self._edges[node]
        # Most holes are as they were: what differs lies between a common beginning and end.
        first, behind, ahead = 0, len(old), len(new)
        while first < behind and first < ahead and old[first] == new[first]:
            first += 1
        while behind > first and ahead > first and old[behind - 1] == new[ahead - 1]:
            behind, ahead = behind - 1, ahead - 1
        first -= first % 2
        for at in range(first, behind, 2):
            self._holes.discard(old[at], node)
        for at in range(first, ahead, 2):
            self._holes.add(new[at], new[at + 1], node)

    def took(self, node: int, start: int) -> None:
        """Something was taken from `start` on. If a hole began there, a search found it just now,
        and the next one should not find it again."""
        own = self._edges.get(node)
        if own is None:
            return
        at = bisect_left(own, start)
        if at < len(own) and own[at] == start and at % 2 == 0:
            self._cut_hole(node, start)

    def first(self, duration: int, earliest: int, before: int) -> tuple[int, int] | None:
        """The first start in [earliest, before) with room for `duration`, and its node.

        A hole is preferred to a tail with the same start: that leaves long spans to those who need
        them.
        """
        self._check_tails(1, before)
        if not self._tails or self._tails[0] >> NODE_BITS >= before:
            return self._first_hole(duration, earliest, before)
        key = self._tails[0]
        start = key >> NODE_BITS
        if start < earliest:
            start = earliest
        return self._first_hole(duration, earliest, start + 1) or (start, key & NODE_MASK)

    def soonest(self, duration: int) -> int:
        """No start for `duration` is before this, and to search before it changes nothing."""
        soonest = self._holes.soonest(duration)
        if self._tails and self._tails[0] >> NODE_BITS < soonest:
            return self._tails[0] >> NODE_BITS
        return soonest

    def at(self, duration: int, start: int, count: int) -> list[int]:
        """Up to `count` nodes with room for `duration` from `start` on."""
        self._check_tails(count, start + 1)
        profiles, units = self._profiles, self._units
        found: list[int] = []
        wrong: list[tuple[int, int]] = []
        for since, _, node in self._holes.all(duration, start):
            if since > start or len(found) == count:
                break
            if profiles.has(node, units, start, start + duration):
                found.append(node)
            else:
                wrong.append((node, since))
        for node, since in wrong:
            self._cut_hole(node, since)
        for key in self._tails[: count - len(found)]:
            if key >> NODE_BITS > start:
                break
            found.append(key & NODE_MASK)
        return found

    def together(
        self,
        count: int,
        duration: int,
        earliest: int,
        before: int,
        own: Mapping[int, Window] = NO_WINDOWS,
    ) -> tuple[int, tuple[int, ...]] | None:
        """The first start in [earliest, before) with room for `duration` on `count` nodes at once.

        `own` are windows, by node, that count in place of what begins no earlier on that node.
        """
        for node in own:
            self.update(node, is_open=True)
        self._check_tails(count + len(own), before)
        profiles, units = self._profiles, self._units
        while True:
            found = self._together(count, duration, earliest, before, own)
            if found is None:
                return None
            begin, windows = found
            wrong = [
                (start, node)
                for end, start, node in windows
                if end != FOREVER
                and own.get(node) != (start, end, node)
                and not profiles.has(node, units, begin, begin + duration)
            ]
            if not wrong:
                return begin, tuple(sorted([node for _, _, node in windows]))
            for start, node in wrong:
                self._cut_hole(node, start)

    def _check_tails(self, count: int, before: int) -> None:
        """Makes the first `count` tails true, as far as they begin before `before`."""
        tails, units, least = self._tails, self._units, self._least
        all_times, all_free = self._profiles.times, self._profiles.free
        checked = 0
        while checked < count and checked < len(tails):
            key = tails[checked]
            start = key >> NODE_BITS
            if start >= before:
                return
            node = key & NODE_MASK
            free = all_free[node]
            at = len(free) - 1
            while at and free[at - 1] >= units:
                at -= 1
            times = all_times[node]
            true_start = times[at]
            if true_start <= start:
                checked += 1
                continue
            del tails[checked]
            insort(tails, true_start << NODE_BITS | node)
            self._tail[node] = true_start
            # With a single step between the two starts nothing is left of the time between them.
            if times[at - 1] > start and true_start - start >= least:
                edges = self._profiles.spans(node, units, least, start, true_start)
                if edges:
                    self._edges.setdefault(node, []).extend(edges)
                    for at in range(0, len(edges), 2):
                        self._holes.add(edges[at], edges[at + 1], node)

    def _first_hole(self, duration: int, earliest: int, before: int) -> tuple[int, int] | None:
        """The first start in a hole, and its node."""
        holes, profiles, units = self._holes, self._profiles, self._units
        while True:
            found = holes.first(duration, earliest, before)
            if found is None:
                return None
            start, node = found
            begin = max(earliest, start)
            if profiles.has(node, units, begin, begin + duration):
                return begin, node
            self._cut_hole(node, start)

    def _cut_hole(self, node: int, start: int) -> None:
        """Replaces a hole by what is left of it."""
        own = self._edges[node]
        at = bisect_left(own, start)
        left = self._profiles.spans(node, self._units, self._least, start, own[at + 1])
        own[at : at + 2] = left
        self._holes.discard(start, node)
        for at in range(0, len(left), 2):
            self._holes.add(left[at], left[at + 1], node)

    def _together(
        self, count: int, duration: int, earliest: int, before: int, own: Mapping[int, Window]
    ) -> tuple[int, list[Window]] | None:
        """A start and windows for it, as (end, start, node), as the index has it."""
        usable: list[Window] = []  # what is open, as a heap: (end, start, node)
        for start, end, node in self._in_order(count, duration, earliest, own):
            begin = max(earliest, start)
            if begin >= before:
                return None
            while usable and usable[0][0] < begin + duration:
                heappop(usable)
            heappush(usable, (end, start, node))
            if len(usable) == count:
                return begin, usable
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
        for hole in self._holes.all(duration, earliest):
            if own and _is_within(hole, own):
                continue
            while others and others[-1][0] <= hole[0]:
                yield others.pop()
            yield hole
        yield from reversed(others)

    def _windows_of(self, node: int) -> tuple[int, list[int]]:
        """Where the node's tail begins, and the edges of its holes."""
        times, free, units = self._profiles.times[node], self._profiles.free[node], self._units
        if free[-1] < units:
            return _NO_TAIL, _NO_EDGES
        at = len(free) - 1
        while at and free[at - 1] >= units:
            at -= 1
        tail = times[at]
        if not at or max(free[:at]) < units:
            return tail, _NO_EDGES
        return tail, self._profiles.spans(node, units, self._least, end=tail)


def _is_within(window: Window, own: Mapping[int, Window]) -> bool:
    """Whether `window` is part of the asker's own, wider window on that node."""
    mine = own.get(window[2])
    return mine is not None and window[0] >= mine[0]
