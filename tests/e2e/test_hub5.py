"""The flow once on JupyterHub 5, the oldest line that is supported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from gpudev_client.states import State
from tests import tiers
from tests.fixtures.hub import RunningHub

from .conftest import SHORT, TURNOVER
from .kernel import run_inside
from .people import Person, people
from .waiting import until

pytestmark = pytest.mark.hub5


@pytest.fixture
def hub5() -> Iterator[RunningHub]:
    hub = RunningHub(python=tiers.hub5_python(), service_config=SHORT)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


@pytest.fixture
def person(hub5: RunningHub) -> Iterator[Callable[[str], Person]]:
    with people(lambda name: Person(hub5, name)) as make:
        yield make


def test_the_flow_on_the_oldest_hub(hub5: RunningHub, person: Callable[[str], Person]) -> None:
    version = hub5.api("GET", "")["version"]
    assert version.startswith("5."), version
    ada, grace = person("ada"), person("grace")

    page = ada.fill_form(
        "/hub/gpudev/new",
        gpu_type="t4-small",
        hours="other",
        hours_other="1 min",
        disk_choice="new",
        new_disk="thesis",
    )
    name = Path(page.path).name
    assert page.path == f"/hub/spawn-pending/ada/{name}", page.text
    first = ada.of_server(name)
    assert first is not None
    first = ada.until_state(first.id, State.ACTIVE)
    until(lambda: (ada.server(name) or {}).get("ready"), "the Hub shows the server as up")
    code = "import os, json; print(json.dumps({k: v for k, v in os.environ.items()}))"
    inside = json.loads(run_inside(ada, first, code))
    assert inside["CUDA_VISIBLE_DEVICES"] == "0"
    assert inside["GPUDEV_RESERVATION"] == first.id

    answer = ada.call("POST", f"/reservations/{first.id}/extension", {"hours": 5 / 3600})
    assert answer.is_success, answer.text
    longer = ada.look(first.id)
    assert longer.expires_at is not None
    assert first.expires_at is not None
    assert longer.expires_at - first.expires_at == timedelta(seconds=5)

    # A refusal is an answer of the Hub's API, a queue is its pending page.
    refused = grace.start("x", {"gpu_type": "t4-small", "hours": 1000})
    assert refused.status_code == httpx.codes.CONFLICT, refused.text
    assert "hours" in refused.json()["message"]
    page = grace.fill_form("/hub/spawn", gpu_type="t4-small", hours="0.5", disk_choice="none")
    assert page.path == "/hub/spawn-pending/grace", page.text
    assert "Next in the queue" in page.text
    second = grace.of_server("")
    assert second is not None
    answer = ada.call("POST", f"/reservations/{first.id}/extension", {"hours": 0.01})
    assert answer.status_code == httpx.codes.CONFLICT, answer.text

    ada.until_over(first.id, State.EXPIRED)
    stopping = next(h for h in ada.history(first.id) if h.state is State.STOPPING)
    assert longer.expires_at <= stopping.at <= longer.expires_at + TURNOVER
    begun = grace.until_state(second.id, State.ACTIVE)
    assert begun.starts_at is not None
    assert second.promised_start is not None
    assert begun.starts_at <= second.promised_start
    snapshots = ada.call("GET", "/disks/thesis/snapshots").json()["items"]
    assert [(s["cause"], s["state"]) for s in snapshots] == [("end", "ready")]
    grace.stop("")
    grace.until_over(second.id, State.CANCELLED)
