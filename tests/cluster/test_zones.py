"""A volume's zone decides where its next reservation begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.cluster import node, storage
from tools.cluster.cluster import Cluster

from .installation import until
from .site import Site, built, opened

pytestmark = [pytest.mark.cluster, pytest.mark.hub]

#: The cluster's one real node is two of the plan. Where there is nothing to choose by, the first
#: name is taken.
_SERVICE = f"""
c.GpuDev.fleet = "static"
c.GpuDev.servers = "kubernetes"
c.GpuDev.storage_class = {storage.LATE!r}
c.GpuDev.gpu_types = {{
    "one": {{"gpus_per_node": 1, "cpus": 1, "memory_gb": 1, "kubernetes": {{}}}},
}}
c.GpuDev.nodes = [
    {{"name": "elsewhere", "gpu_type": "one", "host": {node.NAME!r}, "zone": "elsewhere"}},
    {{"name": "near", "gpu_type": "one", "host": {node.NAME!r}, "zone": {node.ZONE!r}}},
]
"""


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    built(cluster)
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        opened(cluster, monkeypatch, service=_SERVICE) as site,
    ):
        yield site


def test_a_reservation_begins_where_its_disk_is(site: Site) -> None:
    asked = {"gpu_type": "one", "disk": "work", "create_disk": True}
    lease = site.runs(**asked)
    assert [place.node for place in lease.placement] == ["elsewhere"], "it is nowhere yet"
    site.inside(lease, "echo kept > ~/kept")
    site.end(lease)
    again = site.runs(**asked)
    assert [place.node for place in again.placement] == ["near"]
    assert site.inside(again, "cat ~/kept") == "kept\n"
    site.end(again)
    # What a refusal offers where only other zones have room.
    site.client.clone_disk("work", "copy")
    until(lambda: site.client.disk("copy").busy is None, "the disk is cloned")
    copy = site.runs(gpu_type="one", disk="copy")
    assert [place.node for place in copy.placement] == ["elsewhere"], "a clone can begin anywhere"
    assert site.inside(copy, "cat ~/kept") == "kept\n"
    site.end(copy)
