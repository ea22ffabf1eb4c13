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
from .profiles import FOREVER
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

    def __init__(self, calendar: Calendar, fresh: Fresh) -> None:
        self._calendar = calendar
        self._fresh = fresh
        nodes, self._quotas = fresh.take()
        self._nodes = set(nodes)
        self._seen = 0  # how much of what is fresh has been looked at
        self._indexes: dict[int, Windows] = {}  # of the fresh nodes only, by number of units
        # No window for so many units and a duration of so many bits begins before this. Most
        # questions are answered by it.
        self._soonest: dict[tuple[int, int], int] = {}

    def possible(self, seat: Seat, earliest: int) -> bool:
        """Whether the seat might start before its present start, from `earliest` on."""
        if self._seen < len(self._fresh.nodes):
            self._look_at_what_is_fresh()
        for key in seat.quotas:
            for more in (self._quotas.get(key), self._fresh.quotas.get(key)):
                if more is not None and more[0] < seat.end and more[1] > earliest:
                    return True
        demand = seat.demand
        units, duration = demand.units_per_node, demand.duration_ms
        if not self._nodes.isdisjoint(seat.nodes) and self._calendar.freed_by(
            seat.nodes, seat.start, seat.end, units
        ):
            return True
        shape = units, duration.bit_length()
        soonest = self._soonest.get(shape)
        if soonest is None:
            soonest = self._soonest[shape] = self._first(units, 1 << (shape[1] - 1), 0, FOREVER)
        return soonest < seat.start and self._first(units, duration, earliest, seat.start) < FOREVER

    def _first(self, units: int, duration: int, earliest: int, before: int) -> int:
        """When the first window begins within [earliest, before); FOREVER if none does."""
        index = self._indexes.get(units)
        if index is None:
            index = self._indexes[units] = self._calendar.index_of(self._nodes, units)
        found = index.first(duration, earliest, before)
        return FOREVER if found is None else found[0]

    def _look_at_what_is_fresh(self) -> None:
        for node in set(self._fresh.nodes[self._seen :]):
            self._nodes.add(node)
            for index in self._indexes.values():
                index.update(node, self._calendar.open[node])
        self._seen = len(self._fresh.nodes)
        self._soonest.clear()
