"""Nodes and pods as an API server has them."""

from __future__ import annotations

from typing import Any

from gpudev_client.kubernetes import LABEL_RANK, LABEL_RESERVATION

Object = dict[str, Any]
GPU = "nvidia.com/gpu"


def node(
    name: str,
    *,
    gpus: int = 8,
    healthy: int | None = None,
    cpu: str = "64",
    memory: str = "512Gi",
    labels: dict[str, str] | None = None,
    taints: tuple[dict[str, str], ...] = (),
    cordoned: bool = False,
    ready: str = "True",
    resource: str = GPU,
    more: dict[str, str] | None = None,
) -> Object:
    amounts = {"cpu": cpu, "memory": memory, "pods": "110", **(more or {})}
    capacity = {**amounts, **({resource: str(gpus)} if gpus else {})}
    left = gpus if healthy is None else healthy
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"taints": list(taints), **({"unschedulable": True} if cordoned else {})},
        "status": {
            "capacity": capacity,
            "allocatable": {**capacity, **({resource: str(left)} if gpus else {})},
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {
                    "type": "Ready",
                    "status": ready,
                    "lastHeartbeatTime": "2026-03-01T12:00:00Z",
                    "lastTransitionTime": "2026-03-01T12:00:00Z",
                },
            ],
        },
    }


def pod(
    name: str,
    node_name: str | None,
    *,
    namespace: str = "others",
    phase: str = "Running",
    owner: str = "ReplicaSet",
    reservation: str | None = None,
    rank: int = 0,
    status: Object | None = None,
    **asked: str,
) -> Object:
    requests = {{"gpu": GPU}.get(what, what): amount for what, amount in asked.items()}
    labels = {LABEL_RESERVATION: reservation, LABEL_RANK: str(rank)} if reservation else {}
    return {
        "metadata": {
            "name": name,
            "namespace": "lab" if reservation else namespace,
            "uid": f"uid-{name}",
            "labels": labels,
            "ownerReferences": [{"kind": owner, "name": "x"}],
        },
        "spec": {
            **({"nodeName": node_name} if node_name else {}),
            "containers": [{"name": "main", "resources": {"requests": requests}}],
        },
        "status": {"phase": phase, **(status or {})},
    }
