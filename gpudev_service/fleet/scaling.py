"""Nodes that an autoscaler can add: what they are called while they are only thought of, and the
pods that ask for them. Pure functions.

An autoscaler adds a node when a pod finds no place. A server's pod cannot be that one: it is bound
to the node on which it was planned. So for each node that somebody is promised a placeholder asks:
a pod that wants what a whole node of the type has, on none of the nodes that are there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpudev_client.kubernetes import LABEL_MANAGED, LABEL_PLACEHOLDER, MANAGED_BY
from gpudev_service.kube.objects import HOSTNAME, Node
from gpudev_service.settings import GpuTypeSpec

from .parts import tolerations

#: No node of a cluster can be called so.
_MARK = "+"


@dataclass(frozen=True, slots=True)
class Coming:
    """A node that could be there `minutes` after somebody asks for it."""

    name: str
    gpu_type: str
    units: int
    minutes: float


def coming(spec: GpuTypeSpec, there: int, most: int) -> list[Coming]:
    """The nodes that could be added to the `there` that exist; `most` are of use to anybody."""
    scale_up = spec.kubernetes.scale_up if spec.kubernetes else None
    if scale_up is None:
        return []
    number = min(most, scale_up.max_nodes - there)
    return [
        Coming(f"{spec.name}{_MARK}{at}", spec.name, spec.units_per_node, scale_up.minutes)
        for at in range(1, number + 1)
    ]


def is_coming(node: str) -> bool:
    return _MARK in node


def free_from(promised: Sequence[int], minutes: float, now_ms: int) -> int:
    """From when on a node that is to come can be used: as was promised on it. One that is late is
    given its whole time again, as often as needed, so that promises move seldom."""
    span = max(1_000, round(minutes * 60_000))
    if not promised:
        return now_ms + span
    first = min(promised)
    if first > now_ms:
        return first
    return first + span * (math.floor((now_ms - first) / span) + 1)


def placeholder(
    spec: GpuTypeSpec, name: str, image: str, existing: Iterable[Node]
) -> dict[str, Any]:
    """The pod that asks for a node of the type."""
    kubernetes = spec.kubernetes
    if kubernetes is None:
        raise ValueError(f"{spec.name} is no type of Kubernetes")
    # Daemons of the new node need their part; what is left is still more than half a node.
    amounts = {"cpu": f"{spec.cpus * 600}m", "memory": f"{int(spec.memory_gb * 600)}Mi"}
    if kubernetes.resource:
        amounts[kubernetes.resource] = str(spec.gpus_per_node)
    elsewhere = _elsewhere(existing)
    required = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [elsewhere]}
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {LABEL_PLACEHOLDER: spec.name, LABEL_MANAGED: MANAGED_BY},
        },
        "spec": {
            "containers": [
                {
                    "name": "pause",
                    "image": image,
                    "resources": {"requests": amounts, "limits": _limits(amounts)},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                }
            ],
            "automountServiceAccountToken": False,
            "nodeSelector": dict(kubernetes.node_selector),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65535,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": 0,
            "tolerations": tolerations(kubernetes),
            **({"affinity": {"nodeAffinity": required}} if elsewhere else {}),
            **({"runtimeClassName": kubernetes.runtime_class} if kubernetes.runtime_class else {}),
        },
    }


def _elsewhere(existing: Iterable[Node]) -> dict[str, Any]:
    """The term of a node affinity that leaves out these nodes, however many they are.

    By their host names: Kubernetes compares a label with many values, and the name of a node
    (`matchFields`) with one alone. The node that an autoscaler thinks of, as a copy of one of its
    group or from nothing, has a host name of its own, and so fits. A node whose kubelet was told
    not to give the label is left out by its name; all requirements of a term have to hold.
    """
    hosts, unlabelled = set(), []
    for node in existing:
        if HOSTNAME in node.labels:
            hosts.add(node.labels[HOSTNAME])
        else:
            unlabelled.append(node.name)
    term: dict[str, Any] = {}
    if hosts:
        term["matchExpressions"] = [{"key": HOSTNAME, "operator": "NotIn", "values": sorted(hosts)}]
    if unlabelled:
        term["matchFields"] = [
            {"key": "metadata.name", "operator": "NotIn", "values": [name]}
            for name in sorted(unlabelled)
        ]
    return term


def _limits(amounts: dict[str, str]) -> dict[str, str]:
    """Extended resources have to be limits too."""
    return {name: amount for name, amount in amounts.items() if "/" in name}


def placeholder_prefix(gpu_type: str) -> str:
    """What the names of a type's placeholders begin with; a DNS label, as pods need it."""
    return f"gpudev-wanted-{re.sub('[^a-z0-9-]', '-', gpu_type)[:32].strip('-')}-"
