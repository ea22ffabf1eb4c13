"""One invitation opens a running server to somebody else, one removal closes it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests import tiers
from tests.fixtures.hub import RunningHub

from .conftest import LIGHT_SERVERS, SHORT
from .kernel import run_inside
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


def opens(visitor: Person, reservation: Reservation, token: str = "") -> int:
    """What the server answers a visitor with a token of theirs, or with the one given."""
    answer = httpx.get(
        f"{visitor.hub.url}/user/{reservation.user}/{reservation.server_name}/api/status",
        headers={"Authorization": f"token {token or visitor.token}"},
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
    # Whoever works in the server can read its own token: it must open nothing by itself.
    kept = run_inside(ada, got, "import os; print(os.environ['JUPYTERHUB_API_TOKEN'], end='')")
    assert opens(grace, got, kept) == httpx.codes.FORBIDDEN
    said = {"servers": {got.server_name: {"last_activity": datetime.now(UTC).isoformat()}}}
    hub.api("POST", "users/ada/activity", said, token=kept)
    assert ada.call("DELETE", f"{people}/grace").is_success
    until(lambda: opens(grace, got) == httpx.codes.FORBIDDEN, "grace is out")
    assert opens(grace, got, kept) == httpx.codes.FORBIDDEN
    assert opens(ada, got) == httpx.codes.OK
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
