"""A server's pod goes to a node with the labels that were asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpudev_client.kubernetes import LABEL_RESERVATION
from tools.cluster import fleet
from tools.cluster.cluster import Cluster

from .site import Site, opened

pytestmark = [pytest.mark.cluster, pytest.mark.hub]

ZONE = "topology.kubernetes.io/zone"
_SERVICE = f"""
c.GpuDev.fleet = "kubernetes"
c.GpuDev.nodes = []
c.GpuDev.gpu_types = {{
    "zoned": {{
        "kubernetes": {{
            "node_selector": {{"gpudev.test/zoned": "yes"}},
            "tolerations": [{{"key": {fleet.TAINT["key"]!r}, "operator": "Exists"}}],
        }}
    }},
}}
"""


@pytest.fixture(scope="module")
def zones(cluster: Cluster) -> Iterator[dict[str, str]]:
    """A node in each of two zones; by its zone."""
    found = {}
    for zone in ("east", "west"):
        own = {"gpudev.test/zoned": "yes", ZONE: zone}
        size = {"nvidia.com/gpu": "8"}
        [found[zone]] = cluster.add_nodes(1, f"zone-{zone}", resources=size, labels=own)
    yield found
    for zone in found:
        cluster.remove_nodes(f"zone-{zone}")


@pytest.fixture(scope="module")
def site(cluster: Cluster, zones: dict[str, str]) -> Iterator[Site]:
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        opened(cluster, monkeypatch, service=_SERVICE) as site,
    ):
        yield site


@pytest.mark.parametrize("zone", ["west", "east"])
def test_the_pod_is_on_a_node_with_the_label(site: Site, zones: dict[str, str], zone: str) -> None:
    got = site.reserve(gpu_type="zoned", gpus=1, node_labels={ZONE: zone})
    assert [place.node for place in got.placement] == [zones[zone]]
    site.kubectl.wait("pods", "create", selector=f"{LABEL_RESERVATION}={got.id}")
    site.kubectl.wait("pods", "Ready", selector=f"{LABEL_RESERVATION}={got.id}")
    [pod] = site.pods(got)
    assert pod["spec"]["nodeName"] == zones[zone]
    site.end(got)
    site.gone(got)


def test_a_zone_that_is_not_there_is_refused_with_those_that_are(site: Site) -> None:
    asked = {"gpu_type": "zoned", "gpus": 1, "hours": 1, "node_labels": {ZONE: "north"}}
    answer = site.hub.call("POST", "/reservations", site.token, asked)
    assert answer.status_code == 422
    said = answer.json()["error"]
    assert said["field"] == "node_labels"
    assert set(said["accepted"][ZONE]) == {"east", "west"}
    assert "gpudev.test/zoned" not in said["accepted"], "nobody offers that label"
