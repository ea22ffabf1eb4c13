"""The fleet that is written in the configuration: its nodes do not have one another's GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpudev_service.config import ConfigurationError
from gpudev_service.fleet import StaticFleet
from gpudev_service.settings import GpuTypeSpec, NodeSpec, Settings

TYPES = {
    "t4": GpuTypeSpec(name="t4", gpus_per_node=2, cpus=16, memory_gb=64),
    "a100": GpuTypeSpec(name="a100", gpus_per_node=2, cpus=16, memory_gb=64),
    "cpu": GpuTypeSpec(name="cpu", gpus_per_node=0, shares_per_node=4, cpus=16, memory_gb=64),
}


def fleet(*nodes: dict[str, Any], **settings: Any) -> StaticFleet:
    specs = tuple(NodeSpec(**{"name": f"n{at}", **node}) for at, node in enumerate(nodes))
    return StaticFleet(Settings(gpu_types=TYPES, nodes=specs, data_dir=Path("/srv"), **settings))


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (({"gpu_type": "t4"}, {"gpu_type": "t4"}), "GPU 0 .*'n0' and 'n1' both have it"),
        (({"gpu_type": "t4"}, {"gpu_type": "a100"}), "GPU 0 .*'n0' and 'n1' both have it"),
        # The host of a node says nothing to servers that are processes of this machine.
        (
            ({"gpu_type": "t4", "host": "a"}, {"gpu_type": "t4", "host": "b"}),
            "GPU 0 .*'n0' and 'n1' both have it",
        ),
        (
            ({"gpu_type": "t4"}, {"gpu_type": "a100", "gpu_ids": ("2", "1")}),
            "GPU 1 .*'n0' and 'n1' both have it",
        ),
        (({"gpu_type": "t4", "gpu_ids": ("3", "3")},), "GPU 3 .*node 'n0' has it twice"),
    ],
)
def test_gpus_of_two_nodes_are_refused(nodes: tuple[dict[str, Any], ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"GpuDev\.nodes: gpu_ids: .*{said}.*Accepted"):
        fleet(*nodes)


@pytest.mark.parametrize(
    "nodes",
    [
        ({"gpu_type": "t4"}, {"gpu_type": "a100", "gpu_ids": ("2", "3")}),
        ({"gpu_type": "t4"}, {"gpu_type": "t4", "simulated": True}),
        ({"gpu_type": "t4", "simulated": True}, {"gpu_type": "t4", "simulated": True}),
        ({"gpu_type": "t4"}, {"gpu_type": "cpu"}, {"gpu_type": "cpu"}),
        # More ids than the type has GPUs: nobody gets the rest.
        ({"gpu_type": "t4"}, {"gpu_type": "t4", "gpu_ids": ("2", "3", "0")}),
    ],
)
def test_nodes_with_their_own_gpus_are_taken(nodes: tuple[dict[str, Any], ...]) -> None:
    assert len(fleet(*nodes).nodes()) == len(nodes)


def test_pods_get_their_gpus_from_the_cluster() -> None:
    nodes = {"gpu_type": "t4"}, {"gpu_type": "t4"}
    assert [node.gpu_ids for node in fleet(*nodes, servers="kubernetes").nodes()] == [
        ("0", "1"),
        ("0", "1"),
    ]
