"""The Hub's home page shows no servers that never were: rows of refused starts go at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gpudev_client.hub_api import ROWS
from gpudev_client.ids import new_id
from gpudev_hub_config.secrets import secret
from tests.fixtures.hub import RunningHub

from .conftest import Meet
from .person import Person, said
from .test_queue import ONE, holding, leave, queued
from .test_starting import running

pytestmark = pytest.mark.hub

#: The reconcile loop, which finds such rows in the end, does not run in these tests.
ALONE = """
c.GpuDev.times = {"reconcile": 3600}
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    hub = RunningHub(service_config=ALONE)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


def rows(person: Person) -> set[str]:
    user: dict[str, Any] = person.hub.api("GET", f"users/{person.name}?include_stopped_servers")
    return set(user["servers"])


def gone(person: Person, server: str) -> None:
    """Returns when the Hub has no row of the server any more."""
    person.hub._wait_until(lambda: server not in rows(person), f"the end of the row of {server}")


@pytest.mark.parametrize("options", [{"gpu_type": "v100", "hours": 1}, {"gpu_type": "t4"}, {}])
def test_a_start_that_the_api_refuses_leaves_no_row(
    hub: RunningHub, meet: Meet, options: dict[str, Any]
) -> None:
    ada = meet("api-ada", hub)
    for server in (new_id(), "own"):
        assert ada.start(server, **options).status_code in (400, 422)
        gone(ada, server)


def test_a_form_that_is_refused_leaves_no_row_and_can_be_sent_again(
    hub: RunningHub, meet: Meet
) -> None:
    ada, server = meet("form-ada", hub), new_id()
    form = ada.form(server)
    filled = {"gpu_type": "cpu-x86", "disk_choice": "none", "hours": "other", "name": "Second try"}
    assert ada.send(form, **filled, hours_other="soon").status_code == 400
    gone(ada, server)
    sent = ada.send(form, **filled, hours_other="1")
    assert sent.is_success, said(sent.text)
    (made,) = ada.reservations("preparing", "active")
    assert ada.until(made["id"], "active")["server_name"] == server
    assert server in rows(ada)


def test_whoever_leaves_the_queue_leaves_no_row(hub: RunningHub, meet: Meet) -> None:
    ada, server = meet("left-ada", hub), new_id()
    holding(meet("left-grace", hub))
    waiting = queued(ada, server)
    assert server in rows(ada)
    assert leave(ada, server) == 302
    ada.until(waiting["id"], "cancelled")
    gone(ada, server)


def test_a_refusal_removes_nothing_that_ran_or_waits(hub: RunningHub, meet: Meet) -> None:
    ada, grace = meet("kept-ada", hub), meet("kept-grace", hub)
    got = running(grace, "ran", **ONE)
    waiting = queued(ada, "waits")
    # One that runs or waits cannot be refused; the rows of others are looked at by their names.
    assert grace.api("DELETE", "users/kept-grace/servers/ran").status_code in (202, 204)
    grace.until(got["id"], "cancelled")
    ada.until(waiting["id"], "active")
    assert grace.start("ran", gpu_type="v100", hours=1).status_code == 422
    assert grace.start("never", gpu_type="v100", hours=1).status_code == 422
    gone(grace, "never")
    assert "ran" in rows(grace)
    assert "waits" in rows(ada)


def remove(person: Person, server: str, token: str) -> int:
    """What the Hub says to whoever wants the row of a server at rest to go."""
    return httpx.delete(
        f"{person.hub.url}/hub/api/{ROWS}/{person.name}/{server}",
        headers={"Authorization": f"token {token}"} if token else {},
        trust_env=False,
    ).status_code


def test_a_start_that_has_just_begun_is_not_taken_for_an_old_row(
    hub: RunningHub, meet: Meet
) -> None:
    """The service sees a row at rest; by the time that it asks for its removal the form is sent."""
    ada, grace = meet("quick-ada", hub), meet("quick-grace", hub)
    service = secret(hub.home / "secrets", "service_token")
    got = running(grace, "lab", **ONE)
    waiting = queued(ada, "next")
    assert remove(ada, "next", service) == 409
    assert remove(grace, "lab", service) == 409
    assert ada.reservations("queued"), "still in the queue"
    assert grace.api("DELETE", "users/quick-grace/servers/lab").status_code in (202, 204)
    assert remove(grace, "lab", service) == 204
    gone(grace, "lab")
    grace.until(got["id"], "cancelled")
    assert ada.until(waiting["id"], "active")["server_name"] == "next"


def test_a_row_goes_only_for_who_may_remove_servers(hub: RunningHub, meet: Meet) -> None:
    ada, server = meet("idle-ada", hub), new_id()
    ada.form(server)
    assert server in rows(ada)
    for token in (hub.user("idle-grace"), hub.spawner_token, ""):
        assert remove(ada, server, token) in (403, 404)
    assert server in rows(ada)
    assert remove(ada, server, secret(hub.home / "secrets", "service_token")) == 204
    assert server not in rows(ada)
    assert remove(ada, server, secret(hub.home / "secrets", "service_token")) == 404
