"""A world that stays in memory and is told what happens, so that nothing is planned twice.

An arrival seats one demand; an early end, an extension or a drain touches the seats that it
concerns. The steps and rules are those of `plan` with the slots of before as promises. Which of
several nodes with the same earliest start is taken depends on what happened before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from operator import attrgetter

from . import extension
from .live import LivePool
from .model import Changes, Demand, Extension, Hold, Node, Plan, Reason, Rules, Slot
from .seats import Seat, by_key, queue_key


class World:
    """All pools, with everyone seated. Not safe for use by several threads at once."""

    def __init__(
        self,
        nodes: Iterable[Node],
        holds: Iterable[Hold],
        demands: Iterable[Demand],
        rules: Rules,
        now_ms: int,
    ) -> None:
        self.now_ms = now_ms
        self.rules = rules
        parts: dict[str, tuple[list[Node], list[Hold], list[Demand]]] = {}
        pool_of: dict[str, str] = {}
        for node in nodes:
            parts.setdefault(node.pool, ([], [], []))[0].append(node)
            pool_of[node.name] = node.pool
        for hold in holds:
            pool = next((pool_of[node] for node in hold.units if node in pool_of), None)
            if pool is not None:
                parts[pool][1].append(hold)
        for demand in demands:
            parts.setdefault(demand.pool, ([], [], []))[2].append(demand)
        self._pools = {name: LivePool(*part, rules, now_ms) for name, part in parts.items()}

    def plan(self) -> Plan:
        """Everyone's slot and position as things stand."""
        result = Plan({}, {}, (), {}, {})
        start_now: list[Seat] = []
        for pool in self._pools.values():
            position = 0
            # Two stable sorts: by start, and among equal starts by queue order.
            seats = sorted(pool.seats.values(), key=by_key)
            seats.sort(key=attrgetter("start"))
            for seat in seats:
                demand = seat.demand
                result.slots[demand.id] = pool.slot((seat.start, seat.nodes), demand)
                if seat.start <= self.now_ms:
                    start_now.append(seat)
                else:
                    position += 1
                    result.position[demand.id] = position
            result.impossible.update({name: why for name, (_, why) in pool.refused.items()})
            # Somebody planned again may have been improved back to what was promised.
            for name, why in pool.moved_later.items():
                now_seated = pool.seats.get(name)
                promise = None if now_seated is None else now_seated.demand.promise
                if now_seated is None or promise is None or now_seated.start > promise.start_ms:
                    result.moved_later[name] = why
        start_now.sort(key=attrgetter("start", "key"))
        return replace(result, start_now=tuple(seat.demand.id for seat in start_now))

    def what_if(self, demand: Demand) -> Slot | Reason:
        """The slot that `demand` would get if it came now, behind everyone who is here."""
        pool = self._pool(demand.pool)
        seat = pool.seating.new_seat(demand)
        why = pool.seating.impossible(seat)
        if why is not None:
            return why
        place = pool.place_for(seat)
        return place if isinstance(place, Reason) else pool.slot(place, demand)

    def max_extension(self, hold_id: str, wanted_ms: int) -> Extension:
        """The most by which a lease may be extended so that no promised start moves later."""
        for pool in self._pools.values():
            if hold_id in pool.holds:
                return extension.max_extension(pool, hold_id, wanted_ms)
        return Extension(0, None, Reason.NO_SUCH_HOLD)

    def add(self, *demands: Demand) -> Changes:
        """Demands arrive. They are seated in queue order behind everyone who is here, whatever
        their promises say."""
        for demand in sorted(demands, key=queue_key):
            pool = self._pool(demand.pool)
            if demand.id in pool.seats or demand.id in pool.refused:
                raise ValueError(f"demand {demand.id!r} is here already")
            pool.add(replace(demand, promise=None))
        return self._changes()

    def remove(self, demand_id: str) -> Changes:
        """A waiting demand is gone (cancelled); what it leaves goes to others."""
        pool = self._pool_of_demand(demand_id)
        pool.remove(demand_id)
        return pool.changes()

    def begin(self, demand_id: str, hold: Hold) -> Changes:
        """The demand's lease begins: from now on `hold` has its units."""
        pool = self._pool_of_demand(demand_id)
        pool.begin(demand_id, hold)
        return pool.changes()

    def rebook(self, demand: Demand) -> None:
        """A waiting demand's booking has lost its time, or has it again; see `LivePool.rebook`. Its
        slot stays."""
        self._pool_of_demand(demand.id).rebook(demand)

    def release(self, hold_id: str) -> Changes:
        """A lease has ended and its units are free."""
        pool = self._pool_of_hold(hold_id)
        pool.release(hold_id)
        return pool.changes()

    def extend(self, hold_id: str, until_ms: int, *, override: bool = False) -> Changes:
        """A lease gets another end.

        Raises:
            ValueError: a promised start would move later; with `override` it moves instead.
        """
        pool = self._pool_of_hold(hold_id)
        pool.set_end(hold_id, until_ms, override=override)
        return pool.changes()

    def set_available(self, changes: Mapping[str, bool]) -> Changes:
        """Nodes are drained, or come back; who loses or gains by it is seen once, for all.

        Raises:
            KeyError: there is no such node; nothing is changed.
        """
        pools = {name: self._pool_of_node(name) for name in changes}
        for pool in self._pools.values():
            here = {name: changes[name] for name, its in pools.items() if its is pool}
            if here:
                pool.set_available(here)
        return self._changes()

    def due(self) -> dict[str, Slot]:
        """Who is to begin now, by start and then queue order."""
        return {
            seat.demand.id: pool.slot((seat.start, seat.nodes), seat.demand)
            for pool in self._pools.values()
            for seat in pool.due()
        }

    def places(self, names: Collection[str]) -> dict[str, int]:
        """Places in the lines of their pools, by start and then by who came first; 1 for the next.
        Of those among `names` who have a slot."""
        found: dict[str, int] = {}
        for pool in self._pools.values():
            found |= pool.places(names)
        return found

    def refused(self) -> dict[str, Reason]:
        """Who has no slot, with the cause."""
        pools = self._pools.values()
        return {name: why for pool in pools for name, (_, why) in pool.refused.items()}

    def advance(self, now_ms: int, gone: Collection[str] = ()) -> Changes:
        """Time has passed, and the leases and demands `gone` have ended meanwhile, in time.

        Raises:
            ValueError: it would run backwards.
        """
        if now_ms < self.now_ms:
            raise ValueError("time does not run backwards")
        self.now_ms = now_ms
        for pool in self._pools.values():
            pool.advance(now_ms, gone)
        return self._changes()

    def _changes(self) -> Changes:
        """Those of all pools."""
        result = Changes({}, {}, {})
        for pool in self._pools.values():
            changes = pool.changes()
            result.slots.update(changes.slots)
            result.moved_later.update(changes.moved_later)
            result.impossible.update(changes.impossible)
        return result

    def _pool(self, name: str) -> LivePool:
        if name not in self._pools:
            self._pools[name] = LivePool((), (), (), self.rules, self.now_ms)
        return self._pools[name]

    def _pool_of_demand(self, demand_id: str) -> LivePool:
        for pool in self._pools.values():
            if demand_id in pool.seats or demand_id in pool.refused:
                return pool
        raise KeyError(demand_id)

    def _pool_of_node(self, name: str) -> LivePool:
        for pool in self._pools.values():
            if name in pool.seating.number:
                return pool
        raise KeyError(name)

    def _pool_of_hold(self, hold_id: str) -> LivePool:
        for pool in self._pools.values():
            if hold_id in pool.holds:
                return pool
        raise KeyError(hold_id)


def plan(
    nodes: Iterable[Node],
    holds: Iterable[Hold],
    demands: Iterable[Demand],
    rules: Rules,
    now_ms: int,
) -> Plan:
    """A start for every demand, for callers that keep nothing in memory.

    Give each demand the slot of the last plan as its `promise`: without it, it counts as new.
    """
    return World(nodes, holds, demands, rules, now_ms).plan()
