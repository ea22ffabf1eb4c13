"""Waiting for GPUs at a real Hub: seen, left, and kept over what happens to the Hub."""

from __future__ import annotations

import contextlib
import html
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.hub import RunningHub

from .conftest import Meet
from .person import Person, form_of, said
from .test_starting import running, server_of

pytestmark = pytest.mark.hub

#: The only GPU of its type.
ONE: dict[str, Any] = {"gpu_type": "t4-small", "hours": 1}


QUICK = """
c.GpuDev.times = {"turnover": 3.5, "hub_patience": 0.5, "sweep": 0.2}
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    """A Hub of these tests' own, which may be killed, and where the next in line starts at once."""
    hub = RunningHub(service_config=QUICK)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


def holding(holder: Person) -> dict[str, Any]:
    """The reservation of somebody who has the only GPU of its type."""
    return running(holder, "", **ONE)


def queued(person: Person, server: str = "waits") -> dict[str, Any]:
    """Waits in the queue; by the form, since the Hub's API makes its caller wait ten seconds."""
    sent = person.send(
        person.form(server), gpu_type=ONE["gpu_type"], hours="1", disk_choice="none", name="Waits"
    )
    assert sent.url.path.endswith(f"/spawn-pending/{person.name}/{server}"), said(sent.text)
    (waiting,) = person.reservations("queued")
    return waiting


def leave(person: Person, server: str = "waits", **changes: str) -> int:
    """The waiting page's button, as a browser without scripts sends it."""
    data = {"user": person.name, "server_name": server, "_xsrf": person.xsrf, **changes}
    answer = person.http.post("/hub/gpudev/leave", data=data, follow_redirects=False)
    return answer.status_code


def test_everybody_who_looks_sees_the_whole_state_at_once(meet: Meet) -> None:
    ada = meet("look-ada")
    holding(meet("look-grace"))
    waiting = queued(ada)
    for _ in range(2):  # nothing is replayed for the second one
        events = ada.progress("waits")
        said = next(event for event in events if event["progress"])
        assert said["message"].startswith("Next in the queue for 1 x t4-small: starts ")
        assert f'<time datetime="{waiting["promised_start"][:16]}' in said["html_message"]
        events.close()  # type: ignore[attr-defined]
    page = ada.http.get("/hub/spawn-pending/look-ada/waits").text
    assert "Next in the queue for 1 x t4-small" in page  # without any script, too
    assert leave(ada) == 302


def test_the_queue_can_be_left_from_the_page(meet: Meet) -> None:
    ada = meet("leave-ada")
    holding(meet("leave-grace"))
    waiting = queued(ada)
    assert leave(ada, _xsrf="") == 403  # not from another site's page
    assert leave(ada) == 302
    left = ada.until(waiting["id"], "cancelled")
    assert "left the queue" in left["reason"]
    assert form_of(ada.http.get("/hub/spawn/leave-ada/waits").text).values["gpu_type"]


def test_nobody_can_leave_for_somebody_else(meet: Meet) -> None:
    ada, eve = meet("mine-ada"), meet("mine-eve")
    holding(meet("mine-grace"))
    waiting = queued(ada)
    assert leave(eve, user="mine-ada") == 404
    still = ada.hub.call("GET", f"/reservations/{waiting['id']}", ada.token).json()
    assert still["state"] == "queued"
    leave(ada)


def test_stopping_a_waiting_server_leaves_the_queue(meet: Meet) -> None:
    ada = meet("stopq-ada")
    holding(meet("stopq-grace"))
    waiting = queued(ada)
    assert ada.api("DELETE", "users/stopq-ada/servers/waits").status_code in (202, 204)
    ada.until(waiting["id"], "cancelled")


def test_cancelling_elsewhere_ends_the_waiting_start_with_the_reason(
    meet: Meet,
) -> None:
    ada = meet("else-ada")
    holding(meet("else-grace"))
    waiting = queued(ada)
    events = ada.progress("waits")
    next(events)
    path = f"/reservations/{waiting['id']}?reason=not+needed"
    assert ada.hub.call("DELETE", path, ada.token).is_success
    last = list(events)[-1]
    assert last["failed"]
    assert "not needed" in last["html_message"]


def test_the_next_in_line_starts_when_the_one_before_stops(hub: RunningHub, meet: Meet) -> None:
    ada, grace = meet("next-ada", hub), meet("next-grace", hub)
    holding(grace)
    waiting = queued(ada)
    assert grace.api("DELETE", "users/next-grace/server").status_code in (202, 204)
    got = ada.until(waiting["id"], "active")
    assert got["first_promised_start"] >= got["starts_at"]
    assert server_of(got["id"]).environ()["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_hub_that_ends_takes_nobody_out_of_the_queue(
    hub: RunningHub, meet: Meet, how: signal.Signals
) -> None:
    ada, grace = meet(f"ada-{how.name.lower()}", hub), meet(f"grace-{how.name.lower()}", hub)
    held = running(grace, "", **ONE)
    waiting = queued(ada)
    server = server_of(held["id"])
    hub.end("hub", how)
    hub.start_hub()
    # The server is the same one, known to the new Hub, and nobody has lost anything.
    assert server.is_running()
    user = hub.api("GET", f"users/{grace.name}?include_stopped_servers")
    assert user["servers"][""]["ready"]
    still = hub.call("GET", f"/reservations/{waiting['id']}", ada.token).json()
    assert still["state"] == "queued"
    assert hub.call("GET", f"/reservations/{held['id']}", grace.token).json()["state"] == "active"
    # A stop is a stop for the new Hub too, and then the next in line starts without a Hub's page.
    assert grace.api("DELETE", f"users/{grace.name}/server").status_code in (202, 204)
    grace.until(held["id"], "cancelled")
    assert ada.until(waiting["id"], "active")["server_name"] == "waits"


