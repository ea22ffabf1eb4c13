"""What several of the cluster's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudev_service.disks.volumes import VolumeDisks
from tests.cluster.volumes import Folders, Setting, load_image
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

#: Seconds for a test together with what it is the first to need: a cluster, and images built one
#: after the other, on a machine that runs other tests beside it.
_FIRST = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_FIRST))


@pytest.fixture(scope="session")
def index_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image that lists snapshots, where the kubelet finds it."""
    load_image(cluster, tmp_path_factory.mktemp("index"))


@pytest.fixture
def folders(cluster: Cluster, namespace: Kubectl) -> Folders:
    return Folders(cluster, namespace)


@pytest.fixture
def setting(cluster: Cluster, namespace: Kubectl, tmp_path: Path) -> Setting:
    return Setting(cluster.place.kubeconfig, str(namespace.namespace), tmp_path / "volumes.sqlite")


@pytest.fixture
async def disks(setting: Setting, index_image: None) -> AsyncIterator[VolumeDisks]:
    async with setting.disks() as backend:
        yield backend
