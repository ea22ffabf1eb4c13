"""What a Kubernetes node has to give, by GPU type: pure functions of the node and its pods.

Units are GPUs as the device plugin counts them: which device a pod gets is not ours to say, so a
unit has no device. What others use is not there: a GPU of a pod that is not gpudev's, or one that
is out of order, is never promised. CPU and memory are divided by the units; pods of others make
these parts smaller, down to `SQUEEZE` of a whole one, and then take units away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from gpudev_client import words
from gpudev_service.kube.objects import CPU, MEMORY, Amounts, Node, Pod, Taint
from gpudev_service.settings import GpuTypeSpec, KubernetesType, NodeSpec

#: The smallest part of its fair share of CPU and memory that a unit may be left with.
SQUEEZE = 0.75
#: Least that a pod is given, whatever is left.
LEAST_CPUS, LEAST_MEMORY = 0.1, 128 * 2**20
#: What every pod of a server may tolerate: nodes that zero-to-jupyterhub sets apart for servers.
_FOR_SERVERS = tuple(
    {"key": key, "operator": "Equal", "value": "user", "effect": "NoSchedule"}
    for key in ("hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated")
)
_BINDING = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True, slots=True)
class Kind:
    """A GPU type with what makes nodes belong to it."""

    spec: GpuTypeSpec
    kubernetes: KubernetesType

    @property
    def resource(self) -> str:
        return self.kubernetes.resource

    def has(self, node: Node, all_resources: frozenset[str]) -> bool:
        """Whether the node is one of the type. A type without GPUs that names no label has the
        nodes without GPUs."""
        selector = self.kubernetes.node_selector
        if any(node.labels.get(label) != value for label, value in selector.items()):
            return False
        if self.resource:
            return node.capacity.get(self.resource, 0) >= 1
        return bool(selector) or not any(node.capacity.get(r, 0) for r in all_resources)

    def total(self, node: Node) -> int:
        """Units of the node, whether in order or not."""
        return (
            int(node.capacity.get(self.resource, 0)) if self.resource else self.spec.shares_per_node
        )


def tolerations(kubernetes: KubernetesType) -> list[dict[str, Any]]:
    """What pods of the type tolerate: what the operator wrote, nodes that are set apart for their
    resource (the taint has its name, by custom) and those set apart for servers."""
    own = [dict(one) for one in kubernetes.tolerations]
    if kubernetes.resource:
        own.append({"key": kubernetes.resource, "operator": "Exists"})
    return [*own, *(dict(one) for one in _FOR_SERVERS)]


def tolerates(toleration: Mapping[str, Any], taint: Taint) -> bool:
    """As the scheduler sees it; what is tolerated only for a time is not tolerated."""
    key, effect = toleration.get("key") or "", toleration.get("effect") or ""
    if toleration.get("tolerationSeconds") is not None or effect not in {"", taint.effect}:
        return False
    if key and key != taint.key:
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    return bool(key) and (toleration.get("value") or "") == taint.value


def closed(node: Node, kubernetes: KubernetesType) -> str | None:
    """Why nothing new can be placed on the node; None where it can."""
    if node.leaving:
        return "It is being removed from the cluster."
    if node.cordoned:
        return "It is cordoned in Kubernetes."
    if not node.ready:
        return "It is not ready in Kubernetes."
    allowed = tolerations(kubernetes)
    for taint in node.taints:
        if taint.effect in _BINDING and not any(tolerates(one, taint) for one in allowed):
            return f"It has the taint {taint.key}, which pods of this type do not tolerate."
    return None


def overhead(pods: Iterable[Pod]) -> dict[str, float]:
    """What the node's own daemons take."""
    return _sum(pod for pod in pods if pod.system and not pod.over)


def usual(overheads: Sequence[Amounts]) -> dict[str, float]:
    """What daemons take on a node of many: on a new one they have not all come yet."""
    if not overheads:
        return {}
    return {name: median_low([one.get(name, 0.0) for one in overheads]) for name in (CPU, MEMORY)}


