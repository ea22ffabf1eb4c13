"""Between the pods of one reservation: OpenSSH with the reservation's own keys."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudev_lab.sshd import daemon, worker
from gpudev_spawner import workers
from tests.spawner.pods import KEY, plan
from tools.ports import free_port

pytestmark = pytest.mark.ssh


class Pod:
    """The files of a reservation's pods, and an SSH server as a worker runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        launch = plan(nodes=["a", "b"], count=4)
        secret = workers.secret(KEY, launch, workers.new_key(), workers.new_key())
        # What runs in a cluster has another folder, port and network; nothing else differs.
        changes = {
            workers.FOLDER: str(folder),
            f"Port {workers.SSH_PORT}": f"Port {self.port}",
            f"HostName %h.gpudev-{KEY}": "HostName 127.0.0.1",
        }
        for name, text in secret["stringData"].items():
            changed = text
            for before, after in changes.items():
                changed = changed.replace(before, after)
            (folder / name).write_text(changed)
            (folder / name).chmod(0o600)
        environment = {
            **workers.environment(KEY, launch, 1),
            "GPUDEV_SSH": str(folder),
            "HOME": str(folder),
            "NVIDIA_VISIBLE_DEVICES": "GPU-7",
        }
        text = worker.configuration(environment, daemon.account())
        config = folder / "sshd_config"
        config.write_text(text.replace(f"Port {worker.PORT}\n", f"Port {self.port}\n"))
        sshd = daemon.program("sshd", "/usr/sbin")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "Server listening" in line:
                return
        raise AssertionError("sshd did not start")

    def ssh(self, *command: str, config: str = "ssh_config") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssh", "-F", str(self.folder / config), "rank-1", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    made = Pod(tmp_path)
    yield made
    made.close()


def test_a_name_is_enough_and_the_environment_is_the_pods(pod: Pod) -> None:
    done = pod.ssh("echo $RANK $WORLD_SIZE $PET_NODE_RANK $NVIDIA_VISIBLE_DEVICES")
    assert (done.returncode, done.stdout) == (0, "4 8 1 GPU-7\n"), done.stderr


def test_another_host_key_is_refused(pod: Pod) -> None:
    known = pod.folder / "known_hosts"
    known.write_text(f"gpudev-{KEY} {workers.new_key().public}\n")
    done = pod.ssh("true")
    assert done.returncode == 255
    assert "verification failed" in done.stderr.lower()


def test_another_key_opens_nothing(pod: Pod) -> None:
    (pod.folder / "id_ed25519").write_text(workers.new_key().private)
    assert pod.ssh("true").returncode == 255


def test_the_same_port_and_folder_on_both_sides() -> None:
    assert worker.PORT == workers.SSH_PORT
    assert workers.environment(KEY, plan(nodes=["a", "b"]), 0)[worker.FOLDER] == workers.FOLDER
    assert shutil.which("ssh") is not None
