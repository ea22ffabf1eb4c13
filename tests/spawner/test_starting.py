"""Starting, stopping and crashing servers at a real Hub: every way in ends in a reservation or in a
refusal with a reason."""

from __future__ import annotations

import html
import os
import re
import select
import signal
from typing import Any

import httpx
import psutil
import pytest

from gpudev_spawner import names
from tests.e2e.waiting import until
from tests.fixtures.hub import ADMIN, RunningHub

from .conftest import Meet
from .person import Person, form_of, said

pytestmark = pytest.mark.hub


def server_of(reservation: str) -> psutil.Process:
    """The main process of a reservation's server."""
    found = [
        p for p in psutil.process_iter(["cmdline"])
        if any("jupyterhub-singleuser" in part for part in p.info["cmdline"] or [])
        and p.environ().get("GPUDEV_RESERVATION") == reservation
    ]  # fmt: skip
    # A child that has just been forked, to become another program, looks like its parent.
    pids = {process.pid for process in found}
    (main,) = (process for process in found if process.ppid() not in pids)
    return main


def crash(process: psutil.Process) -> None:
    """Kills a process and returns when it is dead, reaped or not."""
    handle = os.pidfd_open(process.pid)
    try:
        process.send_signal(signal.SIGKILL)
        assert select.select([handle], [], [], 30)[0]
    finally:
        os.close(handle)


def running(person: Person, server: str, **options: Any) -> dict[str, Any]:
    """A server that was started by the Hub's API, as its reservation."""
    answer = person.start(server, **options)
    assert answer.status_code in (201, 202), answer.text
    live = person.reservations("queued", "preparing", "active")
    mine = [r for r in live if r["server_name"] == server]
    assert len(mine) == 1
    return person.until(mine[0]["id"], "active")


def test_the_form_starts_a_server_on_exactly_its_gpus(meet: Meet) -> None:
    ada = meet("form-ada")
    page = ada.http.get("/hub/gpudev/new")
    server = page.url.path.rsplit("/", 1)[-1]
    form = form_of(page.text)
    assert form.options["gpus:t4"] == ["1", "2", "3", "4", "8"]
    sent = ada.send(form, gpu_type="t4", **{"gpus:t4": "2"}, hours="1", disk_choice="new",
                    new_disk="work", name="A run")  # fmt: skip
    assert sent.is_success, f"{sent.url.path} {said(sent.text)}"
    (made,) = ada.reservations("preparing", "active")
    got = ada.until(made["id"], "active")
    assert (got["server_name"], got["gpus"], got["disk"], got["name"]) == (
        server, 2, "work", "A run",
    )  # fmt: skip
    process = server_of(got["id"])
    seen = process.environ()
    gpu_ids = got["placement"][0]["gpu_ids"]
    assert seen["CUDA_VISIBLE_DEVICES"] == ",".join(gpu_ids)
    assert len(gpu_ids) == 2
    assert seen["GPUDEV_EXPIRES_AT"]
    assert seen["USER"] == "form-ada"
    assert seen["HOME"] == process.cwd()
    assert "spawner" not in str(seen.get("JUPYTERHUB_API_TOKEN"))


def test_a_start_asks_the_service_for_no_more_than_it_needs(
    meet: Meet, running_hub: RunningHub
) -> None:
    hub = running_hub
    headers = {"Authorization": f"token {hub.token(ADMIN)}"}

    def asked(route: str) -> float:
        told = httpx.get(f"{hub.service}/metrics", headers=headers, trust_env=False).text
        found = re.findall(rf'gpudev_requests_total{{route="{route}",.*}} (.*)', told)
        return sum(map(float, found))

    ada = meet("asks-ada")
    routes = ("list_reservations", "submit_reservation", "launch_server", "report_server")
    before = [asked(route) for route in routes]
    assert ada.start("asks", gpu_type="t4", gpus=1, hours=1).is_success
    [got] = hub.call("GET", "/reservations", ada.token).json()["items"]
    ada.until(got["id"], "active")

    def more() -> list[float]:
        return [asked(route) - was for route, was in zip(routes, before, strict=True)]

    # The lease is seen to be active before the call that made it so is over, and counted.
    until(lambda: more()[-1] >= 2, "the server's reports are counted", seen=more)
    assert more() == [1, 1, 1, 2], "the list was asked for here"


