"""A type's plan that lives on from one transaction to the next, and is told what has changed.

Reading and seating everybody anew for each arrival is most of the work of one. So the planner's
world is kept in the store's memory, and told who came and who went, whose lease ended or got
another end, and which nodes were closed or opened. Who can have no place is kept like everybody
else, as nothing but other or opened nodes gives them one. Whatever else may happen (other nodes, a
booking whose time has come or that never had a place) is left to a world that is made anew from the
rows: that is always right, and only takes longer. A simulation compares the two after each step.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gpudev_service import planner
from gpudev_service.context import Context
from gpudev_service.fleet import is_coming
from gpudev_service.settings import NodeSpec, Settings

from . import facts

#: No longer than this, in milliseconds, is anything kept: rows may be changed by hand.
_LONGEST_MS = 300_000


@dataclass(slots=True)
class Kept:
    """A planner's world with what it was made of, as a transaction leaves it. Everybody in
    `demands` has a seat, which is their promise, or neither. No booking's time comes before
    `booking_ms`. `limits` are the quotas that hold for them, by key; for what those who are
    `unlimited` have, none does."""

    settings: Settings
    fleet: Sequence[NodeSpec]
    since_ms: int
    nodes: list[planner.Node]
    holds: dict[str, planner.Hold]
    demands: dict[str, planner.Demand]
    live: planner.World
    booking_ms: float
    limits: dict[str, int]
    unlimited: set[str]


@dataclass(slots=True)
class Step:
    """What a plan comes to: who is to begin and where, who of the others gets another slot, and
    who can have none. `promised` is what each of these had before; `kept` what agrees with the rows
    once all this is written down."""

    promised: Mapping[str, planner.Slot | None]
    begun: dict[str, planner.Slot]
    slots: dict[str, planner.Slot]
    moved_later: Mapping[str, planner.Reason]
    impossible: Mapping[str, planner.Reason]
    kept: Kept | None


@dataclass(frozen=True, slots=True)
class _News:
    """What is different from what is kept."""

    gone: list[str]
    ends: dict[str, int]
    nodes: dict[str, bool]
    new: list[planner.Demand]

    def compare_lease(self, key: str, was: planner.Hold | None, now: planner.Hold | None) -> bool:
        """Adds what is different; False where that cannot be told."""
        if was == now:
            return True
        if was is not None and now is None:
            self.gone.append(key)
        elif was is not None and now is not None and was.units == now.units:
            self.ends[key] = now.until_ms
        else:
            return False
        return True

    def compare_demand(
        self, key: str, was: planner.Demand | None, now: planner.Demand | None
    ) -> bool:
        """Adds what is different; False where that cannot be told."""
        if was == now:
            return True
        if was is not None and now is None:
            self.gone.append(key)
        elif was is None and now is not None and now.promise is None:
            self.new.append(now)
        else:
            return False
        return True


def begin(ctx: Context, current: facts.World, now_ms: int) -> Step:
    """Plans from all rows."""
    made = _from_rows(ctx, current, now_ms)
    plan = made.live.plan()
    slots = {key: slot for key, slot in plan.slots.items() if slot != made.demands[key].promise}
    step = _done(made, planner.Changes(slots, plan.moved_later, {}))
    # A lease that was begun on another type is noted as that one's when it changes.
    return replace(step, kept=None) if current.moved else step


def to_ask(ctx: Context, current: facts.World, now_ms: int) -> tuple[Kept, bool]:
    """A world of all rows, for questions, and whether it may be kept: a plan made from it would
    change nothing."""
    made = _from_rows(ctx, current, now_ms)
    slots, refused = made.live.plan().slots, made.live.refused()
    agrees = (
        all(slots.get(key) == demand.promise for key, demand in made.demands.items())
        and all(_booking(made.demands[key]) is None for key in refused)
        and not (made.live.due() or current.moved or _may_get_nodes(made))
    )
    return made, agrees


def _from_rows(ctx: Context, current: facts.World, now_ms: int) -> Kept:
    return Kept(
        settings=ctx.settings,
        fleet=ctx.fleet.nodes(),
        since_ms=now_ms,
        nodes=current.nodes,
        holds={hold.id: hold for hold in current.holds},
        demands={demand.id: demand for demand in current.demands},
        live=planner.World(current.nodes, current.holds, current.demands, facts.rules(ctx), now_ms),
        booking_ms=_first_booking(current.demands),
        limits=_limits(current.demands),
        unlimited=set(current.unlimited),
    )


def _may_get_nodes(known: Kept) -> bool:
    """Whether there are nodes that are still to be added."""
    return any(is_coming(node.name) for node in known.nodes)


def go_on(
    known: Kept, ctx: Context, current: facts.World, stale: Collection[str], now_ms: int
) -> Step | None:
    """Plans from what is kept, as `current` has the nodes and the reservations `stale`, which may
    have changed. None where it has to be made anew."""
    news = _news(known, ctx, current, stale, now_ms)
    return None if news is None else _done(known, _take_in(known, ctx, current, news, now_ms))


def as_of(
    known: Kept, ctx: Context, current: facts.World, stale: Collection[str], now_ms: int
) -> bool:
    """Brings what is kept to `now_ms`, to be asked. False where that would change somebody's slot,
    which the rows do not have: then it is of no use any more. Another question may have brought it
    a moment further."""
    now_ms = max(now_ms, known.live.now_ms)
    news = _news(known, ctx, current, stale, now_ms)
    if news is None:
        return False
    changes = _take_in(known, ctx, current, news, now_ms)
    loses = any(known.demands[key].promise is not None for key in known.live.refused())
    return not (changes.slots or loses or known.live.due())


def _take_in(
    known: Kept, ctx: Context, current: facts.World, news: _News, now_ms: int
) -> planner.Changes:
    """Tells the kept world what is new."""
    live = known.live
    changes = live.advance(now_ms, news.gone)
    for key in news.gone:
        known.holds.pop(key, None)
        known.demands.pop(key, None)
    for key, until_ms in news.ends.items():
        _add(changes, live.extend(key, until_ms, override=True))
        known.holds[key] = replace(known.holds[key], until_ms=until_ms)
    if news.nodes:
        _add(changes, live.set_available(news.nodes))
    known.demands.update({demand.id: demand for demand in news.new})
    known.booking_ms = min(known.booking_ms, _first_booking(news.new))
    known.limits |= _limits(news.new)
    known.unlimited |= current.unlimited
    _add(changes, live.add(*news.new))
    known.nodes, known.fleet = current.nodes, ctx.fleet.nodes()
    return changes


def _is_good(known: Kept, ctx: Context, now_ms: int) -> bool:
    """Whether what is kept was made by the same rules, and time has changed none of it."""
    return (
        known.live.now_ms <= now_ms <= known.since_ms + _LONGEST_MS
        and known.settings is ctx.settings
        # Where a disk can be used, and which nodes have a label, may be different on other nodes.
        and (
            known.fleet is ctx.fleet.nodes()
            or all(demand.among is None for demand in known.demands.values())
        )
        and not _has_come(known, now_ms)
    )


def _has_come(known: Kept, now_ms: int) -> bool:
    """Whether somebody's booking is one no more since its time has come."""
    if known.booking_ms <= now_ms:
        # Those who have gone may have been the first.
        known.booking_ms = _first_booking(known.demands.values())
    return known.booking_ms <= now_ms


