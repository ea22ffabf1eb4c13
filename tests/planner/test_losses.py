"""Nodes that are drained or gone, and who pays for it, by examples.

Nodes have 8 units unless a test says otherwise, an hour is 1 ms, and it is NOW o'clock.
"""

from __future__ import annotations

from dataclasses import replace

from gpudev_service.planner import Demand, Extension, Node, Reason, Slot, plan

from .worlds import NOW, State, demand, fleet, lease, max_extension, starts


def promised(name: str, units: int, order: int, node: str = "n1") -> Demand:
    """One who waits and is promised `units` of the node at five o'clock."""
    slot = Slot(NOW + 5, (node,), units)
    return replace(demand(name, units, order=order, not_before=NOW + 5), promise=slot)


def test_a_drained_node_gets_nothing_new_and_keeps_its_leases() -> None:
    nodes = [Node("n0", "h100", 8, available=False), Node("n1", "h100", 8)]
    holds = [lease("on drained", "n0", 5), lease("other", "n1", 9)]
    state = State(nodes, holds, [demand("next")])
    assert plan(*state.args).slots["next"] == Slot(NOW + 9, ("n1",), 8)
    granted = max_extension(state.promised(plan(*state.args)), "on drained", 30)
    assert granted == Extension(30)


def test_a_promise_on_a_drained_node_moves_and_the_plan_says_why() -> None:
    state = State(fleet(2), [lease("running", "n1", 9)], [demand("next", not_before=NOW + 2)])
    before = state.promised(plan(*state.args))
    assert before.demands[0].promise == Slot(NOW + 2, ("n0",), 8)
    drained = replace(before, nodes=[Node("n0", "h100", 8, available=False), before.nodes[1]])
    found = plan(*drained.args)
    assert found.slots["next"] == Slot(NOW + 9, ("n1",), 8)
    assert found.moved_later == {"next": Reason.NODE_DRAINED}


def test_a_promise_on_a_node_that_is_gone_moves_and_the_plan_says_why() -> None:
    state = State(fleet(2), [lease("running", "n1", 9)], [demand("next", not_before=NOW + 2)])
    before = state.promised(plan(*state.args))
    found = plan(*replace(before, nodes=before.nodes[1:]).args)
    assert found.slots["next"] == Slot(NOW + 9, ("n1",), 8)
    assert found.moved_later == {"next": Reason.NODE_GONE}


def test_a_promise_is_not_broken_if_another_node_is_free_in_time() -> None:
    state = State(fleet(2), [], [demand("next", not_before=NOW + 2)])
    before = state.promised(plan(*state.args))
    found = plan(*replace(before, nodes=before.nodes[1:]).args)
    assert found.slots["next"] == Slot(NOW + 2, ("n1",), 8)
    assert found.moved_later == {}


def test_a_lost_node_costs_the_last_in_the_queue_and_not_whoever_was_promised_it() -> None:
    queue = [
        demand("first", 8, order=1, not_before=NOW + 2),
        demand("last", 8, order=2, not_before=NOW + 2),
    ]
    state = State(fleet(2), [], queue)
    before = state.promised(plan(*state.args))
    lost = plan(*state.args).slots["first"].nodes
    assert starts(before) == {"first": 2, "last": 2}
    nodes = [replace(node, available=node.name not in lost) for node in before.nodes]
    found = plan(*replace(before, nodes=nodes).args)
    assert found.slots["first"].start_ms == NOW + 2
    assert found.slots["last"].start_ms == NOW + 12
    assert found.moved_later == {"last": Reason.QUEUE_PLANNED_AGAIN}


