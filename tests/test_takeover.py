"""The service outlives a killed Hub, and the restarted Hub's takes over (real processes)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gpudev_service.takeover import Occupied, lock
from tests.fixtures.hub import RunningHub

#: A process that holds the lock; `gpudev` in its command line makes it one of ours.
_HOLDER = textwrap.dedent(
    """
    import signal, sys, time
    from pathlib import Path
    from gpudev_service.takeover import lock
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with lock(Path(sys.argv[1])):
        print("locked", flush=True)
        signal.pause()
    """
)


def holder(folder: Path, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder), *words, "gpudev"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_one_before_is_asked_to_end(tmp_path: Path) -> None:
    before = holder(tmp_path)
    with lock(tmp_path):
        assert before.wait() == -signal.SIGTERM
        assert (tmp_path / "service.lock").read_text() == f"{os.getpid()}\n"
    assert before.stdout is not None
    before.stdout.close()


def test_a_crash_leaves_no_lock(tmp_path: Path) -> None:
    before = holder(tmp_path)
    before.kill()
    before.wait()
    with lock(tmp_path, patience=0):
        pass
    assert before.stdout is not None
    before.stdout.close()


def test_one_that_does_not_end_is_left_alone(tmp_path: Path) -> None:
    before = holder(tmp_path, "stubborn")
    try:
        with pytest.raises(Occupied, match=str(before.pid)), lock(tmp_path, patience=0.3):
            pass
        assert before.poll() is None
    finally:
        before.kill()
        before.wait()
        assert before.stdout is not None
        before.stdout.close()


def test_a_process_id_that_belongs_to_somebody_else_is_not_ended(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    before = holder(tmp_path, "stubborn")
    try:
        (tmp_path / "service.lock").write_text(f"{stranger.pid}\n")
        with pytest.raises(Occupied), lock(tmp_path, patience=0.3):
            pass
        assert stranger.poll() is None
    finally:
        for process in (before, stranger):
            process.kill()
            process.wait()
        assert before.stdout is not None
        before.stdout.close()


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    made = RunningHub()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.mark.hub
@pytest.mark.slow
def test_a_killed_hub_leaves_the_service_and_the_next_one_gets_its_own(hub: RunningHub) -> None:
    token = hub.user("tess")
    made = hub.call(
        "POST", "/reservations", token,
        {"gpu_type": "h100", "hours": 1, "starts_at": "2026-12-24T00:00:00Z"},
    )  # fmt: skip
    before = hub.process("service")
    hub.end("hub", signal.SIGKILL)
    assert before.is_running()
    # Nobody can be asked who calls; the service lives, and says so.
    assert hub.call("GET", "/health/live").status_code == 200
    hub.start_hub()
    after = hub.process("service")
    assert after.pid != before.pid
    gone, _ = psutil.wait_procs([before], timeout=10)
    assert gone
    answer = hub.call("GET", f"/reservations/{made.json()['id']}", token)
    assert answer.status_code == 200
    hub.end("hub")
    gone, _ = psutil.wait_procs([after], timeout=10)
    assert gone, "a Hub that ends in order ends its service"
