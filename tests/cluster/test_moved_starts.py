"""A node that goes while a server starts on it: the lease is planned again and keeps its place."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tools.cluster.cluster import Cluster

from .installation import until
from .kubelets import Kubelets, kubelets
from .service import CROWD
from .site import ADDRESS, Site, opened

pytestmark = [pytest.mark.cluster, pytest.mark.hub]

GROUP = f"going-{secrets.token_hex(3)}"
_SERVICE = f"""
c.GpuDev.fleet = "kubernetes"
c.GpuDev.nodes = []
c.GpuDev.gpu_types = {{
    "whole": {{
        "kubernetes": {{
            "node_selector": {{"gpudev.test/group": {GROUP!r}}}, "tolerations": [{CROWD!r}],
        }},
    }},
}}
c.GpuDev.times = {{"reconcile": 1, "warnings": []}}
"""


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[tuple[Kubelets, int]]:
    names = tuple(f"{GROUP}-{secrets.token_hex(2)}" for _ in range(2))
    with kubelets(cluster.kubectl, GROUP, names, ADDRESS) as found:
        yield found


@pytest.fixture
def site(nodes: tuple[Kubelets, int], cluster: Cluster) -> Iterator[Site]:
    _, port = nodes
    hub = f"c.KubeSpawner.port = {port}\nc.GpuDevKubeSpawner.ask_interval = 1\n"
    with pytest.MonkeyPatch.context() as patch, opened(cluster, patch, _SERVICE, hub) as site:
        yield site


def starting(site: Site, kubelet: Kubelets) -> Reservation:
    """A lease of a whole node, whose pod was given to it and does not come up."""
    kubelet.take_their_time(*kubelet.names)
    lease = site.until(site.reserve(gpu_type="whole", gpus=8), State.PREPARING)
    (place,) = lease.placement
    until(lambda: where(site, lease) == [place.node], "its pod was given to the node")
    return lease


def where(site: Site, lease: Reservation) -> list[str | None]:
    return [pod["spec"].get("nodeName") for pod in site.pods(lease)]


@pytest.mark.parametrize("how", ["gone", "silent"])
def test_a_start_whose_node_goes_is_begun_on_another(
    site: Site, nodes: tuple[Kubelets, int], cluster: Cluster, how: str
) -> None:
    kubelet, _ = nodes
    lease = starting(site, kubelet)
    (first,) = where(site, lease)
    assert first is not None
    (other,) = set(kubelet.names) - {first}
    if how == "gone":
        cluster.kubectl("delete", "node", first)
    else:
        kubelet.fall_silent(first)
    until(lambda: where(site, lease) == [other], "it starts on the other node")
    kubelet.hurry()
    now = site.until(lease, State.ACTIVE, State.FAILED)
    assert (now.state, [place.node for place in now.placement]) == (State.ACTIVE, [other])
    assert f"{first} cannot take your server." in site.told(lease)
    states = [line.state for line in site.history(lease) if line.kind == "transition"]
    assert State.FAILED not in states
    site.end(lease)


def test_who_finds_no_other_node_keeps_their_place(
    site: Site, nodes: tuple[Kubelets, int], cluster: Cluster
) -> None:
    kubelet, _ = nodes
    running = site.runs(gpu_type="whole", gpus=8)
    (second,) = where(site, running)
    lease = starting(site, kubelet)
    (first,) = where(site, lease)
    assert {first, second} == set(kubelet.names)
    later = site.reserve(gpu_type="whole", gpus=8)
    cluster.kubectl("delete", "node", str(first))
    assert site.until(lease, State.QUEUED).position == 1
    kubelet.hurry()
    site.end(running)
    now = site.until(lease, State.ACTIVE, State.FAILED)
    assert (now.state, where(site, lease)) == (State.ACTIVE, [second])
    assert site.client.reservation(later.id).state is State.QUEUED
    site.end(later)
    site.end(lease)
