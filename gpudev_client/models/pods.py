"""How a reservation's server runs as pods of a Kubernetes cluster."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .base import Answer


class PodLaunch(Answer):
    """What each pod of a reservation is made with.

    `nodes` are names of Kubernetes nodes by rank: the server's pod runs on the first, a worker on
    each other one. `count` of `resource` goes to each pod (`resource` is None without GPUs). `cpus`
    and `memory_bytes` are each pod's guaranteed part of its node; memory is its limit too. `claim`
    is the PersistentVolumeClaim of the disk, for rank 0; `shared_claim` one for all ranks. `image`
    is the one that the person asked for, which policy has let through. `network_policy`: whether
    pods of several nodes need a NetworkPolicy to reach each other.
    """

    nodes: list[str] = Field(min_length=1)
    resource: str | None = None
    count: int = Field(default=0, ge=0)
    cpus: float = Field(gt=0)
    memory_bytes: int = Field(gt=0)
    tolerations: list[dict[str, Any]] = []
    node_selector: dict[str, str] = {}
    runtime_class: str | None = None
    profiling: bool = False
    claim: str | None = None
    shared_claim: str | None = None
    image: str | None = None
    network_policy: bool = False

    @property
    def workers(self) -> int:
        """How many pods there are besides the server's."""
        return len(self.nodes) - 1
