"""The fleet's nodes as the planner takes them, made anew only where a node is another one.

Each transaction that plans compares all nodes with those of the last one. Most often none has
changed; then they are the same objects, and nothing is made or compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpudev_service import planner
from gpudev_service.settings import GpuTypeSpec, NodeSpec

#: A node as the fleet has it, and as the planner takes it.
Pair = tuple[NodeSpec, planner.Node]


class PlannerNodes:
    """What was made last, of one fleet."""

    def __init__(self) -> None:
        self._fleet: Sequence[NodeSpec] | None = None
        self._drained: frozenset[str] = frozenset()
        self._sizes: dict[str, int] = {}
        self._pairs: dict[str, Pair] = {}
        self._by_type: dict[str, list[Pair]] = {}

    def by_type(
        self,
        fleet: Sequence[NodeSpec],
        types: Mapping[str, GpuTypeSpec],
        drained: frozenset[str],
    ) -> Mapping[str, Sequence[Pair]]:
        """The nodes of each type that has any, in the fleet's order.

        Args:
            fleet: all nodes; an object of its own whenever one of them is different.
            types: for how many units a node has where it does not say so itself.
            drained: nodes on which an operator wants nothing new.
        """
        sizes = {name: spec.units_per_node for name, spec in types.items()}
        same = drained == self._drained and sizes == self._sizes
        if same and fleet is self._fleet:
            return self._by_type
        known = self._pairs if same else {}
        self._fleet, self._drained, self._sizes = fleet, drained, sizes
        self._pairs, self._by_type = {}, {}
        for spec in fleet:
            pair = known.get(spec.name)
            if pair is None or pair[0] is not spec:
                pair = spec, _node(spec, types[spec.gpu_type], spec.name not in drained)
            self._pairs[spec.name] = pair
            self._by_type.setdefault(spec.gpu_type, []).append(pair)
        return self._by_type


def _node(spec: NodeSpec, kind: GpuTypeSpec, is_open: bool) -> planner.Node:
    return planner.Node(
        name=spec.name,
        pool=spec.gpu_type,
        units=kind.units_of(spec),
        available=spec.ready and is_open,
    )
