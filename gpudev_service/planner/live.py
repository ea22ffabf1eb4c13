"""What happens to a pool over time, told event by event.

Each event changes only the seats that it concerns, and leaves the pool as `pool` would build it
from the slots of before as promises. Where that is not possible, because somebody loses a promised
slot and finds no other in time, the pool is in fact built again.
"""

from __future__ import annotations

from dataclasses import replace

from . import extension
from .model import Changes, Demand, Hold
from .pool import Pool, occupied_until
from .seats import Place

#: How much past a calendar may gather before it is built anew without it.
_FORGET_PAST_MS = 600_000


class LivePool(Pool):
    """A pool that hears of events."""

    _told: dict[str, Place] | None = None

    def add(self, demand: Demand) -> None:
        """A newcomer arrives."""
        seat = self.seating.new_seat(demand)
        why = self.seating.impossible(seat)
        if why is not None:
            self.refuse(demand, why)
        else:
            self.seat_newcomer(seat)

    def remove(self, demand_id: str) -> None:
        """A waiting demand is gone."""
        if self.refused.pop(demand_id, None) is None:
            self.seating.lift(self.seats.pop(demand_id))
            self.improve()

    def begin(self, demand_id: str, hold: Hold) -> None:
        """A lease takes over from the seat of its demand."""
        seat = self.seats.pop(demand_id)
        self.seating.lift(seat)
        self.holds[hold.id] = hold
        self.ends[hold.id] = seat.end
        self.seating.take_lease(hold, self.seating.now, seat.end)
        self.set_end(hold.id, hold.until_ms, override=True)

    def release(self, hold_id: str) -> None:
        """A lease has ended."""
        self.seating.give_lease(self.holds.pop(hold_id), self.seating.now, self.ends.pop(hold_id))
        self.improve()

    def set_end(self, hold_id: str, until_ms: int, *, override: bool = False) -> None:
        """A lease gets another end; see `World.extend`."""
        hold = replace(self.holds[hold_id], until_ms=until_ms)
        begin, end = self.ends[hold_id], occupied_until(hold, self.rules, self.seating.now)
        if end > begin:
            blocker = extension.extend(self, hold_id, until_ms)
            if blocker is None:
                return
            if not override:
                raise ValueError(f"the promised start of {blocker!r} would move later")
            self.holds[hold_id] = hold
            self.plan_anew(self.seating.now)
            return
        self.holds[hold_id], self.ends[hold_id] = hold, end
        if end < begin:
            self.seating.give_lease(hold, end, begin)
            self.improve()

    def set_available(self, name: str, available: bool) -> None:
        """A node is drained, or comes back."""
        self.seating.set_available(name, available)
        self.plan_anew(self.seating.now)

    def advance(self, now: int) -> None:
        """Time has passed: leases may have overstayed, and starts may be late."""
        late = now - self.rules.late_start_ms
        if (
            any(end <= now for end in self.ends.values())
            or any(seat.start < late for seat in self.seats.values())
            or now - self.seating.calendar.since > _FORGET_PAST_MS
        ):
            self.plan_anew(now)
        self.seating.now = now

    def plan_anew(self, now: int) -> None:
        """Builds the pool again, with everyone's present slot as promise."""
        demands = [
            replace(seat.demand, promise=self.slot((seat.start, seat.nodes), seat.demand))
            for seat in self.seats.values()
        ]
        demands += [demand for demand, _ in self.refused.values()]
        self.seats = {}
        self.refused = {}
        self.seating.clear(now)
        self.load(demands, now)

    def changes(self) -> Changes:
        """What is different from when this was last asked."""
        told, self._told = self._told, {i: (s.start, s.nodes) for i, s in self.seats.items()}
        slots = {}
        for name, place in self._told.items():
            if told is None or told.get(name) != place:
                slots[name] = self.slot(place, self.seats[name].demand)
        moved, self.moved_later = self.moved_later, {}
        return Changes(slots, moved, {name: why for name, (_, why) in self.refused.items()})
