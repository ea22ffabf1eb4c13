"""A spawner of pods without a cluster, launches for it, and pods as a cluster would have them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.models import NodePlacement, PodLaunch, Reservation, ServerLaunch
from gpudev_client.states import State
from gpudev_spawner.kube import GpuDevKubeSpawner

KEY = "r0123456789abcde"
_KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
"""


def plan(**changes: Any) -> PodLaunch:
    given: dict[str, Any] = {
        "nodes": ["gpu-1"],
        "resource": "nvidia.com/gpu",
        "count": 2,
        "cpus": 11.5,
        "memory_bytes": 64 * 2**30,
    }
    return PodLaunch(**{**given, **changes})


def launch(pods: PodLaunch | None, **environment: str) -> ServerLaunch:
    nodes = pods.nodes if pods else ["gpu-1"]
    reservation = Reservation(
        id=KEY,
        name="a run",
        user="ada",
        server_name=KEY,
        gpu_type="h100",
        gpus=2 * len(nodes),
        nodes=len(nodes),
        hours=1.0,
        disk="home",
        state=State.PREPARING,
        submitted_at=datetime(2026, 5, 1, tzinfo=UTC),
        placement=[NodePlacement(node=node, units=[0, 1], gpu_ids=["0", "1"]) for node in nodes],
    )
    return ServerLaunch(
        reservation=reservation,
        environment={"GPUDEV_RESERVATION": KEY, "GPUDEV_URL": "https://hub/s", **environment},
        home="/home/jovyan",
        pods=pods,
    )


def spawner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: ServerLaunch | None, **traits: Any
) -> GpuDevKubeSpawner:
    """With KubeSpawner's own stand-ins for user and Hub."""
    config = tmp_path / "kubeconfig"
    config.write_text(_KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setattr(
        "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config)
    )
    made = GpuDevKubeSpawner(_mock=True, image="gpudev/singleuser:1", **traits)
    made._launch = given
    return made


async def manifest(made: GpuDevKubeSpawner, rank: int = 0) -> dict[str, Any]:
    """The pod as the API server is given it."""
    pod = await made.rank_pod(rank)
    document: dict[str, Any] = made.api.api_client.sanitize_for_serialization(pod)
    return document


def env(container: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container.get("env", [])}


def pod(
    *,
    phase: str = "Pending",
    node: str | None = "gpu-1",
    state: Mapping[str, Any] | None = None,
    last: Mapping[str, Any] | None = None,
    restarts: int = 0,
    conditions: Mapping[str, Any] | None = None,
    restart_policy: str = "OnFailure",
    **status: Any,
) -> dict[str, Any]:
    """A pod as the API answers it; `conditions` by type."""
    found: dict[str, Any] = {"phase": phase, **status}
    if state is not None:
        found["containerStatuses"] = [
            {
                "name": "notebook",
                "image": "ghcr.io/lab/torch:2",
                "ready": "running" in state,
                "restartCount": restarts,
                "state": state,
                "lastState": {"terminated": last} if last else {},
            }
        ]
    found["conditions"] = [
        {"type": kind, "lastTransitionTime": "2026-05-01T12:00:00Z", **said}
        for kind, said in (conditions or {}).items()
    ]
    limits = {"memory": str(64 * 10**9)}
    return {
        "metadata": {"name": f"gpudev-{KEY}-0", "namespace": "hub", "uid": "u-1"},
        "spec": {
            "restartPolicy": restart_policy,
            "containers": [{"name": "notebook", "resources": {"limits": limits}}],
            "volumes": [{"name": "h", "persistentVolumeClaim": {"claimName": "c"}}],
            **({"nodeName": node} if node else {}),
        },
        "status": found,
    }


def event(reason: str, message: str = "", at: str = "2026-05-01T12:00:00Z") -> dict[str, Any]:
    return {
        "metadata": {"name": reason, "creationTimestamp": at},
        "involvedObject": {"uid": "u-1"},
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
        "eventTime": None,
    }