def parts(
    node: Node, pods: Sequence[Pod], kinds: Sequence[Kind], daemons: Amounts
) -> list[NodeSpec]:
    """The node as the planner sees it: one entry per GPU type that it has."""
    own = overhead(pods)
    daemons = {name: max(own.get(name, 0.0), daemons.get(name, 0.0)) for name in (CPU, MEMORY)}
    others = _sum(p for p in pods if not (p.system or p.reservation or p.placeholder or p.over))
    return [_part(node, kind, len(kinds), daemons, others) for kind in kinds]


def _part(node: Node, kind: Kind, types: int, daemons: Amounts, others: Amounts) -> NodeSpec:
    total = kind.total(node)
    resource = kind.resource
    healthy = int(node.allocatable.get(resource, 0)) if resource else total
    used = math.ceil(others.get(resource, 0)) if resource else 0
    free = max(0, min(healthy, total) - used)
    whole = {name: (node.allocatable.get(name, 0) - daemons[name]) / types for name in daemons}
    fair = _fair(kind.spec, whole, total)
    left = {name: whole[name] - others.get(name, 0.0) / types for name in whole}
    fits = _fitting(fair, left)
    units = min(free, fits)
    share = {name: min(fair[name], left[name] / max(1, units)) for name in fair}
    why = closed(node, kind.kubernetes)
    return NodeSpec(
        name=node.name if types == 1 else f"{node.name}.{kind.spec.name}",
        gpu_type=kind.spec.name,
        host=node.name,
        zone=node.zone,
        ready=why is None and units > 0,
        reason=why or _lacking(kind, total, healthy, used, fits),
        units=units,
        unit_cpus=round(max(0.0, share[CPU]), 3),
        unit_memory=int(max(0.0, share[MEMORY])),
        labels=dict(node.offered),
    )


def _fair(spec: GpuTypeSpec, whole: Amounts, total: int) -> dict[str, float]:
    """What goes with a unit of a node that nobody else uses: what the operator says a node of the
    type has, if the node has it."""
    said = {CPU: float(spec.cpus), MEMORY: spec.memory_gb * 2.0**30}
    units = max(1, spec.units_per_node, total)
    has = {name: max(0.0, amount) / max(1, total) for name, amount in whole.items()}
    return {name: min(has[name], said[name] / units) if said[name] else has[name] for name in has}


def _fitting(fair: Amounts, left: Amounts) -> int:
    """How many units find their CPU and memory."""
    fits = [
        math.floor(max(0.0, left[name]) / (SQUEEZE * fair[name]) + 1e-9)
        for name in fair
        if fair[name] > 0
    ]
    return min(fits, default=0)


def _lacking(kind: Kind, total: int, healthy: int, used: int, fits: int) -> str | None:
    """In words, why not all units of an open node can be had."""
    noun = "GPU" if kind.resource else "share"
    said = []
    if healthy < total:
        said.append(f"{words.counted(total - healthy, noun)} out of order")
    if used:
        said.append(f"{words.counted(used, noun)} used by pods that are not gpudev's")
    if fits < min(healthy, total) - used:
        said.append("CPU and memory used by pods that are not gpudev's")
    return f"{'; '.join(said)}." if said else None


def resolved(kind: Kind, nodes: Sequence[Node], daemons: Amounts) -> GpuTypeSpec:
    """The type with what was left to the nodes: as many GPUs as the largest has, and as much CPU
    and memory as goes with them on the smallest of these."""
    spec, found = kind.spec, {}
    if not nodes:
        return spec
    gpus = max(kind.total(node) for node in nodes) if kind.resource else 0
    if "gpus_per_node" not in spec.model_fields_set:
        found["gpus_per_node"] = gpus
    largest = [node for node in nodes if not kind.resource or kind.total(node) == gpus]
    if not spec.cpus:
        left = min(node.allocatable.get(CPU, 0) for node in largest) - daemons.get(CPU, 0.0)
        found["cpus"] = max(1, int(left))
    if not spec.memory_gb:
        left = min(node.allocatable.get(MEMORY, 0) for node in largest) - daemons.get(MEMORY, 0.0)
        found["memory_gb"] = max(1, int(left / 2**30))
    return spec.model_copy(update=found)


def _sum(pods: Iterable[Pod]) -> dict[str, float]:
    total: dict[str, float] = {}
    for pod in pods:
        for name, amount in pod.requests.items():
            total[name] = total.get(name, 0.0) + amount
    return total
