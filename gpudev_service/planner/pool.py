"""The order in which demands of one pool are seated, and the argument why promises hold.

Every change goes through three steps, in this order:

1. *Keep.* Leases take their units, then every promised slot takes its own again. A newcomer cannot
   be in the way, whatever its priority: it has no seat yet.
2. *Improve.* In queue order each waiting demand is offered the earliest start that is free if its
   own slot were given back, again and again until nobody can be improved. A seat only ever moves
   to an earlier start, so this cannot hurt anybody; whoever is first in the queue and fits has the
   first choice of what became free.
3. *Seat newcomers*, in queue order, in what is left. They take only what is free, so they move
   nobody, and since nothing became free, nobody can be improved by it either.

So a promised start is an upper bound that holds as long as step 1 succeeds: leases end when they
should (their ends are hard and include the turnover) and nodes stay. When step 1 fails for somebody
(a node is gone or drained, a lease overstays, an operator lowered a quota), those who lost their
slot are first offered any other place that starts no later than promised, and then the room of
those behind them in the queue (see `losses`). So the loss falls on the last in the queue and not on
whoever sat on the broken node, and on as few as possible; whose start is then later than promised
is reported with the reason.

The state after each change is a fixed point: nobody can be improved. That is why a demand that
arrives later, or is only asked about, gets the same answer from a long-lived pool as from one that
is built anew from the stored promises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .losses import hand_down
from .model import Demand, Hold, Node, Reason, Rules, Slot
from .seats import Place, Seat, Seating, by_key


def occupied_until(hold: Hold, rules: Rules, now: int) -> int:
    """Until when a lease must be taken to hold its units.

    One that has overstayed is given another `overstay_ms`, counted from its end, as often as
    needed. In steps, so that the promises behind it move once a step, not with every look at the
    clock.
    """
    if hold.until_ms > now:
        return hold.until_ms
    steps = (now - hold.until_ms) // rules.overstay_ms + 1
    return hold.until_ms + steps * rules.overstay_ms


class Pool:
    """One pool's leases and waiting demands at one moment."""

    def __init__(
        self,
        nodes: Iterable[Node],
        holds: Iterable[Hold],
        demands: Iterable[Demand],
        rules: Rules,
        now: int,
    ) -> None:
        self.rules = rules
        self.seating = Seating(nodes, now)
        self.holds = {hold.id: hold for hold in holds}
        #: Until when each lease must be taken to hold its units, by hold id.
        self.ends: dict[str, int] = {}
        #: Who cannot have a seat, and why, by demand id.
        self.refused: dict[str, tuple[Demand, Reason]] = {}
        #: Whose promise could not be kept when the pool was last built, and why.
        self.moved_later: dict[str, Reason] = {}
        #: Everyone with a seat, by demand id.
        self.seats: dict[str, Seat] = {}
        self.load(demands)

    def load(self, demands: Iterable[Demand]) -> None:
        """Seats everybody anew, in a pool in which nobody sits."""
        self.moved_later = {}
        self._seat_leases()
        promised, newcomers = [], []
        for seat in sorted([self.seating.new_seat(demand) for demand in demands], key=by_key):
            why = self.seating.impossible(seat)
            if why is not None:
                self.refuse(seat.demand, why)
            elif _still_promised(seat.demand):
                promised.append(seat)
            else:
                newcomers.append(seat)
        self._keep(promised)
        self.improve(everyone=bool(promised))
        for seat in newcomers:
            self.seat_newcomer(seat)

    def _seat_leases(self) -> None:
        now = self.seating.now
        for hold in self.holds.values():
            self.ends[hold.id] = occupied_until(hold, self.rules, now)
            self.seating.take_lease(hold, now, self.ends[hold.id])

    # Step 1: keep what was promised.

    def _keep(self, promised: list[Seat]) -> None:
        lost: list[tuple[Seat, Reason]] = []
        for seat in promised:
            why = self._sit_as_promised(seat)
            if why is not None:
                lost.append((seat, why))
            self.seats[seat.demand.id] = seat
        self.hand_down({seat: (_promise(seat.demand).start_ms, why) for seat, why in lost})

    def hand_down(self, lost: Mapping[Seat, tuple[int, Reason]]) -> None:
        """Seats those who lost their slots; `lost` has the promised start and the cause of each."""
        promised = {seat: start for seat, (start, _) in lost.items()}
        for seat in hand_down(self.seating, self.seats.values(), promised):
            why = lost[seat][1] if seat in lost else Reason.QUEUE_PLANNED_AGAIN
            self.moved_later[seat.demand.id] = why

    def _sit_as_promised(self, seat: Seat) -> Reason | None:
        """Takes the promised slot; says why not if that cannot be."""
        demand, now = seat.demand, self.seating.now
        promise = _promise(demand)
        numbers = [self.seating.number.get(name) for name in promise.nodes]
        nodes = tuple(number for number in numbers if number is not None)
        if len(nodes) < len(numbers):
            return Reason.NODE_GONE
        if not seat.may_use(nodes):
            return Reason.ELSEWHERE
        if not all(self.seating.nodes[number].available for number in nodes):
            return Reason.NODE_DRAINED
        late = now - promise.start_ms > self.rules.late_start_ms
        start = now if late else promise.start_ms
        end = start + demand.duration_ms
        if not self.seating.calendar.fits(nodes, start, end, demand.units_per_node):
            return Reason.STARTED_LATE if late else Reason.NODE_HELD_LONGER
        if not self.seating.in_quota(seat, max(start, now), end):
            return Reason.QUOTA_LOWERED
        if late:
            self.moved_later[demand.id] = Reason.STARTED_LATE
        self.seating.sit(seat, (start, nodes))
        return None

    # Step 2: improve.

    def improve(self, *, everyone: bool = False) -> None:
        """Offers earlier starts until nobody can be improved.

        Asks only those who might gain from what was given back, or `everyone` once.
        """
        seating, now = self.seating, self.seating.now
        waiting = sorted(self.seats.values(), key=by_key)
        while everyone or seating.fresh:
            gains = seating.gains()
            might_gain = gains.anywhere if everyone else gains.possible
            for seat in waiting:
                if seat.start > now and seat.start > seat.not_before and might_gain(seat):
                    place = seating.better(seat)
                    if place is not None:
                        seating.lift(seat)
                        seating.sit(seat, place)
            everyone = False

    # Step 3: newcomers.

    def place_for(self, seat: Seat) -> Place | Reason:
        """Where a newcomer would sit."""
        earliest = max(self.seating.now, seat.not_before)
        if seat.demand.booked_start_ms is not None:
            return self.seating.find_exactly(seat, earliest) or Reason.BOOKED_START_TAKEN
        return self.seating.find_some(seat, earliest)

    def seat_newcomer(self, seat: Seat) -> None:
        place = self.place_for(seat)
        if isinstance(place, Reason):
            self.refuse(seat.demand, place)
            return
        self.seating.sit(seat, place)
        self.seats[seat.demand.id] = seat

    def refuse(self, demand: Demand, why: Reason) -> None:
        """Remembers that there is no place for `demand`, and so no promise any more."""
        self.refused[demand.id] = replace(demand, promise=None), why

    # What others see.

    def slot(self, place: Place, demand: Demand) -> Slot:
        """A place in the caller's words."""
        start, nodes = place
        names = self.seating.names
        if len(nodes) == 1:
            return Slot(start, names[nodes[0]], demand.units_per_node)
        return Slot(start, tuple([names[at][0] for at in nodes]), demand.units_per_node)


def _still_promised(demand: Demand) -> bool:
    """Whether the promise still says what the demand asks for; else it counts as a newcomer."""
    promise = demand.promise
    if promise is None:
        return False
    booked, not_before = demand.booked_start_ms, demand.not_before_ms
    return (
        len(promise.nodes) == demand.nodes
        and promise.units_per_node == demand.units_per_node
        and (booked is None or booked <= promise.start_ms)
        and (not_before is None or not_before <= promise.start_ms)
    )


def _promise(demand: Demand) -> Slot:
    if demand.promise is None:
        raise AssertionError(f"{demand.id}: has no promise")
    return demand.promise
