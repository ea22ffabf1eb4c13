"""The service's planner as the rules of a queue: everybody has a promised start from the beginning.

The world is the planner's own, told event by event; demands and leases are made as
`operations.facts` makes them from rows, the turnover included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from gpudev_service import planner

from .fleet import Fleet
from .replay import Part


@dataclass(slots=True)
class _Seated:
    part: Part
    demand: planner.Demand
    slot: planner.Slot


class Planned:
    """Conservative backfill with promises."""

    def __init__(self, fleet: Fleet, turnover_ms: int) -> None:
        nodes = [
            planner.Node(name, pool, units)
            for pool, those in fleet.nodes.items()
            for name, units in those.items()
        ]
        rules = planner.Rules(overstay_ms=max(1000, turnover_ms))
        self._world = planner.World(nodes, (), (), rules, 0)
        self._turnover_ms = turnover_ms
        self._seated: dict[str, _Seated] = {}
        self._until: dict[str, int] = {}
        self._starts: list[tuple[int, str]] = []
        self._told: dict[str, int] = {}

    @property
    def told(self) -> Mapping[str, int]:
        return self._told

    def add(self, part: Part, now: int) -> bool:
        self._pass(now)
        booked = part.booked_ms if part.booked_ms is not None and part.booked_ms > now else None
        if self._seat(part, booked, None, now):
            return True
        # Who finds a booking's time taken asks for the first time after it.
        return booked is not None and self._seat(part, None, booked, now)

    def _seat(self, part: Part, booked: int | None, not_before: int | None, now: int) -> bool:
        request = part.request
        demand = planner.Demand(
            id=part.key,
            pool=request.pool,
            nodes=request.nodes,
            units_per_node=request.units,
            duration_ms=part.lease_ms + self._turnover_ms,
            priority=part.priority,
            order=part.order,
            booked_start_ms=booked,
            not_before_ms=not_before,
        )
        changes = self._world.add(demand)
        if part.key not in changes.slots:
            self._hear(self._world.remove(part.key))
            return False
        self._seated[part.key] = _Seated(part, demand, changes.slots[part.key])
        self._hear(changes)
        # Bookings and the past apart, a promise is never before now.
        self._told[part.key] = max(now, changes.slots[part.key].start_ms)
        return True

    def end(self, key: str, now: int) -> None:
        self._pass(now)
        del self._until[key]
        self._hear(self._world.release(key))

    def extend(self, key: str, wanted_ms: int, now: int) -> int:
        self._pass(now)
        granted = self._world.max_extension(key, wanted_ms).granted_ms
        if granted > 0:
            self._until[key] += granted
            self._hear(self._world.extend(key, self._until[key]))
        return granted

    def begin(self, now: int) -> Iterable[str]:
        self._pass(now)
        while (due := self.due_ms()) is not None and due <= now:
            _, key = heappop(self._starts)
            seated = self._seated.pop(key)
            until = min(now, seated.slot.start_ms) + seated.demand.duration_ms
            units = dict.fromkeys(seated.slot.nodes, seated.slot.units_per_node)
            self._until[key] = until
            self._hear(self._world.begin(key, planner.Hold(key, units, until)))
            yield key

    def due_ms(self) -> int | None:
        while self._starts:
            start, key = self._starts[0]
            if key in self._seated and self._seated[key].slot.start_ms == start:
                return start
            heappop(self._starts)  # moved since, or begun
        return None

    def _pass(self, now: int) -> None:
        if now > self._world.now_ms:
            self._hear(self._world.advance(now))

    def _hear(self, changes: planner.Changes) -> None:
        if changes.impossible:
            self._told_impossible(changes.impossible)
        for key, slot in changes.slots.items():
            self._seated[key].slot = slot
            heappush(self._starts, (slot.start_ms, key))

    def _told_impossible(self, impossible: Mapping[str, planner.Reason]) -> None:
        """Nodes do not leave a fleet that is described, so nobody loses a place that they had."""
        lost = [key for key in impossible if key in self._seated]
        if lost:
            raise RuntimeError(f"the planner took back the places of {', '.join(lost)}")
