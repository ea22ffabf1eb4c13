"""Who sits where: the seats of one pool's demands in its calendar, under its quotas.

`Seating` is the bookkeeping: it seats, lifts and searches, and keeps calendar and quotas in step.
In which order demands are seated, and who may be moved, is decided in `pool`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter

from .calendar import Calendar
from .gains import Fresh, Gains
from .holes import NO_WINDOWS, Window
from .model import Demand, Hold, Node, Order, Reason, keys
from .profiles import FOREVER
from .quota import Usage

#: (start, nodes by number)
Place = tuple[int, tuple[int, ...]]


class Seat:
    """A demand and where it sits: [start, end) on `nodes`, which is empty while it has no place."""

    __slots__ = ("among", "demand", "end", "key", "nodes", "not_before", "quotas", "shape", "start")

    def __init__(self, demand: Demand, among: frozenset[int] | None) -> None:
        self.demand = demand
        #: The keys of its quotas.
        self.quotas = keys(demand.quotas)
        #: The numbers of the nodes that it may use; None: all.
        self.among = among
        #: What it needs on a node, roughly: units, and bits of the duration.
        self.shape = demand.units_per_node, demand.duration_ms.bit_length()
        #: Its place in the queue.
        self.key = queue_key(demand)
        #: Before this it may not start, whatever is free; 0 if nothing is said.
        self.not_before = demand.not_before_ms or 0
        if demand.booked_start_ms is not None and demand.booked_start_ms > self.not_before:
            self.not_before = demand.booked_start_ms
        self.start = 0
        self.end = 0
        self.nodes: tuple[int, ...] = ()

    def may_use(self, nodes: tuple[int, ...]) -> bool:
        """Whether the demand may be on all of these nodes."""
        return self.among is None or self.among.issuperset(nodes)


class Seating:
    """The calendar and the quotas of one pool at one moment."""

    def __init__(self, nodes: Iterable[Node], now: int) -> None:
        self.nodes = list(nodes)
        #: Each node's name, as the nodes of a slot on that node alone.
        self.names = [(node.name,) for node in self.nodes]
        self.number = {node.name: at for at, node in enumerate(self.nodes)}
        self._possible: dict[tuple[int, int, frozenset[int] | None], Reason | None] = {}
        self._areas: dict[frozenset[str], frozenset[int]] = {}
        self._least = FOREVER
        self._first_start = FOREVER  # nobody starts before this, as far as it is known
        #: What has been given back, for whoever looks who might gain from it.
        self.fresh = Fresh()
        #: Who sat down or got up, and the place of before, for whoever tells of changes.
        self.touched: dict[str, Place | None] = {}
        self.clear(now)

    def clear(self, now: int) -> None:
        """Forgets who sits where; the nodes are as if nothing ran on them."""
        self.now = now
        self.calendar = Calendar(
            now, [node.units for node in self.nodes], [node.available for node in self.nodes]
        )
        self.calendar.expect(self._least)
        self.fresh.take()
        self._first_start = FOREVER
        self._usage: dict[str, Usage] = {}

    def without(self, seats: Iterable[Seat]) -> Seating:
        """A copy in which the places of `seats` are free; the seats themselves know nothing of it.

        With `take` it can be filled again.
        """
        twin = Seating(self.nodes, self.now)
        twin._least = self._least
        twin.calendar = self.calendar.copy()
        twin._usage = {key: usage.copy() for key, usage in self._usage.items()}
        for seat in seats:
            twin.give(seat)
        return twin

    def new_seat(self, demand: Demand) -> Seat:
        """A seat for `demand`, which has no place yet."""
        if demand.duration_ms < self._least:
            self._least = demand.duration_ms
            self.calendar.expect(self._least)
        return Seat(demand, self._area(demand.among))

    def _area(self, names: frozenset[str] | None) -> frozenset[int] | None:
        if names is None:
            return None
        area = self._areas.get(names)
        if area is None:
            numbers = [self.number[name] for name in names if name in self.number]
            area = self._areas[names] = frozenset(numbers)
        return area

    def take_lease(self, hold: Hold, start: int, end: int) -> None:
        """Takes a lease's units over [start, end)."""
        for node, units in self._nodes_of(hold):
            self.calendar.take((node,), start, end, units)
        self._use(hold.quota_keys, start, end, self._units_of(hold))

    def give_lease(self, hold: Hold, start: int, end: int) -> None:
        """Gives back what was taken with the same arguments."""
        for node, units in self._nodes_of(hold):
            self.calendar.give((node,), start, end, units)
            self.fresh.note((node,), (), start, end)
        self._use(hold.quota_keys, start, end, -self._units_of(hold))
        self.fresh.note((), hold.quota_keys, start, end)

    def sit(self, seat: Seat, place: Place) -> None:
        """Takes `place` for `seat`."""
        self.touched.setdefault(seat.demand.id)
        seat.start, seat.nodes = place
        self._first_start = min(self._first_start, seat.start)
        seat.end = seat.start + seat.demand.duration_ms
        self.take(seat)

    def lift(self, seat: Seat) -> None:
        """Gives the seat's place back."""
        self.give(seat)
        self.fresh.note(seat.nodes, seat.quotas, seat.start, seat.end)
        self.touched.setdefault(seat.demand.id, (seat.start, seat.nodes))
        seat.nodes = ()

    def starts_by(self, moment: int, seats: Collection[Seat]) -> bool:
        """Whether any of `seats`, which are all that have a place, starts at `moment` or before.
        They are looked at only where it may be."""
        if self._first_start <= moment:
            self._first_start = min([seat.start for seat in seats], default=FOREVER)
        return self._first_start <= moment

    def take(self, seat: Seat) -> None:
        """Takes what is under the seat."""
        demand = seat.demand
        self.calendar.take(seat.nodes, seat.start, seat.end, demand.units_per_node)
        if seat.quotas:
            self._use_by(seat, demand.units_per_node * demand.nodes)

    def give(self, seat: Seat) -> None:
        """Gives back what is under the seat."""
        demand = seat.demand
        self.calendar.give(seat.nodes, seat.start, seat.end, demand.units_per_node)
        if seat.quotas:
            self._use_by(seat, -demand.units_per_node * demand.nodes)

    def fits(self, seat: Seat, place: Place) -> bool:
        """Whether `place` is free for the demand, in nodes and quotas."""
        start, nodes = place
        begin, end = max(start, self.now), start + seat.demand.duration_ms
        return self.calendar.fits(nodes, begin, end, seat.demand.units_per_node) and self.in_quota(
            seat, begin, end
        )

    def in_quota(self, seat: Seat, start: int, end: int) -> bool:
        """Whether the demand's quotas have room for it throughout [start, end)."""
        return all(
            usage.earliest(start, end - start, most) == start
            for usage, most in self._left_by_others(seat.demand)
        )

    def find(self, seat: Seat, earliest: int, before: int = FOREVER) -> Place | None:
        """The first place for a seat that has none, with a start in [earliest, before)."""
        if seat.quotas:
            return self._find_in_quota(seat, earliest, before)
        return self._find_on_nodes(seat, earliest, before)

    def find_some(self, seat: Seat, earliest: int) -> Place:
        """The first place from `earliest` on for a seat that is not impossible: there is one."""
        place = self.find(seat, earliest)
        if place is None:
            raise AssertionError(f"{seat.demand.id}: fits an empty pool and found no place")
        return place

    def find_no_later(self, seat: Seat, promised_start: int) -> Place | None:
        """The first place that starts no later than promised, or now where that is past."""
        earliest = max(self.now, seat.not_before)
        return self.find(seat, earliest, max(promised_start, earliest) + 1)

    def find_exactly(self, seat: Seat, start: int) -> Place | None:
        """A place with exactly this start."""
        return self.find(seat, start, start + 1)

    def room_at(self, seat: Seat, start: int, count: int) -> list[int]:
        """Up to `count` nodes that have room for the seat from `start` on."""
        units, duration = seat.demand.units_per_node, seat.demand.duration_ms
        return self.calendar.room_at(start, units, duration, count, seat.among)

    def better(self, seat: Seat) -> Place | None:
        """The first place that starts before the seat's own, as if that were given back."""
        demand = seat.demand
        earliest = max(self.now, seat.not_before)
        before = seat.start
        if seat.quotas:
            earliest = self._quota_start(seat, earliest, before)
            if earliest >= before:
                return None
        own = self.calendar.freed_by(seat.nodes, before, seat.end, demand.units_per_node)
        if seat.quotas:
            return self._find_in_quota(seat, earliest, before, own, before)
        return self._find_on_nodes(seat, earliest, before, own)

    def gains(self) -> Gains:
        """Who might gain from what was given back."""
        return Gains(self.calendar, self.fresh, self.now)

    def impossible(self, seat: Seat) -> Reason | None:
        """Why the fleet can never hold the demand, even with nothing else on it; None if it can."""
        demand = seat.demand
        shape = demand.nodes, demand.units_per_node, seat.among
        if shape not in self._possible:
            self._possible[shape] = self._why_impossible(*shape)
        why = self._possible[shape]
        if why is None and seat.quotas:
            units = demand.nodes * demand.units_per_node
            if any(units > quota.most for quota in demand.quotas):
                return Reason.QUOTA_TOO_SMALL
        return why

    def set_available(self, name: str, available: bool) -> None:
        """Opens a node for new slots, or closes it."""
        at = self.number[name]
        node = self.nodes[at]
        self.nodes[at] = Node(node.name, node.pool, node.units, available)
        self.calendar.set_open(at, available)
        self._possible.clear()
        if available:
            self.fresh.note((at,), (), self.now, FOREVER)

    def _why_impossible(
        self, count: int, units: int, among: frozenset[int] | None
    ) -> Reason | None:
        if not self.nodes:
            return Reason.NO_SUCH_POOL
        big_enough = [node for node in self.nodes if node.units >= units]
        if not big_enough:
            return Reason.TOO_MANY_UNITS
        if len(big_enough) < count:
            return Reason.TOO_FEW_NODES
        if among is not None:
            big_enough = [node for node in big_enough if self.number[node.name] in among]
            if len(big_enough) < count:
                return Reason.ELSEWHERE
        if sum(node.available for node in big_enough) < count:
            return Reason.DRAINED
        return None

    def _find_on_nodes(
        self, seat: Seat, earliest: int, before: int, own: Mapping[int, Window] = NO_WINDOWS
    ) -> Place | None:
        """What the nodes have, whatever the quotas say."""
        demand = seat.demand
        return self.calendar.find(
            demand.nodes,
            demand.units_per_node,
            demand.duration_ms,
            earliest,
            before,
            own,
            seat.among,
        )

    def _find_in_quota(
        self,
        seat: Seat,
        earliest: int,
        before: int,
        own: Mapping[int, Window] = NO_WINDOWS,
        own_start: int = FOREVER,
    ) -> Place | None:
        """Nodes and quotas each name their first moment, in turn, until they agree."""
        start = self._quota_start(seat, earliest, own_start)
        while start < before:
            place = self._find_on_nodes(seat, start, before, own)
            if place is None:
                return None
            start = self._quota_start(seat, place[0], own_start)
            if start == place[0]:
                return place
        return None

    def _quota_start(self, seat: Seat, start: int, own_start: int = FOREVER) -> int:
        """The first moment from `start` on at which all the demand's quotas have room.

        With `own_start` what the seat has is its own (see `Usage.earliest`).
        """
        demand = seat.demand
        duration = demand.duration_ms
        if len(demand.quotas) == 1:  # the usual case
            key, most = demand.quotas[0]
            units = demand.units_per_node * demand.nodes
            return self._used(key).earliest(start, duration, most - units, own_start)
        limits = self._left_by_others(demand)
        while True:
            agreed = start
            for usage, most in limits:
                start = usage.earliest(start, duration, most, own_start)
            if start == agreed:
                return start

    def _nodes_of(self, hold: Hold) -> list[tuple[int, int]]:
        return [
            (self.number[name], units) for name, units in hold.units.items() if name in self.number
        ]

    def _units_of(self, hold: Hold) -> int:
        return sum(units for _, units in self._nodes_of(hold))

    def _used(self, key: str) -> Usage:
        usage = self._usage.get(key)
        if usage is None:
            usage = self._usage[key] = Usage(self.now)
        return usage

    def _left_by_others(self, demand: Demand) -> list[tuple[Usage, int]]:
        """What is used under each of its quotas, and the most of it with which there is room for
        the demand."""
        units = demand.units_per_node * demand.nodes
        return [(self._used(key), most - units) for key, most in demand.quotas]

    def _use_by(self, seat: Seat, units: int) -> None:
        self._use(seat.quotas, seat.start, seat.end, units)

    def _use(self, quotas: tuple[str, ...], start: int, end: int, units: int) -> None:
        """Counts `units` more, or fewer, over [start, end), as far as that is to come."""
        start = max(start, self.now)
        if start < end:
            for key in quotas:
                self._used(key).add(start, end, units)


#: Sorts seats into queue order.
by_key = attrgetter("key")


def queue_key(demand: Demand) -> tuple[bool, int, Order, str]:
    """Sorts into queue order: bookings first, as their time is fixed; by priority; by order."""
    return (demand.booked_start_ms is None, -demand.priority, demand.order, demand.id)
