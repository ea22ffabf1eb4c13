"""The PostgreSQL of a running service stands still for a while, and closes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from gpudev_client.models import Health
from gpudev_client.states import State
from tests.fixtures.frozen import frozen
from tests.fixtures.hub import RunningHub
from tests.fixtures.postgres import PostgresServer, started

from .conftest import LIGHT_SERVERS, SHORT
from .people import Person
from .waiting import until

pytestmark = [pytest.mark.hub, pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that the test may freeze."""
    with started() as own:
        yield own


@pytest.fixture
def hub(server: PostgresServer) -> Iterator[RunningHub]:
    url = f"{server.url(server.create_database())}?tcp_user_timeout=500&connect_timeout=2"
    hub = RunningHub(
        hub_config=LIGHT_SERVERS, service_config=f"{SHORT}\nc.GpuDev.db_url = {url!r}\n"
    )
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


def health(hub: RunningHub) -> tuple[int, Health]:
    answer = hub.call("GET", "/health")
    return answer.status_code, Health.model_validate(answer.json())


def test_calls_say_so_and_leases_end_afterwards_without_a_restart(
    server: PostgresServer, hub: RunningHub
) -> None:
    ada, grace = Person(hub, "ada"), Person(hub, "grace")
    lease = ada.reserve(hours=1)
    ada.until_state(lease.id, State.ACTIVE)
    before = hub.process("service")
    with frozen(server):
        for answer in (grace.ask(), grace.call("GET", "/reservations")):
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
            assert "The database is away" in answer.json()["error"]["message"]
        code, said = health(hub)
        assert (code, said.status, said.database) == (503, "degraded", False)
        failed = until(
            lambda: {loop.name for loop in health(hub)[1].loops if not loop.ok},
            "a loop says that the database is away",
        )
        assert failed
    made = grace.reserve()
    assert made.state is State.QUEUED
    assert [r.id for r in grace.reservations()] == [made.id]
    ada.cancel(lease.id)
    grace.until_state(made.id, State.ACTIVE)
    until(lambda: health(hub)[1].status == "ok", "all is well again", seen=lambda: health(hub))
    assert hub.process("service") == before
