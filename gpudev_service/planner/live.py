"""What happens to a pool over time, told event by event.

Each event changes only the seats that it concerns, by the steps and the rules of `pool`. Where time
has brought something that nobody told, as a lease that overstays, the pool is built again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import replace
from itertools import accumulate
from operator import attrgetter

from . import extension
from .model import Changes, Demand, Hold, Node, Reason, Rules
from .pool import Pool, occupied_until
from .profiles import FOREVER
from .seats import Seat, queue_key

#: How much past a calendar may gather before it is built anew without it.
_FORGET_PAST_MS = 600_000


class LivePool(Pool):
    """A pool that hears of events and tells what they changed."""

    def __init__(
        self,
        nodes: Iterable[Node],
        holds: Iterable[Hold],
        demands: Iterable[Demand],
        rules: Rules,
        now: int,
    ) -> None:
        super().__init__(nodes, holds, demands, rules, now)
        self._told_refused = set(self.refused)
        self.seating.touched.clear()

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
        self.holds[hold.id] = hold
        if self._is_seat_of(seat, hold):
            self.ends[hold.id] = seat.end
            return
        self.seating.lift(seat)
        self.ends[hold.id] = seat.end
        self.seating.take_lease(hold, self.seating.now, seat.end)
        self.improve()
        self.set_end(hold.id, hold.until_ms, override=True)

    def _is_seat_of(self, seat: Seat, hold: Hold) -> bool:
        """Whether a lease has just what its demand had: the usual case, in which nothing moves."""
        if hold.quota_keys != seat.quotas:
            return False
        if seat.start > self.seating.now or seat.end <= self.seating.now:
            return False
        places = {self.seating.names[at][0]: seat.demand.units_per_node for at in seat.nodes}
        return hold.units == places and hold.until_ms == seat.end

    def rebook(self, demand: Demand) -> None:
        """A booking is one no more, as it has lost its time, or it is one again: `demand` is that
        of before but for `booked_start_ms` and `not_before_ms`, one of which is the other's."""
        seat = self.seats.get(demand.id)
        if seat is not None:
            seat.demand, seat.key = demand, queue_key(demand)
        else:
            self.refuse(demand, self.refused[demand.id][1])

    def release(self, hold_id: str) -> None:
        """A lease has ended."""
        self._give_back(hold_id)
        self.improve()

    def _give_back(self, hold_id: str) -> None:
        self.seating.give_lease(self.holds.pop(hold_id), self.seating.now, self.ends.pop(hold_id))

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

    def set_available(self, changes: Mapping[str, bool]) -> None:
        """Nodes are drained, or come back: all of them at once."""
        for name, available in changes.items():
            self.seating.set_available(name, available)
        closed = {self.seating.number[name] for name, available in changes.items() if not available}
        self._leave(closed)
        self.improve()
        # Who can sit somewhere now does; of the others it may be another cause that holds now.
        refused, self.refused = self.refused, {}
        for demand in sorted((demand for demand, _ in refused.values()), key=queue_key):
            self.add(demand)

    def _leave(self, closed: Set[int]) -> None:
        """Seats those elsewhere who sit on nodes that were closed."""
        concerned = [seat for seat in self.seats.values() if not closed.isdisjoint(seat.nodes)]
        lost = {seat: (seat.start, Reason.NODE_DRAINED) for seat in concerned}
        for seat in concerned:
            self.seating.lift(seat)
        for seat in concerned:
            why = self.seating.impossible(seat)
            if why is not None:
                del lost[seat]
                self.refuse(self.seats.pop(seat.demand.id).demand, why)
        self.hand_down(lost)

    def advance(self, now: int, gone: Collection[str]) -> None:
        """Time has passed: leases may have overstayed, and starts may be late. `gone` are leases
        and demands that are there no more, and so neither."""
        for name in gone:
            if name in self.holds:
                self._give_back(name)
            elif name in self.seats:
                self.seating.lift(self.seats.pop(name))
            else:
                self.refused.pop(name, None)
        late = now - self.rules.late_start_ms
        if (
            min(self.ends.values(), default=FOREVER) <= now
            or self.seating.starts_by(late - 1, self.seats.values())
            or now - self.seating.calendar.since > _FORGET_PAST_MS
        ):
            self.plan_anew(now)
        self.seating.now = now
        if gone:
            self.improve()

    def due(self) -> list[Seat]:
        """Whose start has come, by start and then queue order."""
        now = self.seating.now
        if not self.seating.starts_by(now, self.seats.values()):
            return []
        return sorted(
            [seat for seat in self.seats.values() if seat.start <= now],
            key=attrgetter("start", "key"),
        )

    def places(self, names: Iterable[str]) -> dict[str, int]:
        """Places in the line, by start and then by who came first; 1 for the next.

        One look at everybody. Of those among `names` who have a seat.
        """
        asked = sorted(
            [(seat.start, seat.key[1:]) for name in names if (seat := self.seats.get(name))]
        )
        if not asked:
            return {}
        first, last = asked[0][0], asked[-1][0]
        ahead = [0] * (len(asked) + 1)
        for seat in self.seats.values():
            start = seat.start
            if start < first:
                ahead[0] += 1
            elif start <= last:
                ahead[bisect_left(asked, (start, seat.key[1:]))] += 1
        return {key[-1]: place for (_, key), place in zip(asked, accumulate(ahead), strict=False)}

    def plan_anew(self, now: int) -> None:
        """Builds the pool again, with everyone's present slot as promise."""
        demands = [self._promising(seat) for seat in self.seats.values()]
        demands += [demand for demand, _ in self.refused.values()]
        for seat in self.seats.values():
            self.seating.touched.setdefault(seat.demand.id, (seat.start, seat.nodes))
        self.seats = {}
        self.refused = {}
        self.seating.clear(now)
        self.load(demands)

    def _promising(self, seat: Seat) -> Demand:
        return replace(seat.demand, promise=self.slot((seat.start, seat.nodes), seat.demand))

    def changes(self) -> Changes:
        """What is different from when this was last asked."""
        slots, moved = {}, {}
        for name, before in self.seating.touched.items():
            seat = self.seats.get(name)
            if seat is not None and (seat.start, seat.nodes) != before:
                slots[name] = self.slot((seat.start, seat.nodes), seat.demand)
                if before is not None and seat.start > before[0] and name in self.moved_later:
                    moved[name] = self.moved_later[name]
        self.seating.touched.clear()
        impossible: dict[str, Reason] = {
            name: why for name, (_, why) in self.refused.items() if name not in self._told_refused
        }
        self._told_refused = set(self.refused)
        return Changes(slots, moved, impossible)
