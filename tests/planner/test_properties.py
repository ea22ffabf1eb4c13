"""What must hold in every world, whatever comes, goes, stays longer or breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudev_service.planner import Demand, Plan, Reason, Slot, World, plan
from gpudev_service.planner.seats import queue_key

from .worlds import State, earliest_start, faults, max_extension, newcomer, states, what_if

many = settings(max_examples=300, deadline=None)


def queue_order(demands: list[Demand]) -> list[Demand]:
    return sorted(demands, key=lambda d: (d.booked_start_ms is None, -d.priority, d.order, d.id))


def assert_kept(state: State, after: Plan) -> None:
    """Nobody who had a promise starts later than promised."""
    assert after.moved_later == {}
    for each in state.demands:
        if each.promise is not None:
            assert after.slots[each.id].start_ms <= max(each.promise.start_ms, state.now)


def start_of(answer: Slot | Reason) -> int | Reason:
    """Which of several nodes with the same start is taken depends on what was tried before."""
    return answer.start_ms if isinstance(answer, Slot) else answer


@many
@given(states())
def test_no_unit_is_promised_twice_and_every_rule_is_kept(state: State) -> None:
    assert faults(state, plan(*state.args)) == []


@many
@given(states())
def test_each_start_is_the_earliest_beside_those_ahead_in_the_queue(state: State) -> None:
    found = plan(*state.args)
    ahead: dict[str, Slot] = {}
    for each in queue_order(state.demands):
        if each.id in found.slots:
            if each.booked_start_ms is None:
                assert found.slots[each.id].start_ms == earliest_start(state, ahead, each)
            ahead[each.id] = found.slots[each.id]


@many
@given(states(), st.data())
def test_after_releases_and_arrivals_nobody_could_start_earlier(
    state: State, data: st.DataObject
) -> None:
    before = state.promised(plan(*state.args))
    gone = data.draw(st.sets(st.sampled_from([h.id for h in state.holds]))) if state.holds else ()
    left = [d for d in before.demands if data.draw(st.integers(0, 4)) != 0]
    late = [data.draw(newcomer(state, f"new{at}", -at)) for at in range(2)]
    after = replace(
        before, holds=[h for h in state.holds if h.id not in gone], demands=[*left, *late]
    )
    found = plan(*after.args)
    assert faults(after, found) == []
    assert_kept(after, found)
    for each in after.demands:
        if each.id in found.slots and each.booked_start_ms is None:
            assert found.slots[each.id].start_ms == earliest_start(after, found.slots, each)


@many
@given(states(), st.data())
def test_an_arrival_moves_nobody(state: State, data: st.DataObject) -> None:
    first = plan(*state.args)
    before = state.promised(first)
    late = data.draw(newcomer(state))
    after = plan(*replace(before, demands=[*before.demands, late]).args)
    assert {key: slot for key, slot in after.slots.items() if key != "new"} == first.slots


@many
@given(states(), st.data())
def test_asking_first_gives_the_same_answer_as_coming(state: State, data: st.DataObject) -> None:
    promised = data.draw(st.booleans())
    base = state.promised(plan(*state.args)) if promised else state
    late = data.draw(newcomer(state))
    asked = what_if(base, late)
    after = plan(*replace(base, demands=[*base.demands, late]).args)
    assert start_of(asked) == start_of(after.slots.get("new") or after.impossible["new"])
    world = World(*state.args)
    answer = world.what_if(late)
    assert world.what_if(late) == answer
    world.add(late)
    found = world.plan()
    assert answer == (found.slots.get("new") or found.impossible["new"])


@many
@given(states())
def test_the_same_world_is_planned_the_same_way(state: State) -> None:
    shuffled = replace(state, demands=state.demands[::-1], holds=state.holds[::-1])
    assert plan(*state.args) == plan(*shuffled.args)
    before = state.promised(plan(*state.args))
    assert plan(*before.args).slots == plan(*state.args).slots


@many
@given(states(), st.data())
def test_a_granted_extension_moves_no_promise_later(state: State, data: st.DataObject) -> None:
    if not state.holds:
        return
    before = state.promised(plan(*state.args))
    hold = data.draw(st.sampled_from(state.holds))
    wanted = data.draw(st.integers(1, 20))
    granted = max_extension(before, hold.id, wanted)
    assert 0 <= granted.granted_ms <= wanted
    assert (granted.granted_ms == wanted) == (granted.reason is None)
    longer = replace(hold, until_ms=hold.until_ms + granted.granted_ms)
    holds = [longer if h.id == hold.id else h for h in state.holds]
    after = replace(before, holds=holds)
    found = plan(*after.args)
    assert faults(after, found) == []
    assert_kept(after, found)


@many
@given(states(), st.data())
def test_of_an_extension_all_that_can_be_is_granted(state: State, data: st.DataObject) -> None:
    """A moment more would move whoever is said to be in the way, or somebody beside them."""
    if not state.holds:
        return
    world = World(*state.args)
    hold = data.draw(st.sampled_from(state.holds))
    granted = world.max_extension(hold.id, data.draw(st.integers(1, 20)))
    if granted.reason is not Reason.PROMISED_TO_OTHERS:
        return
    slots = world.plan().slots
    assert granted.blocked_by in slots
    with pytest.raises(ValueError, match="would move later"):
        world.extend(hold.id, hold.until_ms + granted.granted_ms + 1)
    assert world.plan().slots == slots


@many
@given(states(), st.data())
def test_trying_an_extension_changes_nothing(state: State, data: st.DataObject) -> None:
    if not state.holds:
        return
    world = World(*state.args)
    before = world.plan()
    hold = data.draw(st.sampled_from(state.holds))
    world.max_extension(hold.id, data.draw(st.integers(1, 20)))
    assert world.plan() == before
    late = data.draw(newcomer(state))
    assert start_of(world.what_if(late)) == start_of(World(*state.args).what_if(late))


@many
@given(states(drains=False), st.data())
def test_a_broken_promise_is_reported_with_its_cause(state: State, data: st.DataObject) -> None:
    before = state.promised(plan(*state.args))
    drained = data.draw(st.sampled_from([node.name for node in state.nodes]))
    nodes = [replace(node, available=node.name != drained) for node in state.nodes]
    after = replace(before, nodes=nodes)
    found = plan(*after.args)
    assert faults(after, found) == []
    for each in before.demands:
        if each.promise is None or each.id in found.impossible:
            continue
        later = found.slots[each.id].start_ms > max(each.promise.start_ms, state.now)
        assert later == (each.id in found.moved_later)
        if later and drained in each.promise.nodes:
            assert found.moved_later[each.id] is Reason.NODE_DRAINED
        if later:
            # The loss goes down the queue: whoever pays is behind one who sat there, or is one.
            lost = [d for d in before.demands if d.promise and drained in d.promise.nodes]
            assert any(queue_key(d) <= queue_key(each) for d in lost)
    if not any(d.promise and drained in d.promise.nodes for d in before.demands):
        assert_kept(after, found)


@many
@given(states())
def test_positions_count_those_who_wait_in_order_of_their_start(state: State) -> None:
    found = plan(*state.args)
    waiting = sorted(found.position, key=lambda key: found.position[key])
    assert [found.position[key] for key in waiting] == list(range(1, len(waiting) + 1))
    starts = [found.slots[key].start_ms for key in waiting]
    assert starts == sorted(starts)
    assert all(start > state.now for start in starts)
    assert set(found.start_now) | set(waiting) == set(found.slots)
    assert not set(found.start_now) & set(waiting)