def test_a_stop_gives_the_gpus_back(meet: Meet) -> None:
    ada = meet("stop-ada")
    got = running(ada, "", gpu_type="t4", hours=1)
    process = server_of(got["id"])
    assert ada.api("DELETE", "users/stop-ada/server").status_code in (202, 204)
    ended = ada.until(got["id"], "cancelled")
    assert "owner" in ended["reason"]
    assert not process.is_running()


def test_a_crash_keeps_the_lease_and_the_form_offers_to_go_on(meet: Meet) -> None:
    ada = meet("crash-ada")
    got = running(ada, "crashrun", gpu_type="t4", hours=1)
    crash(server_of(got["id"]))
    # The Hub looks when it is asked to stop something that has died, and then it is not a stop.
    assert ada.api("DELETE", "users/crash-ada/servers/crashrun").status_code in (202, 204)
    form = ada.form("crashrun")
    assert form.buttons == {"reservation": got["id"]}
    sent = ada.send(form, reservation=got["id"])
    assert sent.is_success, said(sent.text)
    again = ada.until(got["id"], "active")
    assert again["id"] == got["id"]
    assert [r["id"] for r in ada.reservations("active")] == [got["id"]]


def test_deleting_a_crashed_server_gives_the_gpus_back(meet: Meet) -> None:
    ada = meet("delete-ada")
    got = running(ada, "gone", gpu_type="t4", hours=1)
    crash(server_of(got["id"]))
    answer = ada.api("DELETE", "users/delete-ada/servers/gone", {"remove": True})
    assert answer.status_code in (202, 204)
    assert ada.until(got["id"], "cancelled", "failed")["state"] == "cancelled"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "GPU type"),
        ({"gpu_type": "t4"}, "number of hours"),
        ({"gpu_type": "v100", "hours": 1}, "no GPU type"),
        ({"gpu_type": "t4", "hours": 1, "gpus": 5}, "Possible"),
        ({"gpu_type": "t4", "hours": 1000}, "hours"),
        ({"gpu_type": "t4", "hours": 1, "user": "root-admin"}, "no option"),
        ({"gpu_type": "t4", "hours": 1, "disk": "nowhere"}, "disk"),
        ({"reservation": "k3abcdefghij0123"}, "reservation"),
    ],
)
def test_the_hubs_api_refuses_with_a_reason_what_the_form_would(
    meet: Meet, options: dict[str, Any], sentence: str
) -> None:
    ada = meet("refused-ada")
    answer = ada.start("refused", **options)
    assert 400 <= answer.status_code < 500, answer.text
    assert sentence in answer.json()["message"]
    assert ada.reservations("queued", "preparing", "active") == []


def test_a_reservation_of_somebody_else_cannot_be_started(meet: Meet) -> None:
    ada, eve = meet("own-ada"), meet("own-eve")
    got = running(ada, "", gpu_type="cpu-x86", hours=1)
    answer = eve.start("", reservation=got["id"])
    assert answer.status_code == 404
    assert "own-ada" not in answer.text


def test_a_link_fills_the_form_and_starts_nothing(meet: Meet) -> None:
    ada = meet("link-ada")
    form = ada.form("", "?gpu_type=t4&gpus=2&hours=1.5&name=Linked")
    assert ada.reservations("queued", "preparing", "active") == []
    assert form.values["gpu_type"] == "t4"
    assert form.values["gpus:t4"] == "2"
    assert (form.values["hours"], form.values["hours_other"]) == ("other", "1.5")
    assert form.values["name"] == "Linked"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hours": "other", "hours_other": "soon"}, "hours"),
        ({"hours": "other", "hours_other": "900"}, "hours"),
        ({"gpu_type": "t4", "gpus:t4": "7"}, "gpus"),
        ({"disk_choice": "new", "new_disk": "my disk"}, "disk"),
    ],
)
def test_a_wrong_form_comes_back_as_it_was_typed(
    meet: Meet, changes: dict[str, str], field: str
) -> None:
    ada = meet("typed-ada")
    filled = {"gpu_type": "t4", "disk_choice": "none", "hours": "2", "name": 'So <b>"typed"'}
    sent = ada.send(ada.form("typed"), **{**filled, **changes})
    assert 400 <= sent.status_code < 500
    back = form_of(sent.text)
    assert back.faults[field]
    kept = {**filled, **changes}
    kept.pop("gpus:t4", None)  # seven cannot be chosen
    assert {key: back.values[key] for key in kept} == kept
    assert "<b>" not in sent.text


