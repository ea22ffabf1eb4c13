"""GPU types and what is free of them when."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from .base import Answer

_ADDED = Field(
    default=None, description="How long it takes to add a node where none is free, if any."
)


class GpuType(Answer):
    """A named kind of capacity as the caller may use it.

    `counts` are the numbers of GPUs that can be asked for (`[0]` for a type without GPUs, whose
    nodes are shared by `shares_per_node` people). `cpus` and `memory_gb` are a whole node's.
    """

    name: str
    label: str
    description: str = ""
    gpus_per_node: int
    shares_per_node: int = 1
    max_nodes: int = 1
    counts: list[int]
    cpus: int
    memory_gb: int
    gpu_memory_gb: int | None = None
    min_hours: float
    max_hours: float
    default_hours: float
    maintenance: str | None = None
    simulated: bool = False
    added_within_minutes: float | None = _ADDED
    images: list[str] = Field(
        default=[],
        description="Patterns of container images that the caller may ask for in place of the "
        "usual one.",
    )


class EarliestStart(Answer):
    """The earliest start for `gpus` GPUs; None where the fleet cannot give that many."""

    gpus: int
    starts_at: AwareDatetime | None
    reason: str | None = None


class Availability(Answer):
    """What one GPU type offers now. GPUs, or shares for a type without GPUs."""

    gpu_type: str
    total: int
    free: int
    drained: int = 0
    queue_length: int
    hours: float = Field(description="The length for which `earliest` was computed.")
    earliest: list[EarliestStart]
    maintenance: str | None = None
    simulated: bool = False
    added_within_minutes: float | None = _ADDED