def test_after_a_restart_the_form_shows_the_place_and_the_queue_can_be_left(
    hub: RunningHub, meet: Meet
) -> None:
    ada, grace = meet("ada", hub), meet("grace", hub)
    running(grace, "", **ONE)
    waiting = queued(ada)
    hub.end("hub", signal.SIGKILL)
    hub.start_hub()
    form = ada.form("waits")
    assert form.buttons == {"reservation": waiting["id"]}
    assert leave(ada) == 302
    ada.until(waiting["id"], "cancelled")


FAILING = """
PROGRAMS = {programs!r}
c.Spawner.pre_spawn_hook = lambda spawner: spawner.set_trait("cmd", [PROGRAMS[spawner.user.name]])
# Some have longer than the service allows.
c.Spawner.auth_state_hook = lambda spawner, _: spawner.set_trait(
    "start_timeout", 5 if spawner.user.name in ("ends", "missing", "hangs") else 100
)
"""
LIMIT = """
c.GpuDev.times = {"start_limit": 8}
"""


@pytest.fixture(scope="module")
def failing_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A Hub whose servers do not come up, for a reason that the user's name tells."""
    sleeps = tmp_path_factory.mktemp("programs") / "sleeps"
    sleeps.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeps.chmod(0o755)
    programs = {"ends": "/bin/false", "missing": "/nowhere/program"}
    programs |= dict.fromkeys(("hangs", "slow", "unwanted"), str(sleeps))
    hub = RunningHub(hub_config=FAILING.format(programs=programs), service_config=LIMIT)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ends", "exit code 1"),
        ("missing", "not installed"),
        ("hangs", "did not answer within 5 seconds"),
    ],
)
def test_a_server_that_does_not_come_up_frees_the_gpu_and_says_why(
    failing_hub: RunningHub, meet: Meet, name: str, sentence: str
) -> None:
    person = meet(name, failing_hub)
    answer = person.start("", **ONE)
    assert answer.status_code == 409, answer.text
    assert sentence in answer.json()["message"]
    made = failing_hub.call("GET", "/reservations", person.token).json()["items"][0]
    failed = person.until(made["id"], "failed")
    assert sentence in failed["reason"]
    assert failed["active_at"] is None
    free = failing_hub.call("GET", "/availability?gpu_type=t4-small", person.token).json()["items"]
    assert free[0]["free"] == 1
    # Whoever comes later reads it, too.
    page = person.http.get(f"/hub/spawn-pending/{name}").text
    assert sentence in page


def failing(person: Person, server: str) -> dict[str, Any]:
    """Starts what will never come up, by the form; the reservation."""
    sent = person.send(person.form(server), gpu_type=ONE["gpu_type"], hours="1", disk_choice="none")
    assert sent.url.path.endswith(f"/spawn-pending/{person.name}/{server}"), said(sent.text)
    (made,) = person.reservations("preparing")
    return made


def read_everywhere(person: Person, made: dict[str, Any], server: str, state: str) -> str:
    """The reason of a start that failed: as the stream and the page of the Hub say it, once the
    service has dealt with it."""
    (last,) = [event for event in person.progress(server) if event.get("failed")]
    reason: str = person.until(made["id"], state)["reason"]
    page = person.http.get(f"/hub/spawn-pending/{person.name}/{server}").text
    for text in (last["html_message"], page):
        assert html.escape(reason) in text
    return reason


def test_a_start_that_the_service_gives_up_says_why_everywhere(
    failing_hub: RunningHub, meet: Meet
) -> None:
    slow = meet("slow", failing_hub)
    server = "slowserver012345"  # as gpudev names them: its row stays until the reason was read
    reason = read_everywhere(slow, failing(slow, server), server, "failed")
    assert "did not come up within 8 s" in reason


def test_a_start_that_is_cancelled_elsewhere_says_why_everywhere(
    failing_hub: RunningHub, meet: Meet
) -> None:
    person = meet("unwanted", failing_hub)
    made = failing(person, "waits")
    path = f"/reservations/{made['id']}?reason=not+needed"
    assert failing_hub.call("DELETE", path, person.token).is_success
    assert "not needed" in read_everywhere(person, made, "waits", "cancelled")


CLEANING = """
c.JupyterHub.cleanup_servers = True
c.GpuDevLocalSpawner.interrupt_timeout = c.GpuDevLocalSpawner.term_timeout = 1
"""


def test_a_hub_that_is_told_to_end_its_servers_still_gives_nothing_back() -> None:
    hub = RunningHub(hub_config=CLEANING)
    try:
        hub.start()
        with contextlib.closing(Person(hub, "ada")) as ada:
            got = running(ada, "", **ONE)
            hub.end("hub")
            hub.start_hub()
            again = hub.call("GET", f"/reservations/{got['id']}", ada.token).json()
            assert again["state"] == "active"
    finally:
        hub.remove()
