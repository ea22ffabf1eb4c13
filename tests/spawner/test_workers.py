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


#: Options of torchrun about nodes and their rendezvous. Each has its default from `PET_` and its
#: name in capitals, as `torch/distributed/run.py` declares them with `action=env`.
TORCHRUN = {
    "nnodes",
    "nproc_per_node",
    "node_rank",
    "master_addr",
    "master_port",
    "local_addr",
    "rdzv_backend",
    "rdzv_endpoint",
    "rdzv_id",
    "rdzv_conf",
}


@pytest.mark.parametrize(
    ("nodes", "count", "rank", "expected"),
    [
        (
            2,
            8,
            1,
            {
                "MASTER_ADDR": f"rank-0.gpudev-{KEY}",
                "MASTER_PORT": "29500",
                "NNODES": "2",
                "NODE_RANK": "1",
                "RANK": "8",
                "WORLD_SIZE": "16",
                "LOCAL_WORLD_SIZE": "8",
                "PET_NNODES": "2",
                "PET_NPROC_PER_NODE": "8",
                "PET_NODE_RANK": "1",
                "PET_MASTER_ADDR": f"rank-0.gpudev-{KEY}",
                "PET_MASTER_PORT": "29500",
            },
        ),
        # Without GPUs a process on each node.
        (
            3,
            0,
            0,
            {
                "MASTER_ADDR": f"rank-0.gpudev-{KEY}",
                "MASTER_PORT": "29500",
                "NNODES": "3",
                "NODE_RANK": "0",
                "RANK": "0",
                "WORLD_SIZE": "3",
                "LOCAL_WORLD_SIZE": "1",
                "PET_NNODES": "3",
                "PET_NPROC_PER_NODE": "1",
                "PET_NODE_RANK": "0",
                "PET_MASTER_ADDR": f"rank-0.gpudev-{KEY}",
                "PET_MASTER_PORT": "29500",
            },
        ),
    ],
)
def test_launchers_find_what_they_look_for(
    nodes: int, count: int, rank: int, expected: dict[str, str]
) -> None:
    launch = plan(nodes=[f"n{number}" for number in range(nodes)], count=count)
    found = workers.environment(KEY, launch, rank)
    own = {name: value for name, value in found.items() if name.startswith("GPUDEV_")}
    assert found == {**expected, **own}
    assert set(own) == {"GPUDEV_SSH", "GPUDEV_HOSTFILE"}


def test_torchrun_has_an_option_for_each_of_its_variables() -> None:
    """Also torchrun's rendezvous stays its own: `static`, at the master's address, by rank."""
    found = workers.environment(KEY, plan(nodes=["a", "b"]), 0)
    options = {name.removeprefix("PET_").lower() for name in found if name.startswith("PET_")}
    assert options <= TORCHRUN
    assert not {name for name in options if name.startswith("rdzv_")}
