"""Pods and claims, as the tests want them: small, and gone at once when they are deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.cluster.kubectl import Kubectl, Manifest
from tools.cluster.node import BUSYBOX


def pod(
    name: str,
    script: str,
    *,
    limits: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
    **spec: Any,
) -> Manifest:
    """A pod that runs a shell script once; `volumes` maps folders to names of claims."""
    claims = dict(volumes or {})
    names = {claim: f"volume-{number}" for number, claim in enumerate(claims.values())}
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "resources": {"limits": dict(limits or {})},
        "volumeMounts": [
            {"name": names[claim], "mountPath": folder} for folder, claim in claims.items()
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [
                {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
                for claim, volume in names.items()
            ],
            **spec,
        },
    }


def claim(name: str, size: str = "1Gi", source: Manifest | None = None, **spec: Any) -> Manifest:
    """A claim for a volume, empty or with a source."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            **({"dataSource": source} if source else {}),
            **spec,
        },
    }


def run(kubectl: Kubectl, manifest: Manifest) -> str:
    """Runs a pod to its end, and returns what it printed."""
    name = manifest["metadata"]["name"]
    kubectl.apply(manifest)
    kubectl.wait(f"pod/{name}", "jsonpath={.status.phase}=Succeeded")
    return kubectl("logs", name)


def names(items: Sequence[Manifest]) -> set[str]:
    """The names of things in a list."""
    return {item["metadata"]["name"] for item in items}
