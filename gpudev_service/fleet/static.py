"""A fleet that an operator wrote down; simulated where the configuration says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpudev_service.config import ConfigurationError
from gpudev_service.settings import GpuTypeSpec, NodeSpec, Settings

from .base import Unchanging


class StaticFleet(Unchanging):
    """The nodes of the configuration, as they stand there.

    Raises:
        ConfigurationError: two nodes are the same GPUs.
    """

    def __init__(self, settings: Settings) -> None:
        self._types = settings.gpu_types
        self._nodes = tuple(_with_gpu_ids(node, settings) for node in settings.nodes)
        if settings.servers == "local":
            self._need_own_gpus()

    def nodes(self) -> Sequence[NodeSpec]:
        return self._nodes

    def types(self) -> Mapping[str, GpuTypeSpec]:
        return self._types

    def _need_own_gpus(self) -> None:
        """Local servers run on this machine, whatever their nodes are called: a device that two
        nodes have would be given to two leases."""
        owners: dict[str, str] = {}
        for node in self._nodes:
            if node.simulated:
                continue
            for device in node.gpu_ids[: self._types[node.gpu_type].gpus_per_node]:
                if device in owners:
                    raise ConfigurationError(_twice(owners[device], node.name, device))
                owners[device] = node.name


def _twice(one: str, other: str, device: str) -> str:
    whose = f"node {one!r} has it twice" if one == other else f"{one!r} and {other!r} both have it"
    return (
        f"GpuDev.nodes: gpu_ids: two leases could get this machine's GPU {device} at the same "
        f"time: {whose}. Accepted: gpu_ids that no other node has, as "
        '"gpu_ids": ["4", "5"] (a node without them has 0, 1, ...), or "simulated": True.'
    )


def _with_gpu_ids(node: NodeSpec, settings: Settings) -> NodeSpec:
    """A node without ids for its GPUs numbers them, as CUDA does. Shares have no device."""
    if node.gpu_ids:
        return node
    gpus = settings.gpu_types[node.gpu_type].gpus_per_node
    return node.model_copy(update={"gpu_ids": tuple(str(index) for index in range(gpus))})