def test_a_loss_is_handed_down_the_queue_and_keeps_its_order() -> None:
    state = State(fleet(3), [], [demand(f"d{at:02}", 8, order=at) for at in range(24)])
    before = state.promised(plan(*state.args))
    nodes = [replace(node, available=node.name != "n2") for node in before.nodes]
    after = replace(before, nodes=nodes)
    assert starts(after) == {f"d{at:02}": at // 2 * 10 for at in range(24)}


def test_a_loss_is_borne_by_one_where_one_behind_has_room_for_all() -> None:
    queue = [
        demand("lost", 4, order=1, not_before=NOW + 5),
        demand("beside", 4, order=2, not_before=NOW + 5),
        demand("large", 8, order=3, not_before=NOW + 5),
        *[demand(f"far{at}", 8, order=4 + at, not_before=NOW + 50) for at in range(2)],
    ]
    state = State(fleet(2), [], queue)
    before = state.promised(plan(*state.args))
    [lost] = plan(*state.args).slots["lost"].nodes
    nodes = [replace(node, available=node.name != lost) for node in before.nodes]
    found = plan(*replace(before, nodes=nodes).args)
    assert {key: slot.start_ms - NOW for key, slot in found.slots.items()} == {
        "lost": 5,
        "beside": 5,
        "large": 15,
        "far0": 50,
        "far1": 60,
    }
    assert set(found.moved_later) == {"large", "far1"}


def test_a_gang_takes_over_from_several_behind_it() -> None:
    queue = [
        demand("gang", 8, nodes=2, order=1, not_before=NOW + 5),
        demand("half", 4, order=2, not_before=NOW + 5),
        demand("other", 4, order=3, not_before=NOW + 5),
    ]
    state = State(fleet(3), [], queue)
    before = state.promised(plan(*state.args))
    lost = plan(*state.args).slots["gang"].nodes[0]
    nodes = [replace(node, available=node.name != lost) for node in before.nodes]
    found = plan(*replace(before, nodes=nodes).args)
    assert {key: slot.start_ms - NOW for key, slot in found.slots.items()} == {
        "gang": 5,
        "half": 15,
        "other": 15,
    }
    assert found.moved_later == dict.fromkeys(("half", "other"), Reason.QUEUE_PLANNED_AGAIN)


def test_a_loss_goes_where_those_who_give_way_are_last_in_the_queue() -> None:
    """On n1 the last two make room together; on n2 two who are before them would."""

    queue = [
        promised("lost", 4, 1, "n0"),
        *(promised(f"n1 {at}", 2, at, "n1") for at in (2, 3)),
        *(promised(f"n2 {at}", 2, at, "n2") for at in (4, 5)),
        promised("n1 last but one", 3, 6, "n1"),
        promised("n1 last", 1, 7, "n1"),
    ]
    nodes = [replace(node, available=node.name != "n0") for node in fleet(3)]
    state = State(nodes, [lease("long", "n2", 500, units=4)], queue)
    found = plan(*state.args)
    assert found.slots["lost"] == Slot(NOW + 5, ("n1",), 4)
    assert found.moved_later == dict.fromkeys(
        ("n1 last but one", "n1 last"), Reason.QUEUE_PLANNED_AGAIN
    )


def test_what_is_free_beside_them_need_not_be_given_up() -> None:
    """One unit of the four is free; the last gives two and the one before it the last missing."""

    queue = [
        promised("lost", 4, 1, "n0"),
        promised("stays", 4, 2),
        promised("gives one", 1, 3),
        promised("gives two", 2, 4),
    ]
    nodes = [replace(node, available=node.name != "n0") for node in fleet(2)]
    found = plan(*State(nodes, [], queue).args)
    assert {key: slot.start_ms - NOW for key, slot in found.slots.items()} == {
        "lost": 5,
        "stays": 5,
        "gives one": 15,
        "gives two": 15,
    }


def test_whoever_need_not_give_way_stays() -> None:
    """The last gives too little, and the one before it enough for both."""

    queue = [
        promised("lost", 4, 1, "n0"),
        promised("stays", 3, 2),
        promised("gives", 4, 3),
        promised("last", 1, 4),
    ]
    nodes = [replace(node, available=node.name != "n0") for node in fleet(2)]
    found = plan(*State(nodes, [], queue).args)
    assert found.moved_later == {"gives": Reason.QUEUE_PLANNED_AGAIN}
    assert found.slots["lost"].start_ms == found.slots["last"].start_ms == NOW + 5
