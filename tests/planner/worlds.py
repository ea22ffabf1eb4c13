"""Small worlds for the planner's tests, and a naive judge of plans.

The judge shares nothing with the planner: it looks at every moment at which something begins or
ends, and tries every start that could be the earliest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from gpudev_service.planner import (
    Demand,
    Extension,
    Hold,
    Node,
    Plan,
    Quota,
    Reason,
    Rules,
    Slot,
    World,
    plan,
)
from gpudev_service.planner.seats import queue_key

NOW = 1_000
RULES = Rules(overstay_ms=3, late_start_ms=2)


@dataclass(frozen=True)
class State:
    """What `plan` takes."""

    nodes: list[Node]
    holds: list[Hold]
    demands: list[Demand]
    rules: Rules = RULES
    now: int = NOW

    @property
    def args(self) -> tuple[list[Node], list[Hold], list[Demand], Rules, int]:
        return self.nodes, self.holds, self.demands, self.rules, self.now

    def promised(self, plan: Plan) -> State:
        """The same state with everyone's slot in `plan` as their promise."""
        return replace(
            self, demands=[replace(d, promise=plan.slots.get(d.id)) for d in self.demands]
        )


def starts(state: State) -> dict[str, int]:
    """Everyone's start, in hours from now."""
    return {name: slot.start_ms - NOW for name, slot in plan(*state.args).slots.items()}


def what_if(state: State, demand: Demand) -> Slot | Reason:
    """The slot that `plan` would give `demand` beside the others."""
    ahead = [
        other
        for other in state.demands
        if other.promise is not None or queue_key(other) < queue_key(demand)
    ]
    return World(*replace(state, demands=ahead).args).what_if(demand)


def max_extension(state: State, hold_id: str, wanted_ms: int) -> Extension:
    """How much longer, up to `wanted_ms`, a lease may stay so that no promised start moves later.
    Who has no promise is not in the way of anything."""
    promised = [demand for demand in state.demands if demand.promise is not None]
    return World(*replace(state, demands=promised).args).max_extension(hold_id, wanted_ms)


def lease(name: str, node: str, hours: int, units: int = 8, key: str | None = None) -> Hold:
    return Hold(name, {node: units}, NOW + hours, (key,) if key else ())


def fleet(count: int, units: int = 8, pool: str = "h100") -> list[Node]:
    return [Node(f"n{at}", pool, units) for at in range(count)]


def demand(
    name: str,
    units: int = 8,
    hours: int = 10,
    *,
    nodes: int = 1,
    priority: int = 0,
    order: int = 0,
    not_before: int | None = None,
    booked: int | None = None,
    promise: Slot | None = None,
    pool: str = "h100",
    quotas: tuple[Quota, ...] = (),
    among: frozenset[str] | None = None,
) -> Demand:
    return Demand(
        id=name,
        pool=pool,
        nodes=nodes,
        units_per_node=units,
        duration_ms=hours,
        priority=priority,
        order=order,
        not_before_ms=not_before,
        booked_start_ms=booked,
        promise=promise,
        quotas=quotas,
        among=among,
    )


# Strategies. Times are tiny, so that ends and starts meet often.


@st.composite
def states(draw: st.DrawFn, *, most_demands: int = 9, drains: bool = True) -> State:
    units = draw(st.integers(1, 4))
    nodes = [
        Node(f"n{at}", "h100", units, not drains or draw(st.integers(0, 7)) > 0)
        for at in range(draw(st.integers(1, 4)))
    ]
    ada, bob, lab = (Quota(key, draw(st.integers(1, 2 * units))) for key in ("ada", "bob", "lab"))
    quotas = st.sampled_from([(), (), (ada,), (bob,), (ada, lab)])
    holds = []
    for node in nodes:
        left = units
        for at in range(draw(st.integers(0, 2))):
            if left:
                taken = draw(st.integers(1, left))
                left -= taken
                until = NOW + draw(st.integers(-4, 12))
                keys = tuple(quota.key for quota in draw(quotas))
                holds.append(Hold(f"hold-{node.name}-{at}", {node.name: taken}, until, keys))
    demands = [
        draw(demands_of(units, f"d{at}", at, quotas))
        for at in range(draw(st.integers(0, most_demands)))
    ]
    return State(nodes, holds, demands)


@st.composite
def demands_of(
    draw: st.DrawFn,
    units: int,
    name: str,
    order: int,
    quotas: st.SearchStrategy[tuple[Quota, ...]],
) -> Demand:
    nodes = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kind = draw(st.integers(0, 9))
    return demand(
        name,
        units if nodes > 1 else draw(st.integers(1, units)),
        draw(st.integers(1, 8)),
        nodes=nodes,
        priority=draw(st.sampled_from([0, 0, 5])),
        order=order,
        booked=NOW + draw(st.integers(0, 20)) if kind == 0 else None,
        not_before=NOW + draw(st.integers(-3, 10)) if kind == 1 else None,
        quotas=draw(quotas),
        among=draw(_AREAS),
    )


