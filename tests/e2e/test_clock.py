"""A real service whose machine has a wrong clock, or has slept; the Hub's is right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from gpudev_client.states import State
from tests.fixtures.hub import RunningHub

from .conftest import LIGHT_SERVERS, SHORT
from .people import Person
from .waiting import until

pytestmark = [pytest.mark.hub, pytest.mark.slow]

MONTH = 31 * 24 * 3600.0
#: What the service's machine says: its time of day is `step` ahead, and for `slept` it was
#: suspended, which no monotonic clock has counted.
CLOCK = """
import os, pathlib, time as _time
from datetime import datetime, timedelta
from types import SimpleNamespace
from gpudev_service import clock as _clock

_HOME = pathlib.Path(os.environ["GPUDEV_TESTS_DIR"])

def _read(name):
    path = _HOME / name
    return float(path.read_text()) if path.exists() else 0.0

class _Wrong(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(seconds=_read("step") + _read("slept"))

_clock.datetime = _Wrong
_clock.time = SimpleNamespace(
    CLOCK_BOOTTIME=_time.CLOCK_BOOTTIME,
    monotonic=_time.monotonic,
    clock_gettime=lambda which: _time.clock_gettime(which) + _read("slept"),
)
"""


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    hub = RunningHub(hub_config=LIGHT_SERVERS, service_config=f"{SHORT}\n{CLOCK}")
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


def step(hub: RunningHub, name: str, seconds: float) -> None:
    path = hub.home / name
    new = path.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(path)


def again(hub: RunningHub) -> None:
    """The service is killed and begins again, with whatever clock there is now."""
    before = hub.process("service")
    before.kill()

    def answers() -> bool:
        try:
            return hub.process("service").pid != before.pid and clock_of(hub) is not None
        except (httpx.TransportError, KeyError, psutil.NoSuchProcess):
            return False

    until(answers, "the service is back")


def clock_of(hub: RunningHub) -> dict[str, Any] | None:
    answer = hub.call("GET", "/health")
    if not answer.is_success:
        return None
    return next(dict(loop) for loop in answer.json()["loops"] if loop["name"] == "clock")


def test_a_clock_a_month_ahead_at_the_start_removes_nothing(hub: RunningHub) -> None:
    ada = Person(hub, "ada")
    assert ada.call("POST", "/disks", {"name": "work"}).is_success
    assert ada.call("DELETE", "/disks/work").is_success
    lease = ada.reserve(gpu_type="cpu-x86", gpus=0, hours=1)
    ada.until_state(lease.id, State.ACTIVE)
    step(hub, "step", MONTH)
    again(hub)

    def told() -> bool:
        clock = clock_of(hub)
        return clock is not None and "ahead of the Hub's" in str(clock["message"])

    until(told, "it is told", seen=lambda: clock_of(hub))
    clock = clock_of(hub)
    assert clock is not None
    assert not clock["ok"]
    assert re.search(r"clock is 3[01] days (23 h )?ahead of the Hub's", clock["message"])
    assert "nothing is removed for good" in clock["message"]
    until(lambda: "nothing is removed for good now" in hub.logs(), "retention has looked")
    ada.until_over(lease.id, State.EXPIRED)

    step(hub, "step", 0.0)
    again(hub)

    def remembered() -> bool:
        clock = clock_of(hub)
        return clock is not None and "behind the last entry" in str(clock["message"])

    until(remembered, "the clock that was ahead is told", seen=lambda: clock_of(hub))
    assert ada.call("POST", "/disks/work/restoration", {}).is_success, "it is still there"
    # Once more: the last event is not one of the clock that was ahead any more.
    ada.reserve(gpu_type="cpu-x86", gpus=0, hours=1)
    again(hub)
    until(lambda: (clock_of(hub) or {}).get("ok"), "all is well", seen=lambda: clock_of(hub))


def test_a_lease_that_ends_while_the_machine_sleeps_ends_when_it_is_awake(hub: RunningHub) -> None:
    ada = Person(hub, "ada")
    lease = ada.reserve(hours=2)
    ada.until_state(lease.id, State.ACTIVE)
    step(hub, "slept", 8 * 3600.0)
    ada.until_over(lease.id, State.EXPIRED)
    assert "this machine has slept for " in hub.logs()
