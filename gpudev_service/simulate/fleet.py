"""The nodes that a trace is replayed on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpudev_service.settings import GpuTypeSpec, NodeSpec

from .trace import TraceError

_FORM = re.compile(r"([^=]+)=(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class Fleet:
    """GPU types, and for each the units of its nodes, by the nodes' names."""

    types: Mapping[str, GpuTypeSpec]
    nodes: Mapping[str, Mapping[str, int]]

    @property
    def units(self) -> int:
        return sum(sum(units.values()) for units in self.nodes.values())

    def described(self) -> str:
        """In words: "16 nodes of h100, 128 GPUs"."""
        parts = [
            f"{len(units)} node{'' if len(units) == 1 else 's'} of {name}, {sum(units.values())} "
            f"{'GPUs' if self.types[name].gpus_per_node else 'shares'}"
            for name, units in self.nodes.items()
        ]
        return "; ".join(parts)


def configured(types: Mapping[str, GpuTypeSpec], nodes: Sequence[NodeSpec]) -> Fleet:
    """The fleet of a configuration. Nodes that are out of service are in: the trace was not."""
    found: dict[str, dict[str, int]] = {}
    for node in nodes:
        spec = types[node.gpu_type]
        units = spec.units_of(node)
        found.setdefault(node.gpu_type, {})[node.name] = units
    return Fleet({name: types[name] for name in found}, found)


def written(texts: Sequence[str], types: Mapping[str, GpuTypeSpec]) -> Fleet:
    """A fleet written as `h100=16x8`: 16 nodes of 8 GPUs. What else is known of a type is kept.

    Raises:
        TraceError: a text is not of that form.
    """
    specs: dict[str, GpuTypeSpec] = {}
    nodes: dict[str, dict[str, int]] = {}
    for text in texts:
        found = _FORM.fullmatch(text.strip())
        count, units = (int(found[2]), int(found[3])) if found else (0, 0)
        if found is None or not 1 <= count <= 10_000 or not 1 <= units <= 1024:  # noqa: PLR2004
            raise TraceError(
                f"{text!r} is no fleet. Accepted: TYPE=NODESxGPUS, as h100=16x8 for 16 nodes of 8"
                " GPUs; up to 10000 nodes of up to 1024."
            )
        name = found[1]
        if name in nodes:
            raise TraceError(f"{name} stands twice in the fleet.")
        specs[name] = _spec(name, count, units, types.get(name))
        nodes[name] = {f"{name}-{at:0{len(str(count))}}": units for at in range(1, count + 1)}
    return Fleet(specs, nodes)


def _spec(name: str, count: int, units: int, known: GpuTypeSpec | None) -> GpuTypeSpec:
    if known is not None and known.units_per_node == units:
        return known
    from pydantic import ValidationError

    try:
        return GpuTypeSpec(name=name, gpus_per_node=units, max_nodes=count, cpus=1, memory_gb=1)
    except ValidationError:
        raise TraceError(
            f"{name!r} is no name of a GPU type. Accepted: small letters, digits and dashes."
        ) from None
