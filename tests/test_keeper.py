"""The service's keeper, with real processes and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpudev_service.keeper import AGAIN
from tests.tiers import ROOT

_CODE = """
import os, pathlib, signal, sys
from gpudev_service.keeper import keep

def work():
    print(os.getpid(), os.getppid(), flush=True)
    signal.pause() if sys.argv[1] == "serve" else sys.exit(int(sys.argv[1]))

keep(work, young=float(sys.argv[2]))
"""


class Kept:
    """A keeper whose service says its process id and waits, or ends with a code."""

    def __init__(self, what: str = "serve", young: float = 0.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, what, str(young)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def service(self) -> int:
        """The process id of the service that has just begun; 0 where none begins any more."""
        assert self.process.stdout is not None
        pid, _, parent = self.process.stdout.readline().partition(" ")
        assert not pid or int(parent) == self.process.pid
        return int(pid or 0)

    def end(self) -> int:
        """The keeper's exit code; nothing may be left of what it kept."""
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def test_a_killed_service_runs_again_at_once() -> None:
    kept = Kept()
    first = kept.service()
    os.kill(first, signal.SIGKILL)
    second = kept.service()
    assert second not in (0, first)
    os.kill(second, signal.SIGSEGV)
    assert kept.service() not in (0, first, second)
    kept.process.terminate()
    assert kept.end() == 128 + signal.SIGTERM


def test_a_service_that_wants_to_begin_anew_runs_again() -> None:
    kept = Kept(str(AGAIN))
    first = kept.service()
    assert kept.service() not in (0, first)
    kept.process.terminate()
    while kept.service():
        pass
    assert kept.end() in (AGAIN, 128 + signal.SIGTERM)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_service_that_ends_by_itself_does_not_run_again(code: int) -> None:
    kept = Kept(str(code))
    assert kept.service()
    assert kept.service() == 0
    assert kept.end() == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_end_reaches_the_service(number: signal.Signals) -> None:
    kept = Kept()
    service = kept.service()
    kept.process.send_signal(number)
    assert kept.end() == 128 + number
    assert not Path(f"/proc/{service}").exists()


def test_a_service_that_is_asked_to_end_by_its_successor_does_not_run_again() -> None:
    kept = Kept()
    os.kill(kept.service(), signal.SIGTERM)
    assert kept.service() == 0
    assert kept.end() == 128 + signal.SIGTERM


def test_a_service_that_dies_young_again_and_again_is_left_to_the_hub() -> None:
    kept = Kept(young=60.0)
    deaths = 0
    while service := kept.service():
        os.kill(service, signal.SIGKILL)
        deaths += 1
    assert deaths == 5
    assert kept.end() == 1


def test_a_service_outlives_its_keeper() -> None:
    kept = Kept()
    service = kept.service()
    kept.process.kill()
    kept.process.wait(30)
    os.kill(service, 0)
    os.kill(service, signal.SIGKILL)
    kept.end()
