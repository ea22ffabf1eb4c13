"""Who gives way when room is lost: a node is gone, a lease stays longer, a quota is lower.

Whoever lost their slot is first offered any other place that starts no later than promised. If
there is none they take the room of somebody behind them in the queue, who then is the one to be
seated again, and so on. Where those behind have no room at that time, they take the first place
after it that is free, or that somebody behind them has. So a loss is handed down the queue: each
gives way to those ahead only, and at the end of the chain is somebody who waits like a newcomer.

Each is seated before anybody behind is looked at, and only those behind are moved. So nobody is
moved twice, and it ends.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from operator import attrgetter

from .model import Order
from .seats import Place, Seat, Seating

#: (from, until, units that are missing)
_Lack = tuple[int, int, int]
#: A place, and who has to give way for it.
_Offer = tuple[Place, list[Seat]]


def hand_down(
    seating: Seating, seated: Iterable[Seat], lost: Iterable[tuple[Seat, int]]
) -> list[Seat]:
    """Seats `lost`, with the starts that they were promised, at the cost of those behind them.

    `seated` are all who have a place. Returns who starts later than promised.
    """
    late: list[Seat] = []
    waiting: list[tuple[tuple[bool, int, Order, str], Seat, int]]
    waiting = [(seat.key, seat, promised) for seat, promised in lost]
    heapify(waiting)
    behind: _Behind | None = None
    while waiting:
        _, seat, promised = heappop(waiting)
        place = seating.find_no_later(seat, promised)
        if place is None:
            start = max(promised, seating.now, seat.not_before)
            behind = behind or _Behind(seating, seated)
            place, giving = behind.at(seat, start) or behind.after(seat, start)
            for junior in giving:
                heappush(waiting, (junior.key, junior, junior.start))
                seating.lift(junior)
            if place[0] > start:
                late.append(seat)
        seating.sit(seat, place)
    return late


class _Behind:
    """Those who might give way, looked at from the last in the queue or by their starts."""

    def __init__(self, seating: Seating, seated: Iterable[Seat]) -> None:
        self._seating = seating
        self._last_first = sorted(seated, key=attrgetter("key"), reverse=True)
        self._by_start = sorted(self._last_first, key=attrgetter("start"))
        self._starts = [seat.start for seat in self._by_start]

    def at(self, seat: Seat, start: int) -> _Offer | None:
        """The place at exactly `start` that costs those last in the queue."""
        nodes, giving = _room(self._seating, seat, start, self._last_first)
        return ((start, nodes), giving) if nodes else None

    def after(self, seat: Seat, start: int) -> _Offer:
        """The first place after `start`, free or that of somebody with one as large."""
        free = self._seating.find_some(seat, start)
        demand, is_open = seat.demand, self._seating.calendar.open
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
                and all(is_open[node] for node in junior.nodes)
                and seat.may_use(junior.nodes[: demand.nodes])
                and self._seating.in_quota(seat, begin, begin + demand.duration_ms)
            ):
                return (begin, junior.nodes[: demand.nodes]), [junior]
        return free, []


def _room(
    seating: Seating, seat: Seat, start: int, from_behind: list[Seat]
) -> tuple[tuple[int, ...], list[Seat]]:
    """Nodes for the seat at `start`, and who would have to give way, the last in the queue first.

    Nothing if those behind cannot make the room.
    """
    demand, calendar, now = seat.demand, seating.calendar, seating.now
    end = start + demand.duration_ms
    if not seating.in_quota(seat, start, end):
        return (), []
    nodes = _free(seating, seat, demand.nodes - 1, start, end)
    giving: list[Seat] = []
    lacks: dict[int, list[_Lack]] = {}
    asked: dict[int, list[Seat]] = {}
    for junior in from_behind:
        if len(nodes) == demand.nodes or junior.key <= seat.key:
            break
        # Whoever is due is about to start; who has no place now has none to give.
        if not now < junior.start < end or junior.end <= start or not junior.nodes:
            continue
        for node in junior.nodes:
            useless = node in nodes or not calendar.open[node] or not seat.may_use((node,))
            if useless or len(nodes) == demand.nodes:
                continue
            if node not in lacks:
                lacks[node] = _lack(seating, node, demand.units_per_node, start, end)
            asked.setdefault(node, []).append(junior)
            lacks[node] = _without(lacks[node], junior)
            if not lacks[node]:
                nodes.append(node)
                giving += _needed(seating, node, demand.units_per_node, start, end, asked[node])
    if len(nodes) < demand.nodes:
        return (), []
    return tuple(sorted(nodes)), list(dict.fromkeys(giving))


def _free(seating: Seating, seat: Seat, count: int, start: int, end: int) -> list[int]:
    """Up to `count` nodes that have room for the seat as it is."""
    found: list[int] = []
    units = seat.demand.units_per_node
    for node in range(len(seating.nodes)):
        if len(found) == count:
            break
        if seat.may_use((node,)) and seating.calendar.fits((node,), start, end, units):
            found.append(node)
    return found


def _lack(seating: Seating, node: int, units: int, start: int, end: int) -> list[_Lack]:
    """When and how many of `units` are missing on the node within [start, end)."""
    return [
        (since, until, units - free)
        for since, until, free in seating.calendar.profiles.steps(node, start, end)
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


def _needed(
    seating: Seating, node: int, units: int, start: int, end: int, asked: list[Seat]
) -> list[Seat]:
    """Those of `asked` without whom the room would not be enough; spares those ahead first."""
    needed = list(asked)
    for spared in reversed(asked[:-1]):
        lacks = _lack(seating, node, units, start, end)
        for junior in needed:
            if junior is not spared:
                lacks = _without(lacks, junior)
        if not lacks:
            needed.remove(spared)
    return needed