def _first_booking(demands: Iterable[planner.Demand]) -> float:
    times = map(_booking, demands)
    return min((at for at in times if at is not None), default=math.inf)


def _booking(demand: planner.Demand) -> int | None:
    """The time that is booked, or was until it was lost."""
    return demand.booked_start_ms or demand.not_before_ms


def _news(
    known: Kept, ctx: Context, current: facts.World, stale: Collection[str], now_ms: int
) -> _News | None:
    """What has changed, or None where it is more than a kept world can be told."""
    nodes = _nodes(known.nodes, current.nodes)
    if nodes is None or not _is_good(known, ctx, now_ms):
        return None
    news = _News([], {}, nodes, [])
    holds = {hold.id: hold for hold in current.holds}
    demands = {demand.id: demand for demand in current.demands}
    for key in sorted(stale):
        if not news.compare_lease(key, known.holds.get(key), holds.get(key)):
            return None
        if not news.compare_demand(key, known.demands.get(key), demands.get(key)):
            return None
    return None if _is_another_limit(known, current.unlimited, news.new) else news


def _is_another_limit(
    known: Kept, unlimited: frozenset[str], new: Iterable[planner.Demand]
) -> bool:
    """Whether somebody's quota is not the one by which they have been counted so far."""
    return not unlimited.isdisjoint(known.limits) or any(
        key in known.unlimited or known.limits.get(key, most) != most
        for key, most in _limits(new).items()
    )


