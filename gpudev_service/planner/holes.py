"""Spans of free time, in order of their start, searched for the first that is long enough.

The spans are cut into chunks, and each chunk knows bounds for the longest and the latest ending of
its spans. A search passes over a chunk in which nothing can be long enough; that is what keeps the
cost of a start nearly independent of the length of the queue.
"""

# This is where the planner spends its time: here an `if` is preferred to a call of `max`.
# ruff: noqa: PLR1730

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping

from .profiles import FOREVER

# A key is a start and a node in one integer: integers compare much faster than pairs. For the next
# thousand years it fits into 60 bits, up to which Python's integers are fastest.
NODE_BITS = 16
NODE_MASK = (1 << NODE_BITS) - 1

_CHUNK = 64

#: (start, end, node)
Window = tuple[int, int, int]
#: By node: of no node.
NO_WINDOWS: Mapping[int, Window] = {}


class Holes:
    """Spans by key. No two of them have the same key."""

    __slots__ = ("_firsts", "_keys", "_latest", "_lengths", "_longest", "_soonest")

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        """From (key, length) pairs, in order."""
        self._keys: list[list[int]] = []
        self._lengths: list[list[int]] = []
        self._firsts: list[int] = []  # the first key of each chunk
        self._longest: list[int] = []  # at least the length of each span of the chunk
        self._latest: list[int] = []  # at least the end of each span of the chunk
        self._soonest: dict[int, int] = {}  # as far as it is known; by the bits of the duration
        for at in range(0, len(spans), _CHUNK):
            part = spans[at : at + _CHUNK]
            self._insert_chunk(len(self._keys), [key for key, _ in part], [n for _, n in part])

    def first(self, duration: int, earliest: int, before: int) -> tuple[int, int] | None:
        """The first span with room for `duration` from a moment in [earliest, before) on.

        Returns its start, which may be before `earliest`, and its node.
        """
        must_reach = earliest + duration
        firsts, latest = self._firsts, self._latest
        chunks = bisect_left(firsts, before << NODE_BITS)
        for at, longest in enumerate(self._longest[:chunks]):
            if longest < duration or latest[at] < must_reach:
                continue
            for place, length in enumerate(self._lengths[at]):
                if length >= duration:
                    key = self._keys[at][place]
                    start = key >> NODE_BITS
                    if start + length >= must_reach:
                        return (start, key & NODE_MASK) if start < before else None
            if firsts[at] >> NODE_BITS >= earliest:
                self._tighten(at)
        return None

    def soonest(self, duration: int) -> int:
        """No span with room for `duration` begins before this, and it is quickly told.

        It is when the first span begins that has as many bits as `duration`, and so perhaps room.
        """
        bits = duration.bit_length()
        soonest = self._soonest.get(bits)
        if soonest is None:
            found = self.first(1 << (bits - 1), 0, FOREVER)
            soonest = self._soonest[bits] = FOREVER if found is None else found[0]
        return soonest

    def all(self, duration: int, earliest: int) -> Iterator[Window]:
        """All spans with room for `duration` from `earliest` on, in order."""
        must_reach = earliest + duration
        for at, longest in enumerate(self._longest):
            if longest < duration or self._latest[at] < must_reach:
                continue
            found = False
            for place, length in enumerate(self._lengths[at]):
                if length >= duration:
                    key = self._keys[at][place]
                    end = (key >> NODE_BITS) + length
                    if end >= must_reach:
                        found = True
                        yield key >> NODE_BITS, end, key & NODE_MASK
            if not found:
                self._tighten(at)

    def add(self, start: int, end: int, node: int) -> None:
        """Enters a span that was not there."""
        key = start << NODE_BITS | node
        length = end - start
        for bits, soonest in self._soonest.items():
            if start < soonest and length >> (bits - 1):
                self._soonest[bits] = start
        at = bisect_right(self._firsts, key) - 1
        if at < 0:
            if not self._firsts:
                self._insert_chunk(0, [key], [length])
                return
            at = 0
            self._firsts[0] = key
        keys = self._keys[at]
        place = bisect_left(keys, key)
        keys.insert(place, key)
        self._lengths[at].insert(place, length)
        if length > self._longest[at]:
            self._longest[at] = length
        if end > self._latest[at]:
            self._latest[at] = end
        if len(keys) > 2 * _CHUNK:
            self._split(at)

    def discard(self, start: int, node: int) -> None:
        """Removes a span that is there."""
        key = start << NODE_BITS | node
        at = bisect_right(self._firsts, key) - 1
        keys = self._keys[at]
        place = bisect_left(keys, key)
        length = self._lengths[at][place]
        if start in self._soonest.values():  # there may be another that begins then, or none
            self._soonest = {
                bits: soonest
                for bits, soonest in self._soonest.items()
                if soonest != start or not length >> (bits - 1)
            }
        del keys[place], self._lengths[at][place]
        if not keys:
            del self._keys[at], self._lengths[at], self._firsts[at]
            del self._longest[at], self._latest[at]
        elif place == 0:
            self._firsts[at] = keys[0]

    def _tighten(self, at: int) -> None:
        """Makes the bounds of a chunk exact again: removals leave them too high."""
        keys, lengths = self._keys[at], self._lengths[at]
        self._longest[at] = max(lengths)
        latest = 0
        for place, length in enumerate(lengths):
            end = (keys[place] >> NODE_BITS) + length
            if end > latest:
                latest = end
        self._latest[at] = latest

    def _insert_chunk(self, at: int, keys: list[int], lengths: list[int]) -> None:
        self._keys.insert(at, keys)
        self._lengths.insert(at, lengths)
        self._firsts.insert(at, keys[0])
        self._longest.insert(at, 0)
        self._latest.insert(at, 0)
        self._tighten(at)

    def _split(self, at: int) -> None:
        keys, lengths = self._keys[at], self._lengths[at]
        self._insert_chunk(at + 1, keys[_CHUNK:], lengths[_CHUNK:])
        del keys[_CHUNK:], lengths[_CHUNK:]
        self._tighten(at)
