"""A kill counts when somebody has died of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks.r2 import POINTS, Campaign
from tests.e2e import crash_points
from tests.e2e.conftest import MORTAL_HUB, MORTAL_SERVICE
from tests.e2e.database import Database
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub

pytestmark = [pytest.mark.hub, pytest.mark.slow]


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with RunningHub(hub_config=MORTAL_HUB, service_config=MORTAL_SERVICE) as hub:
        yield hub


@pytest.fixture
def campaign(hub: RunningHub, request: pytest.FixtureRequest) -> Iterator[Campaign]:
    made = Campaign(hub, Database(hub), None, random.Random(request.node.name))
    # People of an earlier test are there already.
    made.people = len(hub.api("GET", "users"))
    yield made
    made.settle()
    made.database.close()
    assert made.wrong == []


@pytest.mark.parametrize("point", [crash_points.SNAPSHOT_HALF, crash_points.ROUTED])
def test_a_point_is_armed_until_somebody_dies_at_it(campaign: Campaign, point: str) -> None:
    part = "hub" if point == crash_points.ROUTED else "service"
    before = campaign.hub.process(part)
    assert campaign.at_point(point)
    assert not before.is_running()
    assert dict(campaign.victims) == {f"{part} at {point}": 1}
    assert not campaign.unreached
    until(lambda: not campaign._wrong(), "everything is in order")


def test_who_is_not_reached_is_no_kill(campaign: Campaign) -> None:
    before = campaign.hub.process("service")
    campaign.reach = 0.0
    assert not campaign.at_point(crash_points.SNAPSHOT_HALF)
    assert not campaign.victims
    assert dict(campaign.unreached) == {crash_points.SNAPSHOT_HALF: 1}
    assert not crash_points.is_armed(campaign.hub.home, crash_points.SNAPSHOT_HALF)
    assert before.is_running()


def test_every_point_is_armed(campaign: Campaign) -> None:
    drawn = [campaign._choose() for _ in range(3 + len(POINTS))]
    assert sorted(drawn) == sorted(["service", "hub", "proxy", *POINTS])
    assert {*crash_points.IN_SERVICE, *crash_points.IN_HUB} <= set(drawn)
