"""The service's clock where the machine's clocks misbehave."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from gpudev_service import clock as module
from gpudev_service.clock import SteadyClock, elapsed


class Suspended:
    """The clocks of a machine: `monotonic` stands still while it sleeps, two others go on."""

    def __init__(self) -> None:
        self.awake, self.slept = 100.0, 0.0
        self.day = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.day += timedelta(seconds=seconds)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = {
            time.CLOCK_MONOTONIC: lambda: self.awake,
            time.CLOCK_BOOTTIME: lambda: self.awake + self.slept,
        }
        monkeypatch.setattr(
            module,
            "time",
            SimpleNamespace(
                CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
                monotonic=lambda: self.awake,
                clock_gettime=lambda which: counts[which](),
            ),
        )
        monkeypatch.setattr(module, "datetime", SimpleNamespace(now=lambda _zone: self.day))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Suspended:
    made = Suspended()
    made.install(monkeypatch)
    return made


def test_a_machine_that_sleeps_for_a_night_does_not_make_leases_longer(machine: Suspended) -> None:
    clock = SteadyClock()
    begun = clock.now()
    machine.sleep(8 * 3600)
    assert clock.now() - begun == timedelta(hours=8)
    assert clock.drift() == timedelta(0), "nobody has moved the machine's clock"


def test_a_step_of_the_machines_clock_moves_no_lease(machine: Suspended) -> None:
    clock = SteadyClock()
    begun = clock.now()
    machine.day += timedelta(hours=1)
    assert clock.now() == begun
    assert clock.drift() == timedelta(hours=1)


def test_where_no_clock_counts_sleep_it_is_told_as_a_moved_clock(
    machine: Suspended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "sys", SimpleNamespace(platform="freebsd14"))
    clock = SteadyClock()
    machine.sleep(8 * 3600)
    assert clock.drift() == timedelta(hours=8)


def test_what_counts_here_is_never_behind_the_monotonic_clock() -> None:
    if sys.platform != "linux":
        pytest.skip("the two have nothing in common elsewhere")
    first = time.monotonic()
    assert elapsed() >= first
    before = elapsed()
    assert elapsed() >= before
