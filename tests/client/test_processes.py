"""What still runs, by its threads: not by the first of them alone."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from gpudev_client.processes import goes_on, variable
from tests.e2e.waiting import until
from tests.fixtures.headless import headless

NAME = "GPUDEV_TEST_NAME"


def test_one_that_runs_has_its_environment() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=os.environ | {NAME: "ä=b"}
    ) as process:
        until(lambda: variable(process.pid, NAME), "the program is loaded")
        assert variable(process.pid, NAME) == "ä=b"
        assert variable(process.pid, f"{NAME}_2") is None
        assert goes_on(process.pid)


def test_one_that_has_ended_has_none_though_nobody_has_asked_for_its_end() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], env=os.environ | {NAME: "here"})
    seen = psutil.Process(process.pid)
    until(lambda: seen.status() == psutil.STATUS_ZOMBIE, "it has ended")
    assert not goes_on(process.pid)
    assert variable(process.pid, NAME) is None
    process.wait()
    assert not goes_on(process.pid)
    assert variable(process.pid, NAME) is None


def test_one_without_its_first_thread_goes_on() -> None:
    with headless({NAME: "here"}) as process:
        assert goes_on(process.pid)
        assert variable(process.pid, NAME) == "here"
        process.kill()
        process.wait()
        assert not goes_on(process.pid)