def test_all_that_is_wrong_is_said_at_once_each_at_its_field(meet: Meet) -> None:
    ada = meet("faulty-ada")
    # The form knows what a number and a disk's name are, the service what a type has to give.
    wrong = {
        "gpu_type": "t4", "gpus:t4": "7", "gpus:h100": "4", "hours": "other", "name": "Kept",
        "hours_other": "soon", "disk_choice": "new", "new_disk": "my disk",
    }  # fmt: skip
    sent = ada.send(ada.form("faulty"), **wrong)
    assert sent.status_code == 400
    back = form_of(sent.text)
    assert set(back.faults) == {"gpus", "hours", "disk"}
    for field, sentence in back.faults.items():
        assert html.unescape(sent.text).count(sentence) == 1
        assert sent.text.count(f'aria-describedby="gpudev-fault-{field}"') >= 1
        assert f'href="#gpudev-at-{field}"' in sent.text
        assert sent.text.count(f'id="gpudev-at-{field}"') == 1
    kept = {key: value for key, value in wrong.items() if key != "gpus:t4"}
    assert {key: back.values[key] for key in kept} == kept
    assert ada.reservations("queued", "preparing", "active") == []


def test_what_only_the_service_knows_is_said_about_every_field(meet: Meet) -> None:
    ada = meet("policy-ada")
    sent = ada.send(
        ada.form("policy"), gpu_type="v100", hours="other", hours_other="900",
        disk_choice="existing", disk="nowhere",
    )  # fmt: skip
    back = form_of(sent.text)
    assert set(back.faults) == {"gpu_type", "hours", "disk"}
    assert (back.values["hours_other"], back.values["disk_choice"]) == ("900", "new")


def test_a_refusal_that_concerns_no_field_is_said_once_above_the_form(meet: Meet) -> None:
    ada = meet("twice-ada")
    got = running(ada, "twice", gpu_type="cpu-x86", hours=1)
    sent = ada.send(ada.form("other"), reservation=got["id"])
    assert sent.status_code == 404
    assert sent.text.count("There is no such reservation") == 1


def test_joined_names_never_take_anothers_login(meet: Meet) -> None:
    short, long = meet("joi"), meet("joi-ned")
    refused = short.start("ned", gpu_type="cpu-x86", hours=1)
    assert refused.status_code == 409
    running(long, "", gpu_type="cpu-x86", hours=1)


def test_a_servers_login_is_that_of_no_other(meet: Meet) -> None:
    ada = meet("client-ada")
    got = running(ada, "work", gpu_type="cpu-x86", hours=1)
    told = server_of(got["id"]).environ()["JUPYTERHUB_CLIENT_ID"]
    assert told == names.client_id("client-ada", "work")


def test_the_plan_of_a_choice_is_for_its_person_only(meet: Meet) -> None:
    ada, eve = meet("plan-ada"), meet("plan-eve")
    query = {"gpu_type": "t4", "gpus:t4": "1", "hours": "1", "disk_choice": "none"}
    own = ada.http.get("/hub/gpudev/plan", params=query, headers={"X-XSRFToken": ada.xsrf})
    assert own.json()["starts_now"] is True
    foreign = eve.http.get("/hub/gpudev/plan", params={**query, "user": "plan-ada"})
    assert foreign.status_code == 404
    nobody = ada.hub.call("GET", "/../../../../hub/gpudev/plan")
    assert nobody.status_code in (302, 403, 404)


def test_an_orphan_of_a_killed_start_does_not_share_the_gpus(meet: Meet) -> None:
    ada = meet("orphan-ada")
    got = running(ada, "orphan", gpu_type="t4", hours=1)
    process = server_of(got["id"])
    stray = psutil.Popen(["sleep", "600"], env={**os.environ, "GPUDEV_RESERVATION": got["id"]})
    crash(process)
    ada.api("DELETE", "users/orphan-ada/servers/orphan")
    assert ada.start("orphan", reservation=got["id"]).status_code in (201, 202)
    assert stray.wait(timeout=30) == -signal.SIGKILL
