"""The demo as a person meets it: it comes up, says what it is, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from gpudev_client import Client
from gpudev_client.models import GpuType, ReservationRequest
from gpudev_client.states import State
from gpudev_hub_config.local import Ports
from gpudev_service.fleet.nvml import find_gpus
from tests.tiers import ROOT
from tools.demo import parts, place
from tools.demo.__main__ import examples
from tools.ports import free_port

pytestmark = [pytest.mark.hub, pytest.mark.slow]


def demo(directory: Path, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.demo"],
        cwd=ROOT,
        env={**os.environ, "DEMO_DIR": str(directory), "DEMO_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "demo"
    yield path
    for process in marked(path):  # what a failing test has left
        process.kill()


def marked(directory: Path) -> list[psutil.Process]:
    return parts.marked(place.Place(directory, Ports()))


def lines_until(process: subprocess.Popen[str], word: str) -> str:
    """What the demo prints up to a line with `word`."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if word in line:
            return printed
    raise AssertionError(printed)


def kind(name: str, gpus: int) -> GpuType:
    limits = {"min_hours": 0.1, "max_hours": 24.0, "default_hours": 1.0}
    size = {"counts": [gpus], "cpus": 8, "memory_gb": 64}
    return GpuType.model_validate(
        {"name": name, "label": name, "gpus_per_node": gpus, **size, **limits}
    )


def test_what_it_suggests_is_on_this_machine() -> None:
    cpu, small, big = kind("cpu", 0), kind("t4", 1), kind("h100", 8)
    assert examples([cpu, big, small]) == (big, small)
    assert examples([small, cpu]) == (small, small)


def test_it_comes_up_is_usable_and_ends_without_leftovers(directory: Path) -> None:
    port = free_port()
    with demo(directory, port) as process:
        printed = lines_until(process, "Ctrl-C")
        assert f"http://127.0.0.1:{port}" in printed
        assert all(name in printed for name in ("ada", "grace", "root-admin"))
        if not find_gpus():
            assert "ask for 8 x NVIDIA H100, then" in printed
            assert "gpu-dev reserve --gpu-type t4 --gpus 1 --hours 0.5" in printed
        environment = directory / "env"
        assert stat.S_IMODE(environment.stat().st_mode) == 0o600
        known = dict(line.split("=", 1) for line in environment.read_text().splitlines())
        answer = httpx.get(
            f"{known['GPUDEV_URL']}/api/v1/me",
            headers={"Authorization": f"token {known['GPUDEV_TOKEN']}"},
            trust_env=False,
        )
        assert answer.json()["name"] == "ada"
        for child in marked(directory):
            assert not any(known["GPUDEV_TOKEN"] in word for word in child.cmdline())
        process.send_signal(signal.SIGINT)
        assert "has ended" in lines_until(process, "Its data stays")
        assert process.wait() == 0
    assert marked(directory) == []


def client_of(directory: Path) -> Client:
    """A client with ada's token, as the demo has written it down."""
    lines = (directory / "env").read_text().splitlines()
    known = dict(line.split("=", 1) for line in lines)
    return Client(known["GPUDEV_URL"], known["GPUDEV_TOKEN"])


def test_running_leases_survive_the_end_of_the_demo(directory: Path) -> None:
    port = free_port()
    with demo(directory, port) as process:
        lines_until(process, "Ctrl-C")
        asked = ReservationRequest(gpu_type="cpu-x86", hours=1, name="Long training")
        with client_of(directory) as client:
            lease = client.reserve(asked).id
            for event in client.events(lease):
                if event.reservation.state is State.ACTIVE:
                    break
        process.send_signal(signal.SIGINT)
        printed = lines_until(process, "Its data stays")
        assert "Long training (ada, cpu-x86, no GPU, until " in printed
        assert "starts their servers again" in printed
    assert marked(directory) == []
    with demo(directory, port) as process:
        printed = lines_until(process, "Ctrl-C")
        assert "Long training" in printed
        assert "its server is started again" in printed
        with client_of(directory) as client:
            assert client.reservation(lease).state is State.ACTIVE
        servers = [p for p in marked(directory) if p.environ().get("GPUDEV_RESERVATION") == lease]
        assert servers
        process.send_signal(signal.SIGINT)
        lines_until(process, "Its data stays")
    assert marked(directory) == []


def test_a_demo_that_is_killed_takes_proxy_hub_and_service_with_it(directory: Path) -> None:
    port = free_port()
    with demo(directory, port) as process:
        lines_until(process, "Ctrl-C")
        started = marked(directory)
        process.kill()
    gone, left = psutil.wait_procs(started, timeout=60)
    assert (len(gone), left) == (len(started), [])
    assert place.is_free(port)


def test_a_taken_port_is_said_plainly(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with demo(directory, taken.getsockname()[1]) as process:
            out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "in use" in out
    assert "DEMO_PORT=" in out
    assert "Traceback" not in out


def test_a_second_demo_leaves_the_first_ones_data_alone(directory: Path) -> None:
    with place.hold(directory), demo(directory, free_port()) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Another demo runs" in out
    assert "DEMO_DIR=" in out
    assert not (directory / "ports.json").exists()


def test_a_directory_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with demo(tmp_path / "file" / "demo", free_port()) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot keep its data" in out
    assert "Traceback" not in out


def test_a_part_that_does_not_start_ends_the_others(directory: Path) -> None:
    """The service cannot have its directory: somebody put a file in its place."""
    directory.mkdir()
    (directory / "service").write_text("")
    with demo(directory, free_port()) as process:
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "has ended" in out
    assert marked(directory) == []
