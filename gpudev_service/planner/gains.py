"""Who might start earlier now, without asking everyone.

As long as nobody can be improved, somebody can be again only through room that was not there
before: on a node that was given something back, or under a quota. `Fresh` notes these; `Gains`
tells for a seat whether any of it could be of use. It may say yes in vain, but never no where there
is something to gain: an earlier start that needs none of the new room would have been possible
before, and then the seat would have been improved already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calendar import Calendar
from .windows import Windows

if TYPE_CHECKING:
    from .seats import Seat


class Fresh:
    """What was given back since this was last taken."""

    __slots__ = ("nodes", "quotas")

    def __init__(self) -> None:
        self.nodes: list[int] = []  # in the order in which they got more room, some repeatedly
        self.quotas: dict[str, tuple[int, int]] = {}  # the time within which there is more

    def note(self, nodes: tuple[int, ...], quotas: tuple[str, ...], start: int, end: int) -> None:
        """Something was given back on `nodes`, under `quotas`, within [start, end)."""
        self.nodes += nodes
        for key in quotas:
            since, until = self.quotas.get(key, (start, end))
            self.quotas[key] = min(since, start), max(until, end)

    def take(self) -> tuple[list[int], dict[str, tuple[int, int]]]:
        """What there was, which is forgotten."""
        taken = self.nodes, self.quotas
        self.nodes, self.quotas = [], {}
        return taken

    def __bool__(self) -> bool:
        return bool(self.nodes or self.quotas)


class Gains:
    """Whom the room may help that was given back before, or while the seats are gone through."""

    def __init__(self, calendar: Calendar, fresh: Fresh, now: int) -> None:
        self._calendar = calendar
        self._fresh = fresh
        self._now = now
        nodes, self._quotas = fresh.take()
        self._nodes = set(nodes)
        self._keys = set(self._quotas)  # of quotas under which something was given back
        self._seen = 0  # how much of what is fresh has been looked at
        self._indexes: dict[int, Windows] = {}  # of the fresh nodes only, by number of units
        # By shape: no window for such a seat begins before this. Most questions are answered by it.
        self._soonest: dict[tuple[int, int], int] = {}

    def possible(self, seat: Seat) -> bool:
        """Whether the seat might start before its present start."""
        if self._seen < len(self._fresh.nodes):
            self._look_at_what_is_fresh()
        if not self._keys.isdisjoint(seat.quotas) and self._has_more_quota(seat):
            return self.anywhere(seat)
        if not self._nodes.isdisjoint(seat.nodes) and self._has_room_before(seat):
            return True
        soonest = self._soonest.get(seat.shape)
        if soonest is None:
            soonest = self._look_for(seat)
        return soonest < seat.start and self._has_room(seat)

    def anywhere(self, seat: Seat) -> bool:
        """Whether the seat might start earlier in any room, new or not, whatever its quotas."""
        demand = seat.demand
        soonest = self._calendar.soonest(demand.units_per_node, demand.duration_ms, seat.among)
        return soonest < seat.start or self._has_room_before(seat)

    def _has_more_quota(self, seat: Seat) -> bool:
        """Whether something was given back under its quotas at a time that might be of use."""
        earliest = max(self._now, seat.not_before)
        for key in seat.quotas:
            for more in (self._quotas.get(key), self._fresh.quotas.get(key)):
                if more is not None and more[0] < seat.end and more[1] > earliest:
                    return True
        return False

    def _has_room_before(self, seat: Seat) -> bool:
        """Whether room begins before the seat, on a node of its own, that it could use as well."""
        units = seat.demand.units_per_node
        return self._calendar.profiles.is_free_before(seat.nodes, units, seat.start)

    def _has_room(self, seat: Seat) -> bool:
        """Whether a window on the fresh nodes would let the seat start earlier."""
        index = self._indexes[seat.demand.units_per_node]
        earliest = max(self._now, seat.not_before)
        if index.first(seat.demand.duration_ms, earliest, seat.start) is not None:
            return True
        self._look_for(seat)  # the search may have found that there is less than the index said
        return False

    def _look_for(self, seat: Seat) -> int:
        """Since when there may be windows on the fresh nodes for seats of this shape."""
        demand = seat.demand
        units = demand.units_per_node
        index = self._indexes.get(units)
        if index is None:
            index = self._indexes[units] = self._calendar.index_of(self._nodes, units)
        soonest = self._soonest[seat.shape] = index.soonest(demand.duration_ms)
        return soonest

    def _look_at_what_is_fresh(self) -> None:
        for node in set(self._fresh.nodes[self._seen :]):
            self._nodes.add(node)
            for index in self._indexes.values():
                index.update(node, self._calendar.open[node])
        self._keys.update(self._fresh.quotas)
        self._seen = len(self._fresh.nodes)
        self._soonest.clear()
