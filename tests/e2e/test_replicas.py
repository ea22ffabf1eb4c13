"""Two replicas of the service: one leads, the other takes over, and nothing happens twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpudev_client.states import State
from tests.fixtures.postgres import PostgresServer

from . import crash_points
from .conftest import LIGHT_SERVERS, SHORT
from .people import Person
from .replicas import ReplicatedHub, replicated

pytestmark = [pytest.mark.hub, pytest.mark.slow]


@pytest.fixture(scope="module")
def hub(postgres_server: PostgresServer) -> Iterator[ReplicatedHub]:
    with replicated(
        postgres_server,
        hub_config=f"{LIGHT_SERVERS}\n{crash_points.FOR_HUB}",
        service_config=f"{SHORT}\n{crash_points.FOR_SERVICE}",
    ) as running:
        yield running


def test_the_other_takes_over_from_one_that_was_killed(hub: ReplicatedHub) -> None:
    ada = Person(hub, "ada")
    lease = ada.reserve(hours=1)
    leader, standby = hub.leader(), hub.standby()
    epoch = hub.lead()["epoch"]
    leader.lose()
    assert hub.leader() is standby
    assert hub.lead()["epoch"] == int(str(epoch)) + 1
    ada.until_state(lease.id, State.ACTIVE)
    ada.cancel(lease.id)
    ada.until_over(lease.id, State.CANCELLED)
    leader.start()
    leader.until_ready()
    assert not leader.leads()
