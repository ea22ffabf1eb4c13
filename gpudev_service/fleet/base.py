"""The seam between the service and whatever provides nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gpudev_service.settings import GpuTypeSpec, NodeSpec


class Fleet(Protocol):
    """A source of nodes. What it returns is a snapshot; a node that is `ready=False` keeps its
    leases and gets nothing new."""

    def nodes(self) -> Sequence[NodeSpec]:
        """All nodes, in the operator's order."""
        ...

    def types(self) -> Mapping[str, GpuTypeSpec]:
        """The GPU types by name; sources that look at hardware may add to the configured ones."""
        ...
