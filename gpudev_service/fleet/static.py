"""A fleet that an operator wrote down; simulated where the configuration says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpudev_service.settings import GpuTypeSpec, NodeSpec, Settings

from .base import Unchanging


class StaticFleet(Unchanging):
    """The nodes of the configuration, as they stand there."""

    def __init__(self, settings: Settings) -> None:
        self._types = settings.gpu_types
        self._nodes = tuple(_with_gpu_ids(node, settings) for node in settings.nodes)

    def nodes(self) -> Sequence[NodeSpec]:
        return self._nodes

    def types(self) -> Mapping[str, GpuTypeSpec]:
        return self._types


def _with_gpu_ids(node: NodeSpec, settings: Settings) -> NodeSpec:
    """A node without ids for its GPUs numbers them, as CUDA does. Shares have no device."""
    if node.gpu_ids:
        return node
    gpus = settings.gpu_types[node.gpu_type].gpus_per_node
    return node.model_copy(update={"gpu_ids": tuple(str(index) for index in range(gpus))})
