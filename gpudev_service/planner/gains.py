"""Who might start earlier now, without asking everyone.

As long as nobody can be improved, somebody can be again only through room that was not there
before: on a node that was given something back, or under a quota. `Fresh` notes these; `Gains`
tells for a seat whether any of it could be of use. It may say yes in vain, but never no where there
is something to gain: an earlier start that needs none of the new room would have been possible
before, and then the seat would have been improved already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .profiles import Profiles
from .quota import Usage

if TYPE_CHECKING:
    from .seats import Seat

#: With more nodes than this, asking everyone costs less than telling whom to ask.
_MANY_NODES = 32


class Fresh:
    """Nodes and quotas that have more room than when this was last taken."""

    __slots__ = ("nodes", "quotas", "times")

    def __init__(self) -> None:
        self.nodes: set[int] = set()
        self.quotas: set[Usage] = set()
        #: How often something was given back.
        self.times = 0

    def note(self, nodes: tuple[int, ...], quotas: tuple[Usage, ...]) -> None:
        """Something was given back on `nodes`, under `quotas`."""
        self.nodes.update(nodes)
        self.quotas.update(quotas)
        self.times += 1

    def take(self) -> tuple[set[int], set[Usage]]:
        """What there was, which is forgotten."""
        taken = self.nodes, self.quotas
        self.nodes, self.quotas = set(), set()
        return taken

    def __bool__(self) -> bool:
        return bool(self.nodes or self.quotas)


class Gains:
    """Whom the room may help that was given back before, or while the seats are gone through."""

    def __init__(self, profiles: Profiles, open_nodes: list[bool], fresh: Fresh) -> None:
        self._profiles = profiles
        self._open = open_nodes
        self._fresh = fresh
        self._nodes, self._quotas = fresh.take()
        self._seen = fresh.times
        self._windows: dict[int, list[tuple[int, int]]] = {}  # by number of units

    def possible(self, seat: Seat, earliest: int) -> bool:
        """Whether the seat might start before its present start, from `earliest` on."""
        if self._seen != self._fresh.times:
            self._nodes |= self._fresh.nodes
            self._quotas |= self._fresh.quotas
            self._seen = self._fresh.times
            self._windows.clear()
        if len(self._nodes) > _MANY_NODES or not self._nodes.isdisjoint(seat.nodes):
            return True
        if seat.quotas and not self._quotas.isdisjoint(seat.quotas):
            return True
        demand = seat.demand
        windows = self._windows.get(demand.units_per_node)
        if windows is None:
            windows = self._windows[demand.units_per_node] = self._find(demand.units_per_node)
        for start, end in windows:
            if start >= seat.start:
                return False
            if end - max(start, earliest) >= demand.duration_ms:
                return True
        return False

    def _find(self, units: int) -> list[tuple[int, int]]:
        windows: list[tuple[int, int]] = []
        for node in self._nodes:
            if self._open[node]:
                edges = self._profiles.spans(node, units, 1)
                windows += zip(edges[::2], edges[1::2], strict=True)
        return sorted(windows)
