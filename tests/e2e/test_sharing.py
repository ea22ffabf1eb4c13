"""One invitation opens a running server to somebody else, one removal closes it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests import tiers
from tests.fixtures.hub import RunningHub

from .conftest import LIGHT_SERVERS, SHORT
from .people import Person
from .waiting import until


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("6", marks=pytest.mark.hub),
        pytest.param("5", marks=pytest.mark.hub5),
    ],
)
def hub(request: pytest.FixtureRequest) -> Iterator[RunningHub]:
    python = tiers.hub5_python() if request.param == "5" else sys.executable
    hub = RunningHub(python=python, service_config=SHORT, hub_config=LIGHT_SERVERS)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


def opens(visitor: Person, reservation: Reservation) -> int:
    """What the server answers a visitor with a token of theirs."""
    answer = httpx.get(
        f"{visitor.hub.url}/user/{reservation.user}/{reservation.server_name}/api/status",
        headers={"Authorization": f"token {visitor.token}"},
        timeout=60.0,
        trust_env=False,
    )
    return answer.status_code


def shared_at_the_hub(hub: RunningHub, user: str) -> list[Any]:
    return [share["server"]["name"] for share in hub.api("GET", f"users/{user}/shared")["items"]]


def test_an_invitation_before_the_lease_and_its_removal(
    hub: RunningHub, person: Callable[[str], Person]
) -> None:
    ada, grace, linus = person("ada"), person("grace"), person("linus")
    got = ada.reserve(hours=1)
    people = f"/reservations/{got.id}/collaborators"
    assert ada.call("PUT", f"{people}/grace", {}).is_success
    assert ada.call("PUT", f"{people}/linus", {"role": "view"}).is_success
    got = ada.until_state(got.id, State.ACTIVE)
    until(lambda: opens(grace, got) == httpx.codes.OK, "grace is let in")
    assert opens(linus, got) == httpx.codes.FORBIDDEN
    assert [one.id for one in grace.reservations(State.ACTIVE)] == [got.id]
    assert shared_at_the_hub(hub, "grace") == [got.server_name]
    assert ada.call("DELETE", f"{people}/grace").is_success
    until(lambda: opens(grace, got) == httpx.codes.FORBIDDEN, "grace is out")
    assert shared_at_the_hub(hub, "grace") == []
    assert grace.reservations() == []


def test_a_hub_that_was_killed_lets_in_who_was_invited_meanwhile(
    hub: RunningHub, person: Callable[[str], Person]
) -> None:
    alan, joan = person("alan"), person("joan")
    got = alan.reserve(hours=1)
    got = alan.until_state(got.id, State.ACTIVE)
    hub.end("hub", signal.SIGKILL)
    hub.start_hub()
    until(
        lambda: alan.call("PUT", f"/reservations/{got.id}/collaborators/joan", {}).is_success,
        "joan is invited",
    )
    until(lambda: opens(joan, got) == httpx.codes.OK, "joan is let in")