#: Mostly anywhere; some of the names may be of no node.
_AREAS = st.sampled_from(
    [None, None, None, frozenset({"n0"}), frozenset({"n1", "n2"}), frozenset({"n0", "n1", "n3"})]
)


def newcomer(state: State, name: str = "new", order: int = 10_000) -> st.SearchStrategy[Demand]:
    known = sorted({quota for each in state.demands for quota in each.quotas})
    quotas = st.sampled_from([(), *((quota,) for quota in known)])
    return demands_of(state.nodes[0].units, name, order, quotas)


# The judge.


@dataclass(frozen=True)
class Span:
    """Units taken on a node over [start, end)."""

    start: int
    end: int
    node: str
    units: int
    keys: tuple[str, ...]
    demand: str | None


def _keys(each: Demand) -> tuple[str, ...]:
    return tuple(quota.key for quota in each.quotas)


def held_until(hold: Hold, rules: Rules, now: int) -> int:
    end = hold.until_ms
    while end <= now:
        end += rules.overstay_ms
    return end


def spans(state: State, slots: dict[str, Slot], *, without: str | None = None) -> list[Span]:
    """Everything that is taken: leases and slots."""
    found = [
        Span(state.now, held_until(h, state.rules, state.now), node, units, h.quota_keys, None)
        for h in state.holds
        for node, units in h.units.items()
    ]
    for each in state.demands:
        slot = slots.get(each.id)
        if slot is not None and each.id != without:
            end = slot.start_ms + each.duration_ms
            begin = max(slot.start_ms, state.now)
            found += [
                Span(begin, end, node, slot.units_per_node, _keys(each), each.id)
                for node in slot.nodes
            ]
    return found


def faults(state: State, plan: Plan) -> list[str]:
    """Everything that is wrong with a plan at any moment, in words."""
    taken = spans(state, plan.slots)
    found: list[str] = []
    for moment in sorted({span.start for span in taken}):
        at_once = [span for span in taken if span.start <= moment < span.end]
        found += _overfull(state, at_once, moment) + _above_quota(state, at_once, moment)
    for each in state.demands:
        if each.id in plan.slots:
            found += _ill_served(state, plan, each)
        elif each.id not in plan.impossible:
            found.append(f"{each.id} has neither slot nor reason")
    return found


def _overfull(state: State, at_once: list[Span], moment: int) -> list[str]:
    used = {node.name: 0 for node in state.nodes}
    for span in at_once:
        used[span.node] += span.units
    return [
        f"{used[node.name]} of {node.units} units of {node.name} at {moment}"
        for node in state.nodes
        if used[node.name] > node.units
    ]


def _above_quota(state: State, at_once: list[Span], moment: int) -> list[str]:
    """Leases may be above a quota that was lowered; nothing new may begin then."""
    found: list[str] = []
    for key, limit in sorted({quota for each in state.demands for quota in each.quotas}):
        mine = [span for span in at_once if key in span.keys]
        begins = any(span.demand is not None and span.start == moment for span in mine)
        if begins and sum(span.units for span in mine) > limit:
            found.append(f"{key} above {limit} at {moment}")
    return found


def _ill_served(state: State, plan: Plan, each: Demand) -> list[str]:
    """What the demand asked for and its slot does not give."""
    slot, booked = plan.slots[each.id], each.booked_start_ms
    available = {node.name for node in state.nodes if node.available}
    wrong = {
        "has the wrong shape": len(set(slot.nodes)) != each.nodes
        or slot.units_per_node != each.units_per_node,
        "on a drained node": not available.issuperset(slot.nodes),
        "on a node of others": each.among is not None and not each.among.issuperset(slot.nodes),
        "in the past": slot.start_ms < state.now and each.promise is None,
        "before its time": each.not_before_ms is not None and slot.start_ms < each.not_before_ms,
        "not at its booked start": booked is not None
        and slot.start_ms != booked
        and each.id not in plan.moved_later,
    }
    return [f"{each.id} {fault}: {slot}" for fault, is_so in wrong.items() if is_so]


def earliest_start(state: State, slots: dict[str, Slot], each: Demand) -> int:
    """The earliest start for a demand beside everybody else's slots, by trying them all."""
    taken = spans(state, slots, without=each.id)
    first = max(state.now, each.not_before_ms or 0)
    starts = sorted({first} | {span.end for span in taken if span.end > first})
    return next(start for start in starts if _is_free(state, taken, each, start))


def _is_free(state: State, taken: Iterable[Span], each: Demand, start: int) -> bool:
    end = start + each.duration_ms
    near = [span for span in taken if span.start < end and span.end > start]
    moments = sorted({start} | {span.start for span in near if span.start > start})
    free = 0
    for node in state.nodes:
        most = max(
            sum(s.units for s in near if s.node == node.name and s.start <= moment < s.end)
            for moment in moments
        )
        usable = node.available and (each.among is None or node.name in each.among)
        free += usable and node.units - most >= each.units_per_node
    mine = each.units_per_node * each.nodes
    for key, limit in each.quotas:
        for moment in moments:
            used = sum(s.units for s in near if key in s.keys and s.start <= moment < s.end)
            if used + mine > limit:
                return False
    return free >= each.nodes
