"""The pod that lists a snapshot: short-lived, restricted, without network and without credentials.

It mounts a temporary volume made from the snapshot, which goes with the pod, so that it needs to
know nothing of where the disk itself is in use. What it finds it writes to its log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpudev_client.kubernetes import (
    LABEL_DISK,
    LABEL_MANAGED,
    LABEL_SNAPSHOT,
    LABEL_STATE,
    MANAGED_BY,
)
from gpudev_service.disks import indexing
from gpudev_service.disks.base import DiskBusy, DiskError, DiskFailure
from gpudev_service.disks.claims import State, Taken, checked, claim_spec
from gpudev_service.disks.indexes import Page, Summary
from gpudev_service.disks.objects import Objects

#: What a log can hold: kubelets begin a new file at 10 MiB, and only the newest is read.
MOST_LOG_BYTES = 9 * 1024 * 1024
#: What the pages may take, so that their text in base 85 fits into the log.
MOST_PAGE_BYTES = 6 * 1024 * 1024
_DIRECTORY = "/disk"
_FAILED, _SUCCEEDED = "Failed", "Succeeded"
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True, slots=True)
class IndexPods:
    """How the pods are made. `uid` is the account to whom people's files belong. `seconds` is how
    long one may take, with the volume that is made for it; `poll` between two looks at it.
    `tolerations` are those of the pods that use the disks: where these nodes are set apart no other
    one may be able to mount what is on them."""

    image: str
    uid: int = 1000
    seconds: int = 900
    poll: float = 1.0
    pull_policy: str = "IfNotPresent"
    tolerations: tuple[Mapping[str, Any], ...] = ()

    async def run(
        self, objects: Objects, taken: Taken, storage_class: str | None, size_bytes: int
    ) -> tuple[list[Page], Summary]:
        """Lists a snapshot. Raises DiskError where that does not come about.

        A pod that is there already is taken up: whoever made it was killed, or does the same.
        """
        name = pod_name(taken.snapshot)
        if await objects.pod(name) is None:
            await objects.create_pod(self.manifest(taken, storage_class, size_bytes))
        try:
            await self._ended(objects, name)
            text = await objects.log(name, MOST_LOG_BYTES)
        finally:
            await asyncio.shield(objects.delete_pod(name))
        try:
            return indexing.read(text)
        except (ValueError, KeyError, TypeError) as error:
            raise DiskFailure("The listing of the snapshot came out damaged.") from error

    async def _ended(self, objects: Objects, name: str) -> None:
        loop = asyncio.get_running_loop()
        # The kubelet ends a pod that takes longer; where no kubelet takes it, nobody else does.
        until = loop.time() + self.seconds
        while True:
            pod = await objects.pod(name)
            if pod is None:
                raise DiskBusy(
                    "The listing of the snapshot was interrupted; it is made anew later."
                )
            error = failure(pod)
            if error is not None:
                raise error
            if pod["status"].get("phase") == _SUCCEEDED:
                return
            if loop.time() > until:
                raise DiskBusy("The snapshot could not be listed in time; this is tried again.")
            await asyncio.sleep(self.poll)

    def manifest(self, taken: Taken, storage_class: str | None, size_bytes: int) -> dict[str, Any]:
        labels = {
            LABEL_MANAGED: MANAGED_BY,
            LABEL_STATE: str(State.INDEX),
            LABEL_SNAPSHOT: taken.snapshot,
        }
        template = {
            "metadata": {"labels": labels},
            "spec": claim_spec(max(size_bytes, taken.size_bytes), storage_class, taken.name),
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod_name(taken.snapshot),
                "labels": labels | {LABEL_DISK: taken.disk},
            },
            "spec": {
                "restartPolicy": "Never",
                "activeDeadlineSeconds": self.seconds,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": self.uid,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "tolerations": [dict(one) for one in self.tolerations],
                "containers": [self._container()],
                "volumes": [{"name": "disk", "ephemeral": {"volumeClaimTemplate": template}}],
            },
        }

    def _container(self) -> dict[str, Any]:
        return {
            "name": "index",
            "image": self.image,
            "imagePullPolicy": self.pull_policy,
            "command": [
                "python3",
                "-m",
                indexing.__name__,
                _DIRECTORY,
                str(MOST_PAGE_BYTES),
            ],
            # It asks for nothing, so that it fits on a node whose every core is promised.
            "resources": {
                "requests": {"cpu": "0", "memory": "0"},
                "limits": {"cpu": "1", "memory": "1Gi"},
            },
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            # The mount, not the volume: a file system that was in use has its log to replay first.
            "volumeMounts": [{"name": "disk", "mountPath": _DIRECTORY, "readOnly": True}],
        }


def pod_name(snapshot_id: str) -> str:
    return f"gpudev-index-{checked(snapshot_id)}"


def failure(pod: Mapping[str, Any]) -> DiskError | None:
    """Why a pod that lists will not come to an end, as far as it can be known."""
    status = pod.get("status") or {}
    if status.get("phase") == _FAILED:
        return DiskFailure("The snapshot could not be listed.")
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _NO_IMAGE:
            return DiskFailure(
                "The snapshot could not be listed: the cluster cannot get the image for it."
            )
    return None
