"""The main flow through the Hub's own form: GPUs, disk, queue, extension, end, the next one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import LEASED, State
from tests.fixtures.hub import RunningHub
from tests.fixtures.processes import marked

from .conftest import TURNOVER
from .kernel import run_inside
from .people import Person
from .waiting import until

pytestmark = pytest.mark.hub

SWEEP = timedelta(seconds=1)

_LOOK_AROUND = """
import json, os, pathlib, subprocess, sys
from gpudev_client import GpuDev
pathlib.Path.home().joinpath("work.txt").write_text("done in the first lease")
command = pathlib.Path(sys.executable).with_name("gpu-dev")
shown = subprocess.run([command, "show", "--json"], capture_output=True, text=True)
print(json.dumps({
    "environment": {k: v for k, v in os.environ.items() if "TOKEN" not in k},
    "cwd": os.getcwd(),
    "sdk": [r.id for r in GpuDev().reservations()],
    "show": json.loads(shown.stdout) if shown.returncode == 0 else shown.stderr,
}))
"""


def _lease(found: Reservation) -> timedelta:
    assert found.starts_at is not None
    assert found.expires_at is not None
    return found.expires_at - found.starts_at


#: Long enough for JupyterLab to start on a busy machine, and for what the test does then.
LENGTH, TYPED = timedelta(minutes=1), "1 min"


def test_from_the_form_to_the_next_in_line(
    hub: RunningHub, person: Callable[[str], Person]
) -> None:
    ada, grace = person("ada"), person("grace")
    first = _reserve_by_form(ada)
    first = _is_as_promised_inside(ada, first)
    assert _lease(first) == LENGTH
    first = _extends_while_nobody_waits(ada, first)
    second = _queues_behind(grace, first)
    _cannot_extend_over(ada, first)
    ended = _ends_on_time(ada, first)
    _is_next(grace, second, ended)
    _left_nothing_behind(hub, first)
    _comes_back_with_its_disk(ada, first)


def _reserve_by_form(ada: Person) -> Reservation:
    page = ada.browser.open("/hub/gpudev/new")
    form = page.form("/hub/spawn")
    assert form.offered["gpu_type"] == ["h100", "t4", "t4-small", "cpu-x86"]
    assert form.offered["gpus:t4"] == ["1", "2", "3", "4", "8"]
    assert "1 of 1 free now" in page.text
    name = Path(page.path).name
    pending = ada.browser.send(
        form,
        page,
        gpu_type="t4-small",
        hours="other",
        hours_other=TYPED,
        disk_choice="new",
        new_disk="thesis",
        name="Night run",
    )
    assert pending.path == f"/hub/spawn-pending/ada/{name}", pending.text
    made = ada.of_server(name)
    assert made is not None
    assert (made.gpu_type, made.gpus, made.disk, made.name) == (
        "t4-small",
        1,
        "thesis",
        "Night run",
    )
    return ada.until_state(made.id, State.ACTIVE)


def _is_as_promised_inside(ada: Person, made: Reservation) -> Reservation:
    until(lambda: (ada.server(made.server_name) or {})["ready"], "the Hub shows the server as up")
    seen = json.loads(run_inside(ada, made, _LOOK_AROUND))
    env = seen["environment"]
    assert env["CUDA_VISIBLE_DEVICES"] == ",".join(made.placement[0].gpu_ids) == "0"
    assert env["GPUDEV_RESERVATION"] == made.id
    assert env["GPUDEV_GPU_TYPE"] == "t4-small"
    where = (env["GPUDEV_GPUS"], env["GPUDEV_NODE"], env["GPUDEV_NODES"])
    assert where == ("1", "small-1", "small-1")
    assert (env["GPUDEV_DISK"], env["GPUDEV_SIMULATED"]) == ("thesis", "1")
    assert made.expires_at is not None
    assert env["GPUDEV_EXPIRES_AT"] == made.expires_at.isoformat()
    assert env["HOME"] == seen["cwd"]
    assert str(ada.hub.data_dir) in env["HOME"]
    assert seen["sdk"] == [made.id]
    assert seen["show"]["id"] == made.id
    return made


def _extends_while_nobody_waits(ada: Person, made: Reservation) -> Reservation:
    answer = ada.call("POST", f"/reservations/{made.id}/extension", {"hours": 5 / 3600})
    assert answer.is_success, answer.text
    longer = Reservation.model_validate(answer.json())
    assert longer.expires_at is not None
    assert made.expires_at is not None
    assert longer.expires_at - made.expires_at == timedelta(seconds=5)
    return longer


def _queues_behind(grace: Person, first: Reservation) -> Reservation:
    page = grace.fill_form(
        "/hub/spawn",
        gpu_type="t4-small",
        hours="other",
        hours_other=TYPED,
        disk_choice="none",
    )
    assert page.path == "/hub/spawn-pending/grace", page.text
    waiting = grace.of_server("")
    assert waiting is not None
    assert waiting.state is State.QUEUED
    assert waiting.position == 1
    assert first.expires_at is not None
    assert waiting.promised_start is not None
    late = waiting.promised_start - (first.expires_at + TURNOVER)
    assert timedelta(0) <= late < timedelta(milliseconds=2)
    page = grace.browser.open("/hub/spawn-pending/grace")
    assert re.search(r"Next in the queue for .*t4-small.*: starts .* at the latest", page.text)
    return waiting


def _cannot_extend_over(ada: Person, first: Reservation) -> None:
    offer = ada.call("GET", f"/reservations/{first.id}/extension").json()
    assert offer["possible_hours"] == pytest.approx(0, abs=0.0005)
    assert offer["limited_by"]
    answer = ada.call("POST", f"/reservations/{first.id}/extension", {"hours": 0.01})
    assert answer.status_code == httpx.codes.CONFLICT, answer.text
    assert ada.look(first.id).expires_at == first.expires_at


def _ends_on_time(ada: Person, first: Reservation) -> Reservation:
    ended = ada.until_over(first.id, State.EXPIRED)
    history = ada.history(first.id)
    stopping = next(h for h in history if h.state is State.STOPPING)
    assert first.expires_at is not None
    assert first.expires_at <= stopping.at <= first.expires_at + SWEEP
    snapshots = ada.call("GET", "/disks/thesis/snapshots").json()["items"]
    assert [(s["cause"], s["state"]) for s in snapshots] == [("end", "ready")]
    inside = ada.call("GET", f"/disks/thesis/contents?snapshot={snapshots[0]['id']}").json()
    assert "work.txt" in [entry["name"] for entry in inside["items"]]
    return ended


def _is_next(grace: Person, second: Reservation, ended: Reservation) -> None:
    begun = grace.until_state(second.id, State.PREPARING, State.ACTIVE)
    assert begun.starts_at is not None
    assert begun.first_promised_start == second.first_promised_start
    assert second.promised_start is not None
    assert begun.starts_at <= second.promised_start
    assert ended.expires_at is not None
    assert begun.starts_at > ended.expires_at
    assert not [h for h in grace.history(second.id) if h.kind == "promise"], "it was moved"
    grace.until_state(second.id, State.ACTIVE)


def _left_nothing_behind(hub: RunningHub, first: Reservation) -> None:
    assert not marked("GPUDEV_RESERVATION", first.id)
    until(
        lambda: first.server_name not in hub.api("GET", "users/ada")["servers"],
        "the server's row is gone from the Hub",
    )


def _comes_back_with_its_disk(ada: Person, first: Reservation) -> None:
    again = ada.reserve(gpu_type="t4", gpus=1, hours=1, disk=first.disk)
    again = ada.until_state(again.id, State.ACTIVE)
    assert again.id != first.id
    assert again.state in LEASED
    found = ada.inside(again, "contents/work.txt")
    assert found.json()["content"] == "done in the first lease"
    handle = json.loads(run_inside(ada, again, "import os, json; print(json.dumps(os.getpid()))"))
    assert Path(f"/proc/{handle}/cwd").readlink().joinpath("work.txt").is_file()
