"""Histories of the planner alone, long and quick, and a ledger that holds it to its promises.

A history is a small fleet with a queue: arrivals, bookings, early ends, cancellations, extensions,
drains, servers that end too late and a service that is away. The ledger knows what was promised to
whom first, and which causes were named; it shares nothing with the planner. It names none itself: a
start is late because the service was away when it was due, which the history of events knows.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gpudev_service.planner import (
    Changes,
    Demand,
    Extension,
    Hold,
    Node,
    Reason,
    Rules,
    Slot,
    World,
    plan,
)
from gpudev_service.store import invariants

SECOND = 1_000
MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
TURNOVER = 15 * SECOND
PUNCTUAL = round(invariants.PUNCTUAL.total_seconds() * SECOND)
UNITS = 8


class Broken(AssertionError):  # noqa: N818 - it is what was looked for
    """A promise was broken without a cause, or a GPU given to two."""


@dataclass
class Ledger:
    """Who was promised what."""

    first: dict[str, int] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)
    caused: set[str] = field(default_factory=set)
    used: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def told(self, changes: Changes, now: int) -> None:
        """What an event changed for those who wait. Whoever is due, and sits elsewhere now, is due
        as before: that they are late is said when they begin."""
        for key, why in (changes.moved_later | changes.impossible).items():
            if key in self.first:
                self.caused.add(key)
                self.counts[f"cause {why}"] += 1
        for key in changes.impossible:
            self.latest.pop(key, None)
        for key, slot in changes.slots.items():
            before = self.latest.get(key)
            if before is not None and before < slot.start_ms <= now:
                continue
            if before is not None and slot.start_ms > before and key not in changes.moved_later:
                raise Broken(f"{key} moved from {before} to {slot.start_ms} in silence")
            self.first.setdefault(key, slot.start_ms)
            self.latest[key] = slot.start_ms

    def begun(self, key: str, hold: Hold, now: int, *, missed: bool = False) -> None:
        """A start, and whether the service was away when it was due, and says so."""
        self.counts["starts"] += 1
        if now > self.latest[key] + PUNCTUAL:
            if not missed:
                raise Broken(f"{key} was due {self.latest[key]} and began {now}")
            self.caused.add(key)
            self.counts[f"cause {Reason.STARTED_LATE}"] += 1
        if now > self.first[key] + PUNCTUAL:
            if key not in self.caused:
                raise Broken(f"{key} was promised {self.first[key]} and began {now}")
            self.counts["later with a cause"] += 1
        self.used.update(hold.units)
        over = [node for node in hold.units if self.used[node] > UNITS]
        if over:
            raise Broken(f"{key} begins on {over}, where others hold the units")
        self.latest.pop(key)

    def ended(self, hold: Hold) -> None:
        self.used.subtract(hold.units)


class Stateless:
    """The planner as the service asks it: everything anew at each event, promises given along."""

    def __init__(self, nodes: list[Node], rules: Rules, now: int) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._holds: dict[str, Hold] = {}
        self._demands: dict[str, Demand] = {}
        self._rules, self.now_ms = rules, now

    def add(self, demand: Demand) -> Changes:
        self._demands[demand.id] = demand
        return self._plan()

    def remove(self, key: str) -> Changes:
        del self._demands[key]
        return self._plan()

    def begin(self, key: str, hold: Hold) -> Changes:
        del self._demands[key]
        self._holds[hold.id] = hold
        return self._plan()

    def release(self, key: str) -> Changes:
        del self._holds[key]
        return self._plan()

    def extend(self, key: str, until_ms: int) -> Changes:
        self._holds[key] = replace(self._holds[key], until_ms=until_ms)
        return self._plan()

    def set_available(self, changes: Mapping[str, bool]) -> Changes:
        for node, available in changes.items():
            self._nodes[node] = replace(self._nodes[node], available=available)
        return self._plan()

    def advance(self, now_ms: int) -> Changes:
        self.now_ms = now_ms
        return self._plan()

    def max_extension(self, key: str, wanted: int) -> Extension:
        promised = [demand for demand in self._demands.values() if demand.promise is not None]
        state = (self._nodes.values(), self._holds.values(), promised)
        return World(*state, self._rules, self.now_ms).max_extension(key, wanted)

    def _plan(self) -> Changes:
        state = (self._nodes.values(), self._holds.values(), self._demands.values())
        made = plan(*state, self._rules, self.now_ms)
        before = {key: demand.promise for key, demand in self._demands.items()}
        for key in self._demands:
            promised = replace(self._demands[key], promise=made.slots.get(key))
            self._demands[key] = promised
        changed = {key: slot for key, slot in made.slots.items() if slot != before[key]}
        gone = {k: why for k, why in made.impossible.items() if before[k] is not None}
        return Changes(changed, dict(made.moved_later), gone)


@dataclass
class History:
    """One seeded history of `reservations` requests."""

    seed: int
    reservations: int
    stateless: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"promises {self.seed}")
        self._now = HOUR
        rules = Rules(overstay_ms=TURNOVER, late_start_ms=MINUTE)
        nodes = [Node(f"n{at}", "h100", UNITS) for at in range(self._rng.randint(2, 6))]
        self._nodes = [node.name for node in nodes]
        self._world: World | Stateless = (
            Stateless(nodes, rules, self._now)
            if self.stateless
            else World(nodes, (), (), rules, self._now)
        )
        self._slots: dict[str, Slot] = {}
        self._demands: dict[str, Demand] = {}
        self._holds: dict[str, Hold] = {}
        self._ends: list[tuple[int, str]] = []
        self._starts: list[tuple[int, str]] = []
        self._made = 0
        self._away_until = 0

    def run(self) -> Ledger:
        """Raises `Broken` for the first promise that is not kept."""
        load = self._rng.uniform(0.7, 1.6)
        while self._made < self.reservations:
            self._pass_until(self._now + round(self._rng.expovariate(1) * 20 * MINUTE / load))
            self._something()
        while self._slots or self._holds:
            self._pass_until(self._now + HOUR)
            for node in self._nodes:
                self._hear(self._world.set_available({node: True}))
        return self.ledger

    def _something(self) -> None:
        acts = (self._arrive, self._end_early, self._cancel, self._extend, self._drain, self._away)
        self._rng.choices(acts, (60, 14, 6, 14, 3, 1))[0]()

    def _hear(self, changes: Changes) -> None:
        self.ledger.told(changes, self._now)
        for key in changes.impossible:
            self._slots.pop(key, None)
        for key, slot in changes.slots.items():
            self._slots[key] = slot
            heapq.heappush(self._starts, (slot.start_ms, key))

    # --- time ---------------------------------------------------------------------------------

    def _pass_until(self, until: int) -> None:
        while True:
            self._forget_old()
            start = max(self._starts[0][0], self._away_until) if self._starts else until
            end = max(self._ends[0][0], self._away_until) if self._ends else until
            moment = max(self._now, min(until, start, end))
            if moment > self._now:
                self._now = moment
                self._hear(self._world.advance(moment))
            if moment < self._away_until or not (self._end_due() or self._start_due()):
                if moment >= until:
                    return
                continue

    def _forget_old(self) -> None:
        """Heads of the heaps that are not true any more."""
        while self._starts:
            start, key = self._starts[0]
            if key in self._slots and self._slots[key].start_ms == start:
                break
            heapq.heappop(self._starts)
        while self._ends and self._ends[0][1] not in self._holds:
            heapq.heappop(self._ends)

    def _end_due(self) -> bool:
        if not self._ends or self._ends[0][0] > self._now:
            return False
        at, key = heapq.heappop(self._ends)
        hold = self._holds.get(key)
        if hold is None:
            return True
        left = hold.until_ms - TURNOVER - at
        if left > 0:  # it has been extended meanwhile
            heapq.heappush(self._ends, (at + left, key))
        elif self._rng.random() < 0.005:  # its server does not end in time
            heapq.heappush(self._ends, (hold.until_ms + self._rng.randrange(5 * MINUTE), key))
        else:
            self._release(key)
        return True

    def _start_due(self) -> bool:
        self._forget_old()
        if not self._starts or self._starts[0][0] > self._now:
            return False
        _, key = heapq.heappop(self._starts)
        slot, demand = self._slots.pop(key), self._demands.pop(key)
        until = min(self._now, slot.start_ms) + demand.duration_ms
        hold = Hold(key, dict.fromkeys(slot.nodes, slot.units_per_node), until)
        missed = self.ledger.latest[key] < self._away_until
        self.ledger.begun(key, hold, self._now, missed=missed)
        self._holds[key] = hold
        heapq.heappush(self._ends, (until - TURNOVER, key))
        self._hear(self._world.begin(key, hold))
        return True

    # --- what happens -------------------------------------------------------------------------

    def _arrive(self) -> None:
        rng, self._made = self._rng, self._made + 1
        gang = rng.random() < 0.08
        booked = self._now + rng.randrange(HOUR, 24 * HOUR) if rng.random() < 0.1 else None
        demand = Demand(
            id=f"d{self._made}",
            pool="h100",
            nodes=2 if gang else 1,
            units_per_node=UNITS if gang else rng.choice((1, 1, 1, 2, 2, 4, 8)),
            duration_ms=rng.randrange(5 * MINUTE, 8 * HOUR) + TURNOVER,
            priority=rng.choice((0, 0, 0, 5)),
            order=self._made,
            booked_start_ms=booked,
        )
        self._demands[demand.id] = demand
        changes = self._world.add(demand)
        self._hear(changes)
        if demand.id not in self._slots:  # the service refuses what cannot be promised
            del self._demands[demand.id]
            self._hear(self._world.remove(demand.id))
            self.ledger.counts["refused"] += 1
        else:
            self.ledger.counts["accepted"] += 1

    def _end_early(self) -> None:
        if self._holds:
            self._release(self._rng.choice(list(self._holds)))

    def _release(self, key: str) -> None:
        self.ledger.ended(self._holds.pop(key))
        self._hear(self._world.release(key))

    def _cancel(self) -> None:
        if self._slots:
            key = self._rng.choice(list(self._slots))
            del self._slots[key], self._demands[key]
            self.ledger.latest.pop(key, None)
            self.ledger.counts["cancelled"] += 1
            self._hear(self._world.remove(key))

    def _extend(self) -> None:
        current = [k for k, hold in self._holds.items() if hold.until_ms - TURNOVER > self._now]
        if not current:
            return
        key = self._rng.choice(current)
        wanted = self._rng.randrange(MINUTE, 6 * HOUR)
        granted = self._world.max_extension(key, wanted).granted_ms
        if granted > 0:
            self.ledger.counts["extended"] += 1
            longer = replace(self._holds[key], until_ms=self._holds[key].until_ms + granted)
            self._holds[key] = longer
            self._hear(self._world.extend(key, longer.until_ms))

    def _drain(self) -> None:
        node, available = self._rng.choice(self._nodes), self._rng.random() < 0.6
        self.ledger.counts["drains"] += not available
        self._hear(self._world.set_available({node: available}))

    def _away(self) -> None:
        """The service is away: nothing begins and nothing ends."""
        self._away_until = self._now + self._rng.choice((20 * SECOND, 3 * MINUTE, HOUR))
