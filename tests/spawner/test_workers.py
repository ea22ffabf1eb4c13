"""Several nodes: the keys, names and rules that the pods of a reservation share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gpudev_spawner import workers

from .pods import KEY, plan


@pytest.mark.ssh
def test_the_keys_fit_each_other_and_openssh(tmp_path: Path) -> None:
    key = workers.new_key()
    path = tmp_path / "key"
    path.write_text(key.private)
    path.chmod(0o600)
    made = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)], check=True, capture_output=True, text=True
    )
    assert made.stdout.split()[:2] == key.public.split()[:2]
    assert workers.new_key() != key


def test_the_secret_has_what_ssh_and_mpirun_look_for() -> None:
    client, server = workers.new_key(), workers.new_key()
    secret = workers.secret(KEY, plan(nodes=["a", "b", "c"], count=4), client, server)
    files = secret["stringData"]
    assert secret["metadata"]["name"] == f"gpudev-{KEY}"
    assert files["authorized_keys"].startswith(client.public)
    assert files["known_hosts"].split()[0] == f"gpudev-{KEY}"
    assert files["hostfile"] == "rank-0 slots=4\nrank-1 slots=4\nrank-2 slots=4\n"
    assert f"HostName %h.gpudev-{KEY}" in files["ssh_config"]
    assert "StrictHostKeyChecking yes" in files["ssh_config"]


def test_names_are_there_while_pods_start() -> None:
    service = workers.service(KEY)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"hub.jupyter.org/gpudev-reservation": KEY}


def test_only_pods_of_one_reservation_may_talk() -> None:
    own = {"matchLabels": {"hub.jupyter.org/gpudev-reservation": KEY}}
    spec = workers.policy(KEY)["spec"]
    assert spec["podSelector"] == own
    assert spec["ingress"] == [{"from": [{"podSelector": own}]}]
    assert spec["egress"] == [{"to": [{"podSelector": own}]}]


def test_everything_goes_with_the_servers_pod() -> None:
    made = workers.owned(workers.service(KEY), "server", "u-1")
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "server", "uid": "u-1"}
    ]
    assert made["metadata"]["name"] == f"gpudev-{KEY}"


@pytest.mark.parametrize(("count", "rank", "expected"), [(8, 1, ("8", "16")), (0, 1, ("1", "2"))])
def test_ranks_are_pytorchs(count: int, rank: int, expected: tuple[str, str]) -> None:
    found = workers.environment(KEY, plan(nodes=["a", "b"], count=count), rank)
    assert (found["RANK"], found["WORLD_SIZE"]) == expected
    assert found["PET_NODE_RANK"] == str(rank)
