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
from .quota import Usage
from .windows import Windows

if TYPE_CHECKING:
    from .seats import Seat


class Fresh:
    """What was given back since this was last taken."""

    __slots__ = ("nodes", "quotas")

    def __init__(self) -> None:
        self.nodes: list[int] = []  # in the order in which they got more room, some repeatedly
        self.quotas: set[Usage] = set()

    def note(self, nodes: tuple[int, ...], quotas: tuple[Usage, ...]) -> None:
        """Something was given back on `nodes`, under `quotas`."""
        self.nodes += nodes
        self.quotas.update(quotas)

    def take(self) -> tuple[list[int], set[Usage]]:
        """What there was, which is forgotten."""
        taken = self.nodes, self.quotas
        self.nodes, self.quotas = [], set()
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

    def possible(self, seat: Seat, earliest: int) -> bool:
        """Whether the seat might start before its present start, from `earliest` on."""
        if self._seen < len(self._fresh.nodes):
            self._look_at_what_is_fresh()
        if seat.quotas and not (
            self._quotas.isdisjoint(seat.quotas) and self._fresh.quotas.isdisjoint(seat.quotas)
        ):
            return True
        demand = seat.demand
        units = demand.units_per_node
        if not self._nodes.isdisjoint(seat.nodes) and self._calendar.freed_by(
            seat.nodes, seat.start, seat.end, units
        ):
            return True
        index = self._indexes.get(units)
        if index is None:
            index = self._indexes[units] = self._calendar.index_of(self._nodes, units)
        return index.first(demand.duration_ms, earliest, seat.start) is not None

    def _look_at_what_is_fresh(self) -> None:
        for node in set(self._fresh.nodes[self._seen :]):
            self._nodes.add(node)
            for index in self._indexes.values():
                index.update(node, self._calendar.open[node])
        self._seen = len(self._fresh.nodes)