def _limits(demands: Iterable[planner.Demand]) -> dict[str, int]:
    return {quota.key: quota.most for demand in demands for quota in demand.quotas}


def _nodes(before: list[planner.Node], now: list[planner.Node]) -> dict[str, bool] | None:
    """Which nodes were closed or opened; None where they are others."""
    if len(before) != len(now):
        return None
    changed = {}
    for was, node in zip(before, now, strict=True):
        if was is not node and was != node:
            if replace(was, available=node.available) != node:
                return None
            changed[node.name] = node.available
    return changed


def _add(changes: planner.Changes, more: planner.Changes) -> None:
    changes.slots.update(more.slots)
    changes.moved_later.update(more.moved_later)


def _done(made: Kept, changes: planner.Changes) -> Step:
    """Lets those begin who are due, and brings what is kept to what the rows will be."""
    promised: dict[str, planner.Slot | None] = {}
    begun: dict[str, planner.Slot] = {}
    while due := made.live.due():
        for key, slot in due.items():
            demand = made.demands.pop(key)
            promised[key] = demand.promise
            until_ms = slot.start_ms + demand.duration_ms
            units = dict.fromkeys(slot.nodes, slot.units_per_node)
            hold = planner.Hold(key, units, until_ms, planner.keys(demand.quotas))
            made.holds[key] = hold
            _add(changes, made.live.begin(key, hold))
        begun.update(due)
    impossible = made.live.refused()
    promised |= {key: made.demands[key].promise for key in impossible}
    slots = {}
    keeps = not _may_get_nodes(made)
    for key in impossible:
        # One that was never promised may have its time as soon as somebody else has gone.
        if _write_down(made, key, None).booked_start_ms is not None:
            keeps = False
    for key, slot in changes.slots.items():
        if key in begun or key in impossible or slot == made.demands[key].promise:
            continue
        slots[key] = slot
        promised[key] = made.demands[key].promise
        _write_down(made, key, slot)
    moved_later = {
        key: why
        for key, why in changes.moved_later.items()
        if key in slots and _is_later(slots[key], promised[key])
    }
    return Step(promised, begun, slots, moved_later, impossible, made if keeps else None)


def _write_down(made: Kept, key: str, slot: planner.Slot | None) -> planner.Demand:
    """The demand as the rows have it with this promise: whether a booking has lost its time, and
    starts as soon as it can from then on, is told by its promise. Without a promise it has lost
    it, too, unless it was never given any."""
    was = made.demands[key]
    booked, demand = _booking(was), replace(was, promise=slot)
    if booked is not None and (was.promise is not None or was.booked_start_ms is None or slot):
        lost = slot is None or slot.start_ms != booked
        demand = replace(
            demand,
            booked_start_ms=None if lost else booked,
            not_before_ms=booked if lost else None,
        )
        if demand.booked_start_ms != was.booked_start_ms:
            made.live.rebook(demand)
    made.demands[key] = demand
    return demand


def _is_later(slot: planner.Slot, before: planner.Slot | None) -> bool:
    return before is not None and slot.start_ms > before.start_ms
