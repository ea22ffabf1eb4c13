"""A world over time: events arrive, promises hold, and nothing is planned twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudev_service.planner import (
    Changes,
    Demand,
    Hold,
    Node,
    Quota,
    Reason,
    Rules,
    Slot,
    World,
    plan,
)

from .worlds import NOW, RULES, State, demand, earliest_start, faults, fleet, newcomer, states


def settled(state: State, world: World) -> None:
    """No rule is broken, and nobody could start earlier beside everybody else."""
    found = world.plan()
    # Who is late was told by the event that made them late.
    late = dict.fromkeys(found.slots, Reason.QUEUE_PLANNED_AGAIN)
    assert faults(state, replace(found, moved_later=late)) == []
    for each in state.demands:
        slot = found.slots.get(each.id)
        if slot is not None and slot.start_ms > state.now and each.booked_start_ms is None:
            assert slot.start_ms == earliest_start(state, found.slots, each)


@settings(max_examples=300, deadline=None)
@given(states(), st.data())
def test_events_keep_every_rule_and_leave_nobody_who_could_start_earlier(
    state: State, data: st.DataObject
) -> None:
    world = World(*state.args)
    known = world.plan().slots
    for step in range(data.draw(st.integers(1, 5))):
        state, changes = data.draw(st.sampled_from(EVENTS))(state, world, step, data)
        for key in list(known):
            if key not in {d.id for d in state.demands} or key in changes.impossible:
                del known[key]
        late = {
            key
            for key, slot in changes.slots.items()
            if key in known and slot.start_ms > max(known[key].start_ms, state.now)
        }
        assert late == set(changes.moved_later)
        known.update(changes.slots)
        assert world.plan().slots == known
        settled(state, world)


def _arrive(state: State, world: World, step: int, data: st.DataObject) -> tuple[State, Changes]:
    late = data.draw(newcomer(state, f"new{step}", 100 + step))
    return replace(state, demands=[*state.demands, late]), world.add(late)


def _cancel(state: State, world: World, step: int, data: st.DataObject) -> tuple[State, Changes]:
    if not state.demands:
        return _arrive(state, world, step, data)
    gone = data.draw(st.sampled_from(state.demands))
    return replace(state, demands=[d for d in state.demands if d != gone]), world.remove(gone.id)


def _release(state: State, world: World, step: int, data: st.DataObject) -> tuple[State, Changes]:
    if not state.holds:
        return _arrive(state, world, step, data)
    gone = data.draw(st.sampled_from(state.holds))
    return replace(state, holds=[h for h in state.holds if h != gone]), world.release(gone.id)


def _extend(state: State, world: World, step: int, data: st.DataObject) -> tuple[State, Changes]:
    if not state.holds:
        return _arrive(state, world, step, data)
    hold = data.draw(st.sampled_from(state.holds))
    granted = world.max_extension(hold.id, data.draw(st.integers(1, 15)))
    until = hold.until_ms + granted.granted_ms
    changes = world.extend(hold.id, until)
    assert changes.moved_later == {}
    longer = replace(hold, until_ms=until)
    return replace(state, holds=[longer if h == hold else h for h in state.holds]), changes


def _drain(state: State, world: World, step: int, data: st.DataObject) -> tuple[State, Changes]:
    nodes = data.draw(st.lists(st.sampled_from(state.nodes), min_size=1, max_size=3, unique=True))
    changes = world.set_available({node.name: not node.available for node in nodes})
    others = [replace(n, available=n.available != (n in nodes)) for n in state.nodes]
    return replace(state, nodes=others), changes


EVENTS = [_arrive, _cancel, _release, _extend, _drain]


@settings(max_examples=200, deadline=None)
@given(states(drains=False), st.data())
def test_nobody_starts_later_than_first_promised(state: State, data: st.DataObject) -> None:
    """A fleet without losses, run until all is done: leases begin, end early or on time."""
    rules, now = state.rules, state.now
    holds = {h.id: h for h in state.holds if h.until_ms > now}
    world = World(state.nodes, holds.values(), state.demands, rules, now)
    waiting = {d.id: d for d in state.demands if d.id not in world.plan().impossible}
    promised = {key: slot.start_ms for key, slot in world.plan().slots.items()}
    extra = 0
    while waiting:
        if holds and data.draw(st.integers(0, 3)) == 0:
            early = data.draw(st.sampled_from(sorted(holds)))
            world.release(early)
            del holds[early]
        if extra < 3 and data.draw(st.integers(0, 3)) == 0:
            extra += 1
            late = replace(
                data.draw(newcomer(state, f"late{extra}", 100 + extra)), booked_start_ms=None
            )
            got = world.add(late).slots.get(late.id)
            if got is not None:
                waiting[late.id], promised[late.id] = late, got.start_ms
        while True:
            for key in world.plan().start_now:
                slot = world.plan().slots[key]
                assert now <= promised[key]
                lease = waiting.pop(key)
                units = dict.fromkeys(slot.nodes, slot.units_per_node)
                keys = tuple(quota.key for quota in lease.quotas)
                until = slot.start_ms + lease.duration_ms
                holds[f"lease-{key}"] = Hold(f"lease-{key}", units, until, keys)
                assert world.begin(key, holds[f"lease-{key}"]).moved_later == {}
            # The turnover is part of `until_ms`: the units are free a moment before.
            over = [h.id for h in holds.values() if h.until_ms <= now + 1]
            for key in over:
                assert world.release(key).moved_later == {}
                del holds[key]
            if not over:
                break
        now += 1
        assert world.advance(now).moved_later == {}


def two_nodes(*demands: Demand, holds: tuple[Hold, ...] = ()) -> World:
    return World(fleet(2), holds, demands, RULES, NOW)


def test_an_arrival_is_told_its_slot_and_nothing_else_changes() -> None:
    world = two_nodes(demand("a"), demand("b"))
    assert world.add(demand("c", order=1)).slots == {"c": Slot(NOW + 10, ("n0",), 8)}


def test_an_early_end_goes_to_the_first_in_the_queue_who_fits() -> None:
    busy = (Hold("h0", {"n0": 8}, NOW + 100), Hold("h1", {"n1": 8}, NOW + 200))
    world = two_nodes(demand("pair", nodes=2), demand("a", order=1), holds=busy)
    assert world.plan().slots["pair"].start_ms == NOW + 200
    changes = world.release("h0")
    assert changes.slots == {"a": Slot(NOW, ("n0",), 8)}


def test_a_lease_that_begins_takes_the_place_of_its_promise() -> None:
    world = two_nodes(demand("a"), demand("b"), demand("c", order=1))
    slot = world.plan().slots["a"]
    lease = Hold("a", dict.fromkeys(slot.nodes, 8), slot.start_ms + 10)
    changes = world.begin("a", lease)
    assert (changes.slots, changes.moved_later) == ({}, {})
    assert set(world.plan().slots) == {"b", "c"}


def test_who_is_let_by_their_limit_goes_where_room_has_been_all_along() -> None:
    holds = (Hold("theirs", {"n0": 4}, NOW + 100, ("ada",)), Hold("long", {"n0": 4}, NOW + 200))
    world = two_nodes(demand("d", quotas=(Quota("ada", 8),)), holds=holds)
    assert world.plan().slots == {"d": Slot(NOW + 100, ("n1",), 8)}
    assert world.release("theirs").slots == {"d": Slot(NOW, ("n1",), 8)}


@pytest.mark.parametrize(("asked", "got"), [("", "lab"), ("ada", "lab"), ("lab", "ada")])
def test_a_lease_counts_under_what_it_has_got_not_what_it_asked_with(asked: str, got: str) -> None:
    """Whoever waits may be put into another group before they start."""
    world = two_nodes(demand("a", quotas=(Quota(asked, 8),) if asked else ()))
    world.begin("a", Hold("a", {"n0": 8}, NOW + 10, (got,)))
    for key in ("ada", "lab"):
        found = world.what_if(demand("b", order=1, quotas=(Quota(key, 8),)))
        assert isinstance(found, Slot)
        assert found.start_ms == (NOW + 10 if key == got else NOW)


@pytest.mark.parametrize(
    ("units", "until", "starts"),
    [
        ({"n1": 8}, NOW + 10, [NOW, NOW + 10, NOW + 10]),
        ({"n0": 4}, NOW + 10, [NOW, NOW + 10, NOW + 10]),
        ({"n0": 8, "n1": 8}, NOW + 10, [NOW + 10, NOW + 10, NOW + 20]),
        ({"n0": 8}, NOW + 99, [NOW, NOW + 10, NOW + 20]),
        ({"n0": 8}, NOW + 5, [NOW, NOW + 5, NOW + 10]),
    ],
)
def test_a_lease_that_begins_elsewhere_or_with_another_end_holds_what_it_holds(
    units: dict[str, int], until: int, starts: list[int]
) -> None:
    world = two_nodes(demand("a"))
    assert world.plan().slots == {"a": Slot(NOW, ("n0",), 8)}
    world.begin("a", Hold("a", units, until))
    for order, start in enumerate(starts, 1):
        key = f"d{order}"
        assert world.add(demand(key, order=order)).slots[key].start_ms == start


def test_an_extension_that_would_move_a_promise_is_refused_and_changes_nothing() -> None:
    busy = (Hold("h0", {"n0": 8}, NOW + 10), Hold("h1", {"n1": 8}, NOW + 10))
    world = two_nodes(demand("a"), demand("b"), holds=busy)
    before = world.plan()
    with pytest.raises(ValueError, match="would move later"):
        world.extend("h0", NOW + 11)
    assert world.plan() == before
    changes = world.extend("h0", NOW + 12, override=True)
    assert changes.moved_later["b"] in {Reason.QUEUE_PLANNED_AGAIN, Reason.NODE_HELD_LONGER}
    assert world.plan().slots["b"].start_ms == NOW + 12


def test_a_lease_that_overstays_moves_promises_once_a_step() -> None:
    world = World(fleet(1), [Hold("h", {"n0": 8}, NOW + 5)], [demand("a")], RULES, NOW)
    assert world.advance(NOW + 4).slots == {}
    late = world.advance(NOW + 5)
    assert late.moved_later == {"a": Reason.NODE_HELD_LONGER}
    assert late.slots["a"].start_ms == NOW + 8
    assert world.advance(NOW + 7).slots == {}
    assert world.advance(NOW + 8).slots["a"].start_ms == NOW + 11
    assert world.release("h").slots["a"].start_ms == NOW + 8


def test_who_is_gone_when_time_passes_is_neither_late_nor_overstays() -> None:
    world = World(
        fleet(1), [Hold("h", {"n0": 8}, NOW + 5)], [demand("a"), demand("b", order=1)], RULES, NOW
    )
    changes = world.advance(NOW + 9, gone=["h", "a"])
    assert changes.moved_later == {}
    assert changes.slots == {"b": Slot(NOW + 9, ("n0",), 8)}
    assert world.due() == {"b": Slot(NOW + 9, ("n0",), 8)}


def test_who_is_due_is_named_in_the_order_of_the_queue() -> None:
    world = two_nodes(demand("b", order=2), demand("a", order=1), demand("c", order=3))
    assert list(world.due()) == ["a", "b"]
    for name, slot in world.due().items():
        world.begin(name, Hold(name, dict.fromkeys(slot.nodes, 8), slot.start_ms + 10))
    assert world.due() == {}
    assert world.release("a").slots == {"c": Slot(NOW, ("n0",), 8)}


@settings(max_examples=100, deadline=None)
@given(states(), st.data())
def test_everybodys_place_in_the_line_is_by_start_and_then_by_who_came_first(
    state: State, data: st.DataObject
) -> None:
    world = World(*state.args)
    slots = world.plan().slots
    expected: dict[str, int] = {}
    for pool in {each.pool for each in state.demands}:
        line = [each for each in state.demands if each.pool == pool and each.id in slots]
        line.sort(key=lambda each: (slots[each.id].start_ms, -each.priority, each.order, each.id))
        expected |= {each.id: place for place, each in enumerate(line, 1)}
    everybody = [each.id for each in state.demands]
    assert world.places(everybody) == expected
    some = data.draw(st.lists(st.sampled_from(everybody), unique=True)) if everybody else []
    assert world.places([*some, "nobody"]) == {
        name: expected[name] for name in some if name in expected
    }


def test_equals_stand_in_the_line_in_the_order_of_the_queue() -> None:
    here = [
        demand("a", order=2),
        demand("b", order=1),
        replace(demand("c", order=3), priority=9),
        demand("d", order=9),
    ]
    world = World(fleet(3), [], here, RULES, NOW)
    assert world.places("abcd") == {"c": 1, "b": 2, "a": 3, "d": 4}
    assert world.places("a") == {"a": 3}
    assert world.places("") == {}


def test_who_can_have_no_slot_is_named_with_the_cause() -> None:
    world = two_nodes(demand("a", units=9), demand("b"))
    assert world.refused() == {"a": Reason.TOO_MANY_UNITS}
    world.advance(NOW + 1, gone=["a"])
    assert world.refused() == {}


def test_several_arrivals_are_seated_in_the_order_of_the_queue() -> None:
    world = World(fleet(1), [], [], RULES, NOW)
    slots = world.add(demand("b", order=2), demand("a", order=1)).slots
    assert slots["a"].start_ms == NOW
    assert slots["b"].start_ms == NOW + 10


def test_a_start_that_nobody_carries_out_moves_only_when_it_is_too_late() -> None:
    world = World(fleet(1), [], [demand("a"), demand("b", order=1)], RULES, NOW)
    assert world.advance(NOW + 2).slots == {}
    changes = world.advance(NOW + 3)
    assert changes.slots["a"].start_ms == NOW + 3
    assert changes.moved_later["a"] is Reason.STARTED_LATE
    assert changes.slots["b"].start_ms == NOW + 13


def test_nodes_that_come_back_give_a_slot_to_those_who_had_none() -> None:
    nodes = [Node("n0", "h100", 8, available=False)]
    world = World(nodes, [], [demand("a")], RULES, NOW)
    assert world.plan().impossible == {"a": Reason.DRAINED}
    assert world.set_available({"n0": True}).slots == {"a": Slot(NOW, ("n0",), 8)}
    assert world.set_available({"n0": False}).impossible == {"a": Reason.DRAINED}


def test_what_is_not_there_is_said_to_be_missing() -> None:
    world = two_nodes()
    with pytest.raises(KeyError):
        world.release("x")
    with pytest.raises(KeyError):
        world.remove("x")
    with pytest.raises(KeyError):
        world.set_available({"x": True})
    with pytest.raises(KeyError):
        world.set_available({"n0": False, "x": True})
    assert world.add(demand("z")).slots == {"z": Slot(NOW, ("n0",), 8)}, "nothing was closed"
    world.remove("z")
    with pytest.raises(ValueError, match="backwards"):
        world.advance(NOW - 1)
    world.add(demand("a"))
    with pytest.raises(ValueError, match="already"):
        world.add(demand("a"))
    assert world.what_if(demand("b", pool="t4")) is Reason.NO_SUCH_POOL
    assert world.max_extension("x", 5).reason is Reason.NO_SUCH_HOLD


def test_a_long_time_is_forgotten_without_moving_anybody() -> None:
    hour = 3_600_000
    busy = [Hold("h", {"n0": 8}, NOW + 9 * hour)]
    world = World(fleet(1), busy, [demand("a", hours=hour)], Rules(), NOW)
    before = world.plan().slots
    assert world.advance(NOW + hour).slots == {}
    assert world.plan().slots == before
    state = State(fleet(1), busy, [demand("a", hours=hour)], Rules(), NOW + hour)
    assert plan(*state.args).slots == before


def test_a_lease_that_is_given_an_earlier_end_lets_others_move_up() -> None:
    world = World(fleet(1), [Hold("h", {"n0": 8}, NOW + 9)], [demand("a")], RULES, NOW)
    changes = world.extend("h", NOW + 6)
    assert (changes.slots, changes.moved_later) == ({"a": Slot(NOW + 6, ("n0",), 8)}, {})
