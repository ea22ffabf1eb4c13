"""Whatever is asked for: nobody holds what another has, everybody is served, promises are kept."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudev_service.settings import Policy, PolicyRule
from gpudev_service.simulate import fleet as fleets
from gpudev_service.simulate.backfill import Backfill, Parameters
from gpudev_service.simulate.desk import Desk
from gpudev_service.simulate.measures import measure
from gpudev_service.simulate.planned import Planned
from gpudev_service.simulate.replay import Outcome, Rules, replay
from gpudev_service.simulate.requests import Request

MINUTE = 60_000
THERE = fleets.written(["t4=3x4"], {})
UNITS = 12


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    found = []
    at = 0
    for order in range(draw(st.integers(1, 14))):
        at += draw(st.integers(0, 90)) * MINUTE
        asked = draw(st.integers(1, 300)) * MINUTE
        nodes = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
        later = draw(st.none() | st.integers(0, 400))
        found.append(
            Request(
                order=order,
                at_ms=at,
                run_ms=max(1, round(asked * draw(st.sampled_from([0.01, 0.5, 1, 1, 1.7])))),
                asked_ms=asked,
                pool="t4",
                nodes=nodes,
                units=4 if nodes > 1 else draw(st.integers(1, 4)),
                user=draw(st.sampled_from(["ada", "ben"])),
                booked_ms=None if later is None or order % 5 else at + later * MINUTE,
            )
        )
    return found


def queue(rules: str) -> Rules:
    if rules == "planner":
        return Planned(THERE, 15_000)
    return Backfill(THERE, Parameters(exact=rules == "exact"))


POLICIES = {
    "wide": Policy(),
    "narrow": Policy(
        default=PolicyRule(max_hours=2, max_extension_hours=1, max_total_hours=3, max_gpus=12)
    ),
}


def held(found: Outcome) -> Iterable[tuple[int, int, int]]:
    """(Moment, whether it begins, GPUs) of every lease."""
    for parts in found.stays.values():
        for stay in parts:
            assert stay.begun_ms is not None
            assert stay.ended_ms is not None
            yield stay.begun_ms, 1, stay.part.request.gpus
            yield stay.ended_ms, 0, -stay.part.request.gpus


@pytest.mark.parametrize("rules", ["planner", "slurm", "exact"])
@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(wanted=requests())
def test_everybody_is_served_and_nothing_is_held_twice(
    rules: str, policy: str, wanted: list[Request]
) -> None:
    found = replay(wanted, queue(rules), Desk(POLICIES[policy], THERE.types))
    assert not found.refused
    for request in wanted:
        parts = found.stays[request.order]
        ran = [(one.ended_ms or 0) - (one.begun_ms or 0) for one in parts]
        assert sum(ran) == request.run_ms, "all of it, in as many parts as it takes"
        assert all(one.wait_ms >= 0 for one in parts)
    used = 0
    for _, _, gpus in sorted(held(found)):
        used += gpus
        assert 0 <= used <= UNITS
    if rules == "planner":
        assert measure(found, UNITS).late == 0
