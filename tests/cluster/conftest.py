"""What several of the cluster's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gpudev_service.disks.volumes import VolumeDisks
from tests.cluster.volumes import Folders, Setting, load_image
from tests.fixtures.cluster import together
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

#: Seconds for a test together with what it is the first to need: a cluster, and images built one
#: after the other, on a machine that runs other tests beside it.
_FIRST = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_FIRST))


@pytest.fixture(scope="module", autouse=True)
def undisturbed(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the tests of a file share lasts longer than each of them: nobody breaks the cluster
    under it. A file that breaks the cluster itself takes turns, test by test."""
    tests = [one for one in request.session.items if one.path == request.path]
    if not any(one.get_closest_marker("cluster") for one in tests) or any(
        "alone" in one.fixturenames for one in tests if isinstance(one, pytest.Function)
    ):
        yield
        return
    with together(request.getfixturevalue("cluster")):
        yield


@pytest.fixture(scope="session")
def index_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image that lists snapshots, where the kubelet finds it."""
    with together(cluster):
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
