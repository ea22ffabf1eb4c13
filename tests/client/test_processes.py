"""What still runs, by its threads: not by the first of them alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gpudev_client import processes
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


def test_another_accounts_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read them all but for some: here the file cannot be read by anybody."""
    first = tmp_path / "7" / "task" / "7"
    first.mkdir(parents=True)
    (first / "stat").write_text("7 (a) b) S 1")
    (first / "environ").mkdir()
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    monkeypatch.setattr(Path, "read_bytes", _refused)
    assert goes_on(7)
    assert variable(7, NAME) is None


def _refused(_: Path) -> bytes:
    raise PermissionError
