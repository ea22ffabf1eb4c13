"""Which processes of somebody are ended who must not come in any more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from gpudev_client.ids import MARK, new_id
from gpudev_lab.sshd import daemon, processes

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def somebody() -> str:
    """A mark that no other process of this machine has."""
    return daemon.mark(new_id())


@pytest.fixture
def start(somebody: str) -> Iterator[Start]:
    begun: list[subprocess.Popen[bytes]] = []

    def make(reservation: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, MARK: reservation, daemon.MARK: somebody}
        begun.append(subprocess.Popen(["sleep", "300"], env=environment))
        return begun[-1]

    yield make
    for one in begun:
        one.kill()
        one.wait()


def test_those_in_other_servers_of_the_machine_go_on(
    monkeypatch: pytest.MonkeyPatch, somebody: str, start: Start
) -> None:
    """Whoever is removed from one lease keeps what they run in their own, and elsewhere."""
    here, elsewhere = new_id(), new_id()
    ours, theirs = start(here), start(elsewhere)
    monkeypatch.setenv(MARK, here)
    processes.end(None, somebody)
    assert not psutil.pid_exists(ours.pid)
    assert theirs.poll() is None
