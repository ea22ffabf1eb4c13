"""Each rule of the planner by an example small enough to check in one's head.

Nodes have 8 units unless a test says otherwise, an hour is 1 ms, and it is NOW o'clock.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gpudev_service.planner import (
    Demand,
    Extension,
    Node,
    Quota,
    Reason,
    Rules,
    Slot,
    plan,
)

from .worlds import (
    NOW,
    RULES,
    State,
    demand,
    earliest_start,
    faults,
    fleet,
    lease,
    max_extension,
    starts,
    what_if,
)

# The queue.


def test_a_small_request_goes_first_if_it_is_over_before_the_large_one_can_start() -> None:
    state = State(
        fleet(1),
        [lease("running", "n0", 5, units=6)],
        [
            demand("large", 8, 10, order=1),
            demand("short", 2, 5, order=2),
            demand("long", 2, 6, order=3),
        ],
    )
    assert starts(state) == {"large": 5, "short": 0, "long": 15}


def test_equal_requests_start_in_the_order_in_which_they_came() -> None:
    found = starts(State(fleet(1), [], [demand("b", order=2), demand("a", order=1)]))
    assert found == {"a": 0, "b": 10}


def test_a_higher_priority_goes_first_among_those_who_have_no_promise_yet() -> None:
    found = starts(State(fleet(1), [], [demand("a", order=1), demand("b", order=2, priority=1)]))
    assert found == {"b": 0, "a": 10}


def test_a_higher_priority_never_breaks_a_promise() -> None:
    state = State(fleet(1), [lease("running", "n0", 5)], [demand("first", order=1)])
    before = state.promised(plan(*state.args))
    late = demand("important", order=2, priority=100)
    assert starts(replace(before, demands=[*before.demands, late])) == {"first": 5, "important": 15}


def test_an_early_end_lets_those_who_wait_move_up_and_priority_decides_who() -> None:
    low, high = demand("low", order=1), demand("high", order=2, priority=1)
    state = State(fleet(2), [lease("one", "n0", 20), lease("two", "n1", 21)], [low, high])
    assert starts(state) == {"high": 20, "low": 21}
    before = state.promised(plan(*state.args))
    assert starts(replace(before, holds=[before.holds[0]])) == {"high": 0, "low": 10}


def test_all_move_up_after_an_early_end_however_many_they_are() -> None:
    queue = [demand(f"d{at}", order=at) for at in range(4)]
    state = State(fleet(1), [lease("running", "n0", 20)], queue)
    assert starts(state) == {"d0": 20, "d1": 30, "d2": 40, "d3": 50}
    before = state.promised(plan(*state.args))
    assert starts(replace(before, holds=[])) == {"d0": 0, "d1": 10, "d2": 20, "d3": 30}


def test_positions_count_those_who_wait_and_not_those_who_start() -> None:
    queue = [demand(f"d{at}", order=at) for at in range(3)]
    found = plan(*State(fleet(1), [], queue).args)
    assert found.start_now == ("d0",)
    assert found.position == {"d1": 1, "d2": 2}


def test_positions_follow_the_starts_when_somebody_fits_in_before_others() -> None:
    state = State(
        fleet(1),
        [lease("running", "n0", 5)],
        [
            demand("booked", order=3, booked=NOW + 8),
            demand("long", 8, 10, order=1),
            demand("short", 8, 3, order=2),
        ],
    )
    assert plan(*state.args).position == {"short": 1, "booked": 2, "long": 3}


def test_the_order_in_which_the_planner_is_told_does_not_matter() -> None:
    queue = [demand(f"d{at}", 1 + at % 8, 3 + at % 5, order=at) for at in range(20)]
    holds = [lease("one", "n0", 4, 5), lease("two", "n1", 9, 3), lease("three", "n1", 7, 5)]
    told = plan(*State(fleet(2), holds, queue).args)
    assert plan(*State(fleet(2), holds[::-1], queue[::2] + queue[1::2]).args) == told


def test_two_pools_do_not_touch_each_other() -> None:
    nodes = [*fleet(1), Node("m0", "t4", 4)]
    queue = [demand("a", order=1), demand("b", order=2), demand("c", 4, order=3, pool="t4")]
    found = plan(*State(nodes, [lease("running", "n0", 5)], queue).args)
    assert found.slots["c"] == Slot(NOW, ("m0",), 4)
    assert found.slots["a"].start_ms == NOW + 5
    assert found.position == {"a": 1, "b": 2}
    queue.append(demand("d", 4, order=4, pool="t4"))
    assert plan(*State(nodes, [lease("running", "n0", 5)], queue).args).position["d"] == 1


# What a request may ask for.


def test_a_booking_starts_exactly_then_and_others_fit_around_it() -> None:
    state = State(
        fleet(1),
        [],
        [
            demand("booked", 8, 5, order=3, booked=NOW + 10),
            demand("long", 8, 11, order=1),
            demand("fits", 8, 10, order=2),
        ],
    )
    assert starts(state) == {"booked": 10, "long": 15, "fits": 0}


def test_a_booking_does_not_move_up_when_there_is_room_before_it() -> None:
    state = State(fleet(1), [lease("running", "n0", 3)], [demand("booked", booked=NOW + 10)])
    before = state.promised(plan(*state.args))
    assert starts(replace(before, holds=[])) == {"booked": 10}


def test_nobody_starts_before_the_time_from_which_they_can_use_it() -> None:
    state = State(fleet(1), [], [demand("later", order=1, not_before=NOW + 7)])
    assert starts(state) == {"later": 7}
    assert starts(state.promised(plan(*state.args))) == {"later": 7}


def test_a_request_for_several_nodes_gets_all_of_them_at_once() -> None:
    state = State(
        fleet(3), [lease("one", "n0", 2), lease("two", "n1", 9)], [demand("gang", nodes=3)]
    )
    assert plan(*state.args).slots["gang"] == Slot(NOW + 9, ("n0", "n1", "n2"), 8)


def test_a_request_for_several_nodes_needs_them_whole() -> None:
    state = State(fleet(2), [lease("one", "n0", 6, units=1)], [demand("gang", nodes=2)])
    assert starts(state) == {"gang": 6}


def test_a_request_for_one_node_is_never_spread_over_two() -> None:
    state = State(
        fleet(2), [lease("one", "n0", 6, 4), lease("two", "n1", 7, 4)], [demand("five", 5)]
    )
    assert plan(*state.args).slots["five"] == Slot(NOW + 6, ("n0",), 5)


def test_types_without_gpus_are_shared_by_as_many_as_there_are_shares() -> None:
    nodes = [Node("c0", "cpu-x86", 3)]
    queue = [demand(f"d{at}", 1, order=at, pool="cpu-x86") for at in range(4)]
    assert starts(State(nodes, [], queue)) == {"d0": 0, "d1": 0, "d2": 0, "d3": 10}


# Leases and starts that do not keep to their time.


def test_a_lease_that_overstays_holds_its_units_for_another_span_and_another() -> None:
    state = State(fleet(1), [lease("late", "n0", 0)], [demand("next")])
    assert starts(state) == {"next": RULES.overstay_ms}
    found = plan(*replace(state, now=NOW + RULES.overstay_ms).args)
    assert found.slots["next"].start_ms == NOW + 2 * RULES.overstay_ms


def test_who_was_promised_the_units_of_a_lease_that_overstays_learns_why_they_wait() -> None:
    state = State(fleet(1), [lease("late", "n0", 4)], [demand("next")])
    before = state.promised(plan(*state.args))
    found = plan(*replace(before, now=NOW + 4).args)
    assert found.slots["next"].start_ms == NOW + 4 + RULES.overstay_ms
    assert found.moved_later == {"next": Reason.NODE_HELD_LONGER}


def test_a_start_that_is_carried_out_a_little_late_keeps_its_end() -> None:
    state = State(fleet(1), [], [demand("due", order=1), demand("behind", order=2)])
    before = state.promised(plan(*state.args))
    found = plan(*replace(before, now=NOW + RULES.late_start_ms).args)
    assert found.slots["due"].start_ms == NOW
    assert found.start_now == ("due",)
    assert found.slots["behind"].start_ms == NOW + 10
    assert found.moved_later == {}


def test_a_start_that_nobody_carried_out_for_long_begins_now_and_is_reported() -> None:
    state = State(fleet(1), [], [demand("due")])
    before = state.promised(plan(*state.args))
    late = NOW + RULES.late_start_ms + 1
    found = plan(*replace(before, now=late).args)
    assert found.slots["due"].start_ms == late
    assert found.moved_later == {"due": Reason.STARTED_LATE}


# Quotas.


def ada(most: int) -> tuple[Quota, ...]:
    return (Quota("ada", most),)


def test_a_quota_makes_wait_even_where_units_are_free() -> None:
    queue = [demand(f"d{at}", 4, order=at, quotas=ada(8)) for at in range(3)]
    other = demand("bob", 4, order=9, quotas=(Quota("bob", 8),))
    found = starts(State(fleet(2), [], [*queue, other]))
    assert found == {"d0": 0, "d1": 0, "d2": 10, "bob": 0}


def test_leases_count_under_a_quota() -> None:
    state = State(
        fleet(2),
        [lease("mine", "n0", 5, 4, key="ada")],
        [demand("next", 5, quotas=ada(8))],
    )
    assert starts(state) == {"next": 5}


def test_a_lowered_quota_moves_a_promise_and_the_plan_says_why() -> None:
    queue = [demand(f"d{at}", 4, order=at, not_before=NOW + 1, quotas=ada(8)) for at in range(2)]
    state = State(fleet(2), [], queue)
    before = state.promised(plan(*state.args))
    lowered = [replace(each, quotas=ada(4)) for each in before.demands]
    found = plan(*replace(before, demands=lowered).args)
    assert {name: slot.start_ms - NOW for name, slot in found.slots.items()} == {"d0": 1, "d1": 11}
    assert found.moved_later == {"d1": Reason.QUOTA_LOWERED}


# Asking without coming.


def test_what_is_answered_to_a_question_is_what_one_gets_by_coming() -> None:
    state = State(fleet(1), [lease("running", "n0", 5)], [demand("first", order=1)])
    before = state.promised(plan(*state.args))
    asked = demand("asked", 8, 3, order=2)
    answer = what_if(before, asked)
    assert answer == Slot(NOW + 15, ("n0",), 8)
    assert plan(*replace(before, demands=[*before.demands, asked]).args).slots["asked"] == answer
    assert what_if(before, replace(asked, units_per_node=9)) is Reason.TOO_MANY_UNITS


# Extensions.


def test_an_extension_goes_as_far_as_the_next_promised_start_and_says_whose_it_is() -> None:
    state = State(fleet(1), [lease("mine", "n0", 5)], [demand("next", booked=NOW + 8)])
    before = state.promised(plan(*state.args))
    granted = max_extension(before, "mine", 10)
    assert granted == Extension(3, "next", Reason.PROMISED_TO_OTHERS)
    assert max_extension(before, "mine", 3) == Extension(3)


def test_a_granted_extension_moves_nobody() -> None:
    state = State(
        fleet(2),
        [lease("mine", "n0", 5), lease("other", "n1", 7)],
        [demand("next", booked=NOW + 7)],
    )
    before = state.promised(plan(*state.args))
    assert max_extension(before, "mine", 30) == Extension(30)
    longer = [replace(before.holds[0], until_ms=NOW + 35), before.holds[1]]
    after = plan(*replace(before, holds=longer).args)
    assert after.slots["next"].start_ms == NOW + 7
    assert after.moved_later == {}


def test_nothing_is_granted_where_somebody_starts_as_the_lease_ends() -> None:
    state = State(fleet(1), [lease("mine", "n0", 5)], [demand("next")])
    before = state.promised(plan(*state.args))
    granted = max_extension(before, "mine", 1)
    assert granted == Extension(0, "next", Reason.PROMISED_TO_OTHERS)


def test_a_quota_limits_an_extension_by_those_under_the_same_quota() -> None:
    state = State(
        fleet(2),
        [lease("mine", "n0", 5, key="ada")],
        [demand("next", 8, quotas=ada(8))],
    )
    before = state.promised(plan(*state.args))
    granted = max_extension(before, "mine", 4)
    assert granted == Extension(0, "next", Reason.PROMISED_TO_OTHERS)


def test_a_lease_that_is_over_or_unknown_cannot_be_extended() -> None:
    state = State(fleet(1), [lease("late", "n0", -1)], [])
    assert max_extension(state, "late", 5) == Extension(0, None, Reason.OVERSTAYED)
    assert max_extension(state, "nobody's", 5) == Extension(0, None, Reason.NO_SUCH_HOLD)


def test_an_extension_by_nothing_is_granted() -> None:
    state = State(fleet(1), [lease("mine", "n0", 5)], [])
    assert max_extension(state, "mine", 0) == Extension(0)


# What can never be.

DRAINED = [Node("n0", "h100", 8), Node("n1", "h100", 8, available=False)]


@pytest.mark.parametrize(
    ("nodes", "asked", "why"),
    [
        (fleet(2), demand("d", pool="t4"), Reason.NO_SUCH_POOL),
        (fleet(2), demand("d", 9), Reason.TOO_MANY_UNITS),
        (fleet(2), demand("d", nodes=3), Reason.TOO_FEW_NODES),
        ([*fleet(1), Node("small", "h100", 4)], demand("d", nodes=2), Reason.TOO_FEW_NODES),
        (DRAINED, demand("d", nodes=2), Reason.DRAINED),
        (fleet(2), demand("d", 5, quotas=ada(4)), Reason.QUOTA_TOO_SMALL),
        (fleet(2), demand("d", 3, nodes=2, quotas=ada(4)), Reason.QUOTA_TOO_SMALL),
    ],
)
def test_what_can_never_be_is_refused_with_the_reason(
    nodes: list[Node], asked: Demand, why: Reason
) -> None:
    state = State(nodes, [], [asked, demand("other", order=1)])
    found = plan(*state.args)
    assert found.impossible == {"d": why}
    assert found.slots["other"].start_ms == NOW
    assert "d" not in found.position


def test_a_booking_whose_time_is_taken_is_refused() -> None:
    state = State(fleet(1), [lease("running", "n0", 5)], [demand("booked", booked=NOW + 4)])
    assert plan(*state.args).impossible == {"booked": Reason.BOOKED_START_TAKEN}
    free = replace(state, demands=[demand("booked", booked=NOW + 5)])
    assert starts(free) == {"booked": 5}


def test_a_booking_that_comes_after_its_time_starts_now() -> None:
    """Its time is a moment before now, for the way of a request takes time."""
    assert starts(State(fleet(1), [], [demand("booked", booked=NOW - 1)])) == {"booked": 0}


@pytest.mark.parametrize(("nodes", "units", "hours"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_request_for_nothing_is_no_request(nodes: int, units: int, hours: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        demand("d", units, hours, nodes=nodes)


@pytest.mark.parametrize(("overstay", "late"), [(0, 0), (1, -1)])
def test_rules_with_senseless_spans_are_refused(overstay: int, late: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        Rules(overstay_ms=overstay, late_start_ms=late)


# Many who wait.


def test_in_a_long_queue_each_start_is_the_earliest_beside_those_ahead() -> None:
    """Long enough that the index of free spans is cut into several parts."""
    rng = random.Random(5)
    queue = [
        demand(
            f"d{at:03}",
            rng.randint(1, 8),
            rng.randint(1, 4),
            order=at,
            not_before=NOW + rng.randrange(400),
        )
        for at in range(400)
    ]
    state = State(fleet(5), [], queue)
    found = plan(*state.args)
    assert faults(state, found) == []
    ahead: dict[str, Slot] = {}
    for each in queue:
        assert found.slots[each.id].start_ms == earliest_start(state, ahead, each)
        ahead[each.id] = found.slots[each.id]


# Nodes that are not for everybody.


def test_a_demand_that_may_use_some_nodes_only_waits_for_one_of_them() -> None:
    here = frozenset({"n1"})
    state = State(
        fleet(3),
        [lease("running", "n1", 7)],
        [demand("bound", among=here, order=1), demand("free", order=2)],
    )
    assert starts(state) == {"bound": 7, "free": 0}
    assert plan(*state.args).slots["bound"].nodes == ("n1",)


def test_several_nodes_at_once_are_all_of_those_that_may_be_used() -> None:
    here = frozenset({"n1", "n3"})
    found = plan(*State(fleet(4), [], [demand("pair", nodes=2, among=here)]).args)
    assert found.slots["pair"].nodes == ("n1", "n3")


def test_what_fits_only_on_nodes_that_it_must_not_use_is_told_so() -> None:
    bound = demand("bound", nodes=2, among=frozenset({"n0", "elsewhere"}))
    assert plan(*State(fleet(3), [], [bound]).args).impossible == {"bound": Reason.ELSEWHERE}
    drained = [Node("n0", "h100", 8, available=False), *fleet(3)[1:]]
    alone = demand("alone", among=frozenset({"n0"}))
    assert plan(*State(drained, [], [alone]).args).impossible == {"alone": Reason.DRAINED}


def test_a_promise_on_a_node_that_has_become_out_of_reach_is_planned_again() -> None:
    promise = Slot(NOW + 1, ("n0",), 8)
    bound = demand("bound", promise=promise, among=frozenset({"n1"}))
    state = State(fleet(2), [lease("running", "n1", 3)], [bound])
    found = plan(*state.args)
    assert found.slots["bound"] == Slot(NOW + 3, ("n1",), 8)
    assert found.moved_later == {"bound": Reason.ELSEWHERE}
