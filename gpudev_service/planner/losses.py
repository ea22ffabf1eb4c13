"""Who gives way when room is lost: a node is gone, a lease stays longer, a quota is lower.

Those who lost their slots, and all behind the first of them, are gone through in the order of the
queue. Whoever has no slot is first offered any free place that starts no later than promised. If
there is none they take the room of those behind them, of the last in the queue first; who then have
none, and come to it later in the same order. Where those behind have no room at that time, it is
the next place that is free, or that somebody behind has.

So a loss is handed down the queue: each gives way to those ahead only, nobody is moved twice, and
at the end is somebody who waits like a newcomer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from operator import attrgetter

from .seats import Place, Seat, Seating, by_key

#: On so many nodes somebody is looked for who might give way. The last of all may be on another,
#: but each look costs time for which everybody waits.
_LOOKED_AT = 64
#: (from, until, units that are missing)
_Lack = tuple[int, int, int]
#: What room on a node would cost: (the last who would have to give way, node, who might have to).
_Offer = tuple[int, int, list[Seat]]


def hand_down(seating: Seating, seated: Iterable[Seat], lost: Mapping[Seat, int]) -> list[Seat]:
    """Seats `lost`, with the starts that they were promised, at the cost of those behind them.

    `seated` are all who have a place. Returns who starts later than promised.
    """
    if not lost:
        return []
    first, now = min(seat.key for seat in lost), seating.now
    # Whoever is due is about to start, and keeps their place.
    behind = [seat for seat in seated if seat.nodes and seat.start > now and seat.key > first]
    queue = sorted([*lost, *behind], key=by_key)
    crowd = _Crowd(seating, queue)
    late = []
    for number, seat in enumerate(queue):
        if not seat.nodes:
            promised = lost.get(seat, seat.start)
            place = seating.find_no_later(seat, promised)
            if place is None:
                start = max(promised, now, seat.not_before)
                place = crowd.room_at(number, start) or crowd.place_after(number, start)
                if place[0] > start:
                    late.append(seat)
            seating.sit(seat, place)
        crowd.ahead.take(seat)
    return late


class _Crowd:
    """Those in a queue and where they sit, to see who of them might give way."""

    def __init__(self, seating: Seating, queue: list[Seat]) -> None:
        self._seating = seating
        self._queue = queue
        seated = [seat for seat in queue if seat.nodes]
        #: Without the queue. Whoever has been gone through is to be taken again.
        self.ahead = seating.without(seated)
        self._by_start = sorted(seated, key=attrgetter("start"))
        self._starts = [seat.start for seat in self._by_start]
        #: Whose places are on each node, by their numbers, the last in the queue first.
        self._on: list[list[int]] = [[] for _ in seating.nodes]
        for number in range(len(queue) - 1, -1, -1):
            for node in queue[number].nodes:
                self._on[node].append(number)

    def room_at(self, number: int, start: int) -> Place | None:
        """A place at exactly `start` that costs only those behind; these are lifted."""
        seat = self._queue[number]
        if not self._seating.in_quota(seat, start, start + seat.demand.duration_ms):
            return None
        nodes = self._seating.room_at(seat, start, seat.demand.nodes)
        missing = seat.demand.nodes - len(nodes)
        most = _LOOKED_AT + seat.demand.nodes
        others = [node for node in self.ahead.room_at(seat, start, most) if node not in nodes]
        if len(others) < missing:
            return None
        for _, node, asked in self._cheapest(number, start, others, missing):
            nodes.append(node)
            # Somebody may have been on several of the nodes.
            still = [junior for junior in asked if junior.nodes]
            for junior in _needed(self._lacks(seat, start, node), still):
                self._seating.lift(junior)
        return start, tuple(sorted(nodes))

    def place_after(self, number: int, start: int) -> Place:
        """The first place after `start`, free or that of somebody behind with one as large."""
        seat = self._queue[number]
        free = self._seating.find_some(seat, start)
        demand = seat.demand
        for junior in self._by_start[bisect_right(self._starts, start) :]:
            begin, theirs = junior.start, junior.demand
            if begin >= free[0]:
                break
            if (
                theirs.units_per_node >= demand.units_per_node
                and theirs.duration_ms >= demand.duration_ms
                and len(junior.nodes) >= demand.nodes
                and junior.key > seat.key
                and begin > start
                and seat.may_use(junior.nodes[: demand.nodes])
                and self._seating.in_quota(seat, begin, begin + demand.duration_ms)
            ):
                place = begin, junior.nodes[: demand.nodes]
                self._seating.lift(junior)
                return place
        return free

    def _cheapest(self, number: int, start: int, nodes: list[int], count: int) -> list[_Offer]:
        """The `count` of the nodes whose room costs the last in the queue."""
        seat = self._queue[number]
        best: list[_Offer] = []
        if not count:
            return best
        end = start + seat.demand.duration_ms
        costs = [(self._within(node, number, start, end), node) for node in nodes]
        # The last in the queue of those on a node says how cheap it can be.
        costs.sort(reverse=True)
        for juniors, node in costs:
            most = best[0][0] if len(best) == count else number
            if juniors[0] <= most:
                break
            offer = self._offer(seat, start, node, juniors, most)
            if offer is None:
                continue
            heappush(best, offer)
            if len(best) > count:
                heappop(best)
        return best

    def _within(self, node: int, number: int, start: int, end: int) -> list[int]:
        """Who behind `number` sits on the node at some time in [start, end), the last first."""
        found = []
        for junior in self._on[node]:
            if junior <= number:
                break
            seat = self._queue[junior]
            if seat.start < end and seat.end > start and seat.nodes:
                found.append(junior)
        return found

    def _offer(
        self, seat: Seat, start: int, node: int, juniors: list[int], most: int
    ) -> _Offer | None:
        """Who would have to give way on the node; nothing if somebody would who is not behind
        `most`."""
        lacks = self._lacks(seat, start, node)
        asked = []
        for junior in juniors:
            if junior <= most:
                return None
            asked.append(self._queue[junior])
            lacks = _without(lacks, asked[-1])
            if not lacks:
                break
        return junior, node, asked

    def _lacks(self, seat: Seat, start: int, node: int) -> list[_Lack]:
        """When and how much is missing on the node for a seat that starts at `start`."""
        units, end = seat.demand.units_per_node, start + seat.demand.duration_ms
        return [
            (since, until, units - free)
            for since, until, free in self._seating.calendar.profiles.steps(node, start, end)
            if free < units
        ]


def _without(lacks: list[_Lack], junior: Seat) -> list[_Lack]:
    """What is still missing if `junior` gave way."""
    left: list[_Lack] = []
    for since, until, missing in lacks:
        begin, stop = max(since, junior.start), min(until, junior.end)
        if begin >= stop:
            left.append((since, until, missing))
            continue
        parts = (
            (since, begin, missing),
            (begin, stop, missing - junior.demand.units_per_node),
            (stop, until, missing),
        )
        left += [part for part in parts if part[0] < part[1] and part[2] > 0]
    return left


def _needed(lacks: list[_Lack], asked: list[Seat]) -> list[Seat]:
    """Those of `asked` without whom the room would not be enough; spares those ahead first."""
    needed = list(asked)
    for spared in reversed(asked):
        left = lacks
        for junior in needed:
            if junior is not spared:
                left = _without(left, junior)
        if not left:
            needed.remove(spared)
    return needed
