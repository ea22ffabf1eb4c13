"""Replays of a few requests, worked by hand, under the planner and under Slurm's rules.

The fleet is one or two nodes of 4 GPUs, and spans are hours. The turnover is a second; a server
that ends gives its GPUs back at once, so starts fall on whole hours all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from gpudev_service.settings import Policy, PolicyRule
from gpudev_service.simulate import fleet as fleets
from gpudev_service.simulate.backfill import Backfill, Parameters
from gpudev_service.simulate.desk import Desk
from gpudev_service.simulate.fleet import Fleet
from gpudev_service.simulate.measures import measure
from gpudev_service.simulate.planned import Planned
from gpudev_service.simulate.replay import Outcome, Rules, replay
from gpudev_service.simulate.requests import Request

HOUR = 3_600_000
#: Slurm without rounding, as it is and as exact as can be.
SLURM = Parameters(bf_interval_ms=1, bf_resolution_ms=1)
EXACT = replace(SLURM, exact=True)


def fleet(nodes: int = 1) -> Fleet:
    return fleets.written([f"t4={nodes}x4"], {})


def request(
    order: int,
    at: float,
    gpus: int,
    asked: float,
    run: float | None = None,
    *,
    nodes: int = 1,
    user: str = "ada",
    booked: float | None = None,
) -> Request:
    return Request(
        order=order,
        at_ms=round(at * HOUR),
        run_ms=round((asked if run is None else run) * HOUR),
        asked_ms=round(asked * HOUR),
        pool="t4",
        nodes=nodes,
        units=gpus,
        user=user,
        booked_ms=None if booked is None else round(booked * HOUR),
    )


def queue(rules: str, there: Fleet) -> Rules:
    if rules == "planner":
        return Planned(there, 1000)
    return Backfill(there, EXACT if rules == "exact" else SLURM)


def outcome(rules: str, requests: Iterable[Request], nodes: int = 1, **limits: float) -> Outcome:
    there = fleet(nodes)
    policy = Policy(
        default=PolicyRule(max_hours=24, max_total_hours=24, priority=0).model_copy(update=limits)
    )
    return replay(requests, queue(rules, there), Desk(policy, there.types))


def starts(found: Outcome) -> dict[int, list[float]]:
    """When the leases of each request began, in hours."""
    return {
        order: [(stay.begun_ms or 0) / HOUR for stay in stays]
        for order, stays in sorted(found.stays.items())
    }


both = pytest.mark.parametrize("rules", ["planner", "slurm", "exact"])


@both
def test_who_fits_behind_nobody_starts_at_once(rules: str) -> None:
    found = outcome(rules, [request(0, 0, 2, 1), request(1, 0, 2, 1), request(2, 0.5, 4, 1)])
    assert starts(found) == {0: [0], 1: [0], 2: [1]}


@both
def test_a_short_request_fills_a_gap_and_a_long_one_does_not_delay_who_is_before_it(
    rules: str,
) -> None:
    # 3 of 4 GPUs until 4; 4 GPUs are wanted, from 4 on. One GPU is free for up to 4 hours.
    wanted = [
        request(0, 0, 3, 4),
        request(1, 0, 4, 2),
        request(2, 0, 1, 4),  # fits into the gap
        request(3, 0, 1, 5),  # would delay request 1 by an hour
    ]
    assert starts(outcome(rules, wanted)) == {0: [0], 1: [4], 2: [0], 3: [6]}


@both
def test_an_early_end_goes_to_the_first_in_the_queue(rules: str) -> None:
    wanted = [request(0, 0, 4, 8, run=1), request(1, 0, 4, 2), request(2, 0, 4, 1)]
    assert starts(outcome(rules, wanted)) == {0: [0], 1: [1], 2: [3]}


@both
def test_a_gang_gets_its_nodes_together(rules: str) -> None:
    wanted = [
        request(0, 0, 1, 3),
        request(1, 0, 4, 1, nodes=2),
        request(2, 0, 4, 2),  # on the other node, and done before the gang
    ]
    assert starts(outcome(rules, wanted, nodes=2)) == {0: [0], 1: [3], 2: [0]}


@both
def test_promises_stay_and_room_that_is_left_early_is_used(rules: str) -> None:
    wanted = [
        request(0, 0, 4, 4, run=1),  # node 1 until 4, really until 1
        request(1, 0, 4, 6),  # node 2 until 6
        request(2, 0, 4, 3, nodes=2),  # both nodes, from 6 on
        request(3, 0, 4, 2),  # Slurm tells it 4 on node 1, the planner 9: turnovers do not fit
        request(4, 0, 4, 4),  # behind them, at 9: from 1 to 5 node 1 would have been free but for 3
    ]
    found = outcome(rules, wanted, nodes=2)
    assert starts(found) == {0: [0], 1: [0], 2: [6], 3: [1], 4: [9]}
    assert measure(found, 8).late == 0


def told(found: Outcome) -> dict[int, float]:
    """The first start that each request was told, in hours."""
    return {order: (stays[0].told_ms or 0) / HOUR for order, stays in sorted(found.stays.items())}


def test_slurm_keeps_whole_nodes_for_those_who_wait() -> None:
    wanted = [request(0, 0, 4, 4), request(1, 0, 2, 3), request(2, 0, 2, 3)]
    exact, slurm = outcome("exact", wanted), outcome("slurm", wanted)
    assert told(exact) == {0: 0, 1: 4, 2: 4}
    assert told(slurm) == {0: 0, 1: 4, 2: 7}, "it was told the end of the reservation before it"
    assert starts(slurm) == starts(exact) == {0: [0], 1: [4], 2: [4]}


def test_slurm_looks_at_the_ends_of_running_jobs_in_groups() -> None:
    seconds = 1 / 3600
    wanted = [
        request(0, 0, 2, 1),
        request(1, 0, 1, 1 + 20 * seconds),  # in one group with the first: 30 s
        request(2, 0, 1, 2),
        request(3, 0, 1, 1),
    ]
    assert told(outcome("exact", wanted))[3] == 1
    assert told(outcome("slurm", wanted))[3] == pytest.approx(1 + 20 * seconds)


def test_slurm_reserves_nothing_beyond_its_window() -> None:
    near = replace(SLURM, bf_window_ms=3 * HOUR)
    wanted = [request(0, 0, 3, 4), request(1, 0, 4, 2), request(2, 0, 1, 5)]
    there = fleet()
    found = replay(wanted, Backfill(there, near), Desk(Policy(), there.types))
    # The node is told to nobody, so the third, which delays the second by an hour, may start.
    assert starts(found) == {0: [0], 1: [5], 2: [0]}


@both
def test_who_asked_for_too_little_comes_again_for_the_rest(rules: str) -> None:
    # The other request is promised the GPUs at 2, so no extension is possible.
    wanted = [request(0, 0, 4, 2, run=3), request(1, 0, 4, 1, user="ben")]
    assert starts(outcome(rules, wanted)) == {0: [0, 3], 1: [2]}


def test_a_lease_is_extended_as_far_as_no_promise_moves() -> None:
    wanted = [request(0, 0, 4, 2, run=5), request(1, 1, 4, 1, user="ben", booked=4)]
    found = outcome("planner", wanted, max_extension_hours=24, max_total_hours=48)
    assert starts(found) == {0: [0, 5], 1: [4]}
    assert found.stays[0][0].ended_ms == 4 * HOUR - 1000, "the turnover before the booking"
    again = outcome("slurm", wanted)
    assert again.stays[0][0].ended_ms == 2 * HOUR, "nobody can give themselves more time"


@both
def test_a_lease_is_no_longer_than_policy_allows(rules: str) -> None:
    found = outcome(rules, [request(0, 0, 4, 6)], max_hours=4, max_extension_hours=0)
    assert starts(found) == {0: [0, 4]}


@both
def test_who_is_over_a_limit_asks_again_when_a_reservation_of_theirs_has_ended(rules: str) -> None:
    wanted = [request(0, 0, 2, 2), request(1, 0, 2, 1), request(2, 0, 2, 3, user="ben")]
    found = outcome(rules, wanted, max_gpus=3)
    assert starts(found) == {0: [0], 1: [2], 2: [0]}
    assert found.stays[1][0].wait_ms == 2 * HOUR, "the wait counts from when they first asked"
    assert measure(found, 4).held_back == 1


@both
def test_what_can_never_be_is_refused(rules: str) -> None:
    wanted = [request(0, 0, 4, 1, nodes=2), request(1, 0, 4, 1)]
    assert [one.order for one in outcome(rules, wanted).refused] == [0]
    assert [one.order for one in outcome(rules, wanted[1:], max_gpus=2).refused] == [1]


@both
def test_a_booking_starts_then_and_its_wait_counts_from_there(rules: str) -> None:
    found = outcome(rules, [request(0, 0, 4, 1, booked=3), request(1, 0, 4, 2)])
    assert starts(found) == {0: [3], 1: [0]}
    assert found.stays[0][0].wait_ms == 0


def test_figures_of_an_outcome_worked_by_hand() -> None:
    wanted = [
        request(0, 0, 4, 2, run=1, user="ada"),
        request(1, 0, 4, 1, user="ben"),
        request(2, 0, 4, 1 / 12, user="ben"),
    ]
    found = measure(outcome("planner", wanted), 4, span_ms=4 * HOUR)
    # Waits of 0, 1 and 2 hours. Request 2 runs for five minutes: 123 minutes over ten at least.
    assert found.mean_wait_s == 3600
    assert found.median_wait_s == 3600
    assert found.p95_wait_s == 7200
    assert found.slowdown == pytest.approx((1 + 2 + 12.5) / 3)
    assert found.gpu_hours == pytest.approx(4 * (1 + 1 + 1 / 12))
    assert found.utilisation == pytest.approx((2 + 1 / 12) / 4)
    assert found.fairness == pytest.approx((1 + 7.25) ** 2 / (2 * (1 + 7.25**2)))
    assert (found.told, found.late) == (3, 0)
    assert [user.name for user in found.top_users] == ["ben", "ada"]
