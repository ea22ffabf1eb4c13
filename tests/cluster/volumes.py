"""Disks as volumes of the test cluster, with hands in the driver's folders."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from gpudev_service.disks.index_pods import IndexPods
from gpudev_service.disks.objects import Objects
from gpudev_service.disks.steps import OnVolumeStep, nothing_listens
from gpudev_service.disks.volumes import VolumeDisks
from gpudev_service.disks.waiting import Options
from gpudev_service.kube.connection import connect
from gpudev_service.operations.listings import StoredListings
from gpudev_service.settings import KubernetesSettings, Settings
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from tools.cluster import images, node, storage
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

IMAGE = "gpudev.test/index:1"
#: The account of people's files in the pods of these tests.
OWNER = 1000
_SOURCES = Path(__file__).resolve().parents[2] / "gpudev_service"
_DOCKERFILE = """ARG BASE
FROM ${BASE}
COPY gpudev_service /opt/gpudev/gpudev_service
ENV PYTHONPATH=/opt/gpudev PYTHONDONTWRITEBYTECODE=1
USER 1000
"""


def load_image(cluster: Cluster, folder: Path) -> None:
    """An image that lists snapshots: a Python, and the part of gpudev that it needs."""
    package = folder / "gpudev_service"
    package.mkdir()
    shutil.copy(_SOURCES / "__init__.py", package)
    shutil.copytree(
        _SOURCES / "disks", package / "disks", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    # Test processes that share a cluster share its images.
    with (cluster.place.home / "index-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster.load(images.build(cluster.place, folder, IMAGE))


@dataclass(frozen=True)
class Setting:
    """Everything that a process needs to work on the disks of one test."""

    kubeconfig: Path
    namespace: str
    database: Path
    storage_class: str = storage.AT_ONCE
    abandoned_after: timedelta = timedelta(minutes=2)
    gone_patience: float = 90

    @asynccontextmanager
    async def disks(self, on_step: OnVolumeStep = nothing_listens) -> AsyncIterator[VolumeDisks]:
        """The backend, on a migrated database."""
        settings = Settings(
            gpu_types={},
            kubernetes=KubernetesSettings(namespace=self.namespace, kubeconfig=self.kubeconfig),
        )
        store = Store(f"sqlite:///{self.database}")
        try:
            await migrate.upgrade(store)
            async with connect(settings) as kube:
                yield VolumeDisks(
                    Objects(kube, self.namespace),
                    StoredListings(store),
                    Options(
                        size_bytes=10**9,
                        storage_class=self.storage_class,
                        snapshot_class=storage.SNAPSHOT_CLASS,
                        patience=120,
                        error_patience=8,
                        gone_patience=self.gone_patience,
                        abandoned_after=self.abandoned_after,
                        poll=0.2,
                    ),
                    IndexPods(IMAGE, uid=OWNER, seconds=120, poll=0.2, pull_policy="Never"),
                    on_step=on_step,
                )
        finally:
            await store.close()


class Folders:
    """The live files of disks, in the folders of the tests' CSI driver."""

    def __init__(self, cluster: Cluster, namespace: Kubectl) -> None:
        self._root = storage.folders(cluster.place)
        self._kubectl = namespace

    async def home(self, claim: str) -> Path:
        """Where a claim's files are; one that waits for its first user gets it by that."""
        return await asyncio.to_thread(self._home, claim)

    def _home(self, claim: str) -> Path:
        found = self._kubectl.get("pvc", claim)
        if not found["spec"].get("volumeName"):
            note = f"volume.kubernetes.io/selected-node={node.NAME}"
            self._kubectl("annotate", "--overwrite", f"pvc/{claim}", note)
        self._kubectl.wait(f"pvc/{claim}", "jsonpath={.status.phase}=Bound")
        volume = self._kubectl.get("pvc", claim)["spec"]["volumeName"]
        handle: str = self._kubectl.get("pv", volume)["spec"]["csi"]["volumeHandle"]
        return self._root / "volumes" / handle / "data"

    def snapshot(self, name: str) -> Path:
        """Where a VolumeSnapshot's files are."""
        content = self._kubectl.get("volumesnapshot", name)["status"][
            "boundVolumeSnapshotContentName"
        ]
        found = self._kubectl.get("volumesnapshotcontent", content)
        handle: str = found["status"]["snapshotHandle"]
        return self._root / "snapshots" / handle / "data"


def hand_over(top: Path) -> None:
    """Makes a tree belong to the account of people's files; modes and times stay."""
    for folder, names, files in os.walk(bytes(top)):
        for name in [*names, *files]:
            path = os.path.join(folder, name)  # noqa: PTH118 - names are bytes
            mode = os.lstat(path).st_mode
            os.lchown(path, OWNER, OWNER)
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode))  # noqa: PTH101 - a change of owner clears bits
    os.lchown(top, OWNER, OWNER)
