"""Nodes that give no sign of life any more: waited for, then a crash of what ran on them, as Hub,
service and history have it alike."""

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

GROUP = f"silent-{secrets.token_hex(3)}"
NODES = (f"{GROUP}-1", f"{GROUP}-2")
_SERVICE = f"""
c.GpuDev.fleet = "kubernetes"
c.GpuDev.nodes = []
c.GpuDev.gpu_types = {{
    "pair": {{
        "max_nodes": 2,
        "kubernetes": {{
            "node_selector": {{"gpudev.test/group": {GROUP!r}}}, "tolerations": [{CROWD!r}],
        }},
    }},
}}
c.GpuDev.times = {{"reconcile": 1, "node_patience": PATIENCE, "turnover": 6, "warnings": []}}
"""


@pytest.fixture(scope="module")
def machines(cluster: Cluster) -> Iterator[tuple[Kubelets, int]]:
    with kubelets(cluster.kubectl, GROUP, NODES, ADDRESS) as found:
        yield found


def at(machines: tuple[Kubelets, int], cluster: Cluster, patience: int) -> Iterator[Site]:
    _, port = machines
    with pytest.MonkeyPatch.context() as monkeypatch:
        service = _SERVICE.replace("PATIENCE", str(patience))
        with opened(cluster, monkeypatch, service, hub=f"c.KubeSpawner.port = {port}\n") as site:
            yield site


@pytest.fixture
def site(machines: tuple[Kubelets, int], cluster: Cluster) -> Iterator[Site]:
    yield from at(machines, cluster, 2)


@pytest.fixture
def patient(machines: tuple[Kubelets, int], cluster: Cluster) -> Iterator[Site]:
    yield from at(machines, cluster, 3600)


def is_up(site: Site, lease: Reservation) -> bool:
    """As the Hub knows it."""
    return lease.server_name in site.hub.api("GET", "users/ada")["servers"]


def promised(site: Site) -> bool:
    (kind,) = site.client.availability(gpu_type="pair").all()
    return any(one.starts_at is not None for one in kind.earliest)


def both(site: Site) -> Reservation:
    lease = site.runs(gpu_type="pair", gpus=16)
    assert {place.node for place in lease.placement} == set(NODES)
    return lease


def test_a_node_that_comes_back_within_the_patience_costs_nothing(
    patient: Site, machines: tuple[Kubelets, int]
) -> None:
    nodes, _ = machines
    lease = both(patient)
    pods = [pod["metadata"]["uid"] for pod in patient.pods(lease)]
    told = patient.told(lease)
    nodes.fall_silent(*NODES)
    until(lambda: not promised(patient), "nothing is promised there")
    nodes.come_back()
    until(lambda: promised(patient), "it is promised again")
    assert [pod["metadata"]["uid"] for pod in patient.pods(lease)] == pods
    assert (patient.client.reservation(lease.id).server_lost_at, is_up(patient, lease)) == (
        None,
        True,
    )
    assert patient.told(lease) == told
    patient.end(lease)


def test_a_lost_node_is_told_and_its_server_starts_again_when_it_is_back(
    site: Site, machines: tuple[Kubelets, int]
) -> None:
    nodes, _ = machines
    lease = both(site)
    first, second = (place.node for place in lease.placement)
    nodes.fall_silent(second)
    site.until_told(lease, f"The node on which the worker on {second} ran does not answer any more")
    assert site.client.reservation(lease.id).server_lost_at is None
    assert is_up(site, lease), "a worker is not the server"
    nodes.fall_silent(first)
    said = site.until_told(lease, "Your GPUs are kept for 10 min")
    assert said.startswith("The node on which the server ran does not answer any more.")
    assert site.client.reservation(lease.id).server_lost_at is not None
    until(lambda: not is_up(site, lease), "the Hub knows it too")
    assert not promised(site)
    nodes.come_back()
    site.gone(lease)
    assert site.client.reservation(lease.id).server_lost_at is not None, "it was given up for good"
    until(lambda: promised(site), "the nodes take servers again")
    path = f"users/ada/servers/{lease.server_name}"
    site.hub.api("POST", path, {"reservation": lease.id}, token=site.token)
    site.until_told(lease, "The server runs again.")
    assert len(site.pods(lease)) == 2
    assert [line for line in site.told(lease).split("\n") if "not by gpudev" in line] == []
    site.end(lease)
    site.until(lease, State.CANCELLED)
    site.gone(lease)
