"""Who reaches whom. Enforcing it is the cluster's network plugin's; this is what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from gpudev_client import kubernetes as names
from gpudev_spawner import workers
from tests.chart.networks import End, Network, Outside, Pod
from tests.chart.rendering import EVERYTHING, LEAST, TRIAL, Manifest, Rendered, render

pytestmark = pytest.mark.chart

PUBLIC, API_SERVER, METADATA = (
    Outside("93.184.215.14"),
    Outside("10.96.0.1"),
    Outside("169.254.169.254"),
)
DNS = Pod("dns", {"k8s-app": "kube-dns"}, namespace="kube-system")
PROMETHEUS = Pod("prometheus", {"app": "prometheus"}, namespace="monitoring")
STRANGER = Pod("stranger", {"app": "stranger"})
ELSEWHERE = Pod("elsewhere", {"app": "stranger"}, namespace="other")
#: Where clouds answer about a machine: for all, for containers, by IPv6 and through NAT64.
ALL_METADATA = [
    METADATA,
    *map(
        Outside,
        (
            "169.254.170.2",
            "169.254.170.23",
            "100.100.100.200",
            "fe80::a9fe:a9fe",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "64:ff9b::a9fe:a9fe",
        ),
    ),
]
WEB_PORTS = (80, 443, 6443, 5432)
SERVICE_PORT, HUB_PORT, PROXY_PORT, SERVER_PORT, POSTGRES_PORT = 10101, 8081, 8000, 8888, 5432


def server(reservation: str, rank: int = 0) -> Pod:
    """A pod of a lease, with the labels that the spawner and the jupyterhub chart give it."""
    labels = {
        names.LABEL_RESERVATION: reservation,
        names.LABEL_RANK: str(rank),
        "app": "jupyterhub",
        "release": "gpudev",
        "component": "singleuser-server",
        "app.kubernetes.io/name": "jupyterhub",
        "app.kubernetes.io/instance": "gpudev",
        "app.kubernetes.io/component": "singleuser-server",
        "hub.jupyter.org/network-access-hub": "true",
    }
    return Pod(f"server-{reservation}-{rank}", labels, ports={"notebook-port": SERVER_PORT})


ADA, BOB = server("a" * 16), server("b" * 16)
WORKER = Pod("worker", {names.LABEL_RESERVATION: "a" * 16, names.LABEL_RANK: "1"})


def network(rendered: Rendered) -> Network:
    return Network(rendered.all("NetworkPolicy"))


def pod(rendered: Rendered, name: str) -> Pod:
    """A pod of the installation as an end of a connection."""
    template: Manifest = rendered.pods()[name]
    ports = {
        port["name"]: port["containerPort"]
        for container in template["spec"]["containers"]
        for port in container.get("ports", ())
    }
    return Pod(name, template["metadata"]["labels"], ports=ports)


@pytest.fixture(scope="module")
def installed() -> Rendered:
    return render(TRIAL, {"monitoring": {"monitor": "pod"}})


def test_a_server_reaches_the_hub(installed: Rendered) -> None:
    assert network(installed).lets(ADA, pod(installed, "Deployment/hub"), HUB_PORT)


@pytest.mark.parametrize("who", [ADA, WORKER], ids=["server", "worker"])
def test_a_lease_reaches_the_proxy_gpudev_dns_and_the_internet(
    who: Pod, installed: Rendered
) -> None:
    net = network(installed)
    # The proxy takes whoever comes to its public port, which the policy of its chart says.
    assert net.lets(who, pod(installed, "Deployment/proxy"), PROXY_PORT)
    assert net.lets(who, pod(installed, "Deployment/gpudev"), SERVICE_PORT)
    assert net.lets(who, DNS, 53, "UDP")
    assert net.lets(who, PUBLIC, 443)


@pytest.mark.parametrize("who", [ADA, WORKER], ids=["server", "worker"])
@pytest.mark.parametrize(
    ("target", "port"),
    [
        (BOB, SERVER_PORT),
        (BOB, 22),
        (STRANGER, 80),
        (ELSEWHERE, 80),
        (API_SERVER, 443),
        (API_SERVER, 6443),
        (METADATA, 80),
        (Outside("fd00:ec2::254"), 80),
        (Outside("100.100.100.200"), 80),
        (Outside("192.168.1.1"), 443),
        (Outside("172.20.0.1"), 53),
        (Outside("10.0.0.7"), 10250),
    ],
    ids=lambda value: str(getattr(value, "address", value)),
)
def test_a_lease_reaches_nothing_else(
    who: Pod, target: End, port: int, installed: Rendered
) -> None:
    assert not network(installed).lets(who, target, port)


def test_a_lease_does_not_reach_the_database_nor_the_inside_of_hub_and_proxy(
    installed: Rendered,
) -> None:
    net = network(installed)
    assert not net.lets(ADA, pod(installed, "StatefulSet/gpudev-database"), POSTGRES_PORT)
    assert not net.lets(ADA, pod(installed, "Deployment/proxy"), 8001)
    assert not net.lets(ADA, pod(installed, "Deployment/hub"), 22)


def test_only_hub_and_proxy_come_to_a_server(installed: Rendered) -> None:
    net = network(installed)
    assert net.lets(pod(installed, "Deployment/proxy"), ADA, SERVER_PORT)
    assert net.lets(pod(installed, "Deployment/hub"), ADA, SERVER_PORT)
    assert not net.lets(pod(installed, "Deployment/hub"), ADA, 22)
    for other in (pod(installed, "Deployment/gpudev"), BOB, STRANGER, ELSEWHERE, PUBLIC):
        assert not net.lets(other, ADA, SERVER_PORT)


def test_pods_of_one_reservation_reach_each_other_and_nobody_elses(installed: Rendered) -> None:
    """The chart's policies together with those that the Hub makes for two reservations of several
    nodes."""
    mine, other = "a" * 16, "b" * 16
    stranger = Pod("other", {names.LABEL_RESERVATION: other, names.LABEL_RANK: "1"})
    chart = installed.all("NetworkPolicy")
    net = Network([*chart, workers.policy(mine), workers.policy(other)])
    ports = (22, workers.SSH_PORT, workers.MASTER_PORT, SERVER_PORT, 40000)
    for port in ports:
        assert net.lets(ADA, WORKER, port)
        assert net.lets(WORKER, ADA, port)
        assert net.lets(BOB, stranger, port)
        for own, foreign in ((ADA, BOB), (ADA, stranger), (WORKER, BOB), (WORKER, stranger)):
            assert not net.lets(own, foreign, port)
            assert not net.lets(foreign, own, port)
        for outside in (STRANGER, ELSEWHERE, pod(installed, "Deployment/gpudev"), PUBLIC):
            assert not net.lets(outside, WORKER, port)
        # Without the Hub's policies not even those of one reservation do.
        assert not network(installed).lets(ADA, WORKER, port)
    # It opens nothing else: what the chart forbids them stays forbidden.
    for who in (ADA, WORKER):
        for where in (API_SERVER, METADATA, STRANGER):
            for port in WEB_PORTS:
                assert not net.lets(who, where, port)
        assert net.lets(who, pod(installed, "Deployment/gpudev"), SERVICE_PORT)
        assert net.lets(who, PUBLIC, 443)


def test_the_internet_is_policy_and_has_holes() -> None:
    closed = network(render(LEAST, {"networkPolicy": {"users": {"internet": False}}}))
    assert not closed.lets(ADA, PUBLIC, 443)
    assert closed.lets(ADA, DNS, 53)
    some = network(render(EVERYTHING))
    assert not some.lets(ADA, Outside("203.0.113.7"), 443)
    assert some.lets(ADA, Outside("203.0.113.8"), 443)
    assert not some.lets(ADA, Outside("2001:db8::7"), 443)
    assert some.lets(ADA, Outside("2001:db8::8"), 443)
    assert some.lets(ADA, Outside("10.1.2.3"), 2049)
    assert some.lets(ADA, Outside("169.254.20.10"), 53, "UDP")
    assert not some.lets(ADA, Outside("169.254.20.10"), 80)


def test_replicas_of_the_service_reach_each_other_where_there_are_several(
    installed: Rendered,
) -> None:
    several = render(LEAST, {"service": {"replicas": 2}})
    one, other = pod(several, "Deployment/gpudev"), pod(several, "Deployment/gpudev")
    assert network(several).lets(one, other, SERVICE_PORT)
    assert not network(several).lets(one, other, 22)
    alone = pod(installed, "Deployment/gpudev")
    assert not network(installed).lets(alone, alone, SERVICE_PORT)


def test_who_reaches_the_service(installed: Rendered) -> None:
    net, service = network(installed), pod(installed, "Deployment/gpudev")
    for name in ("Deployment/hub", "Deployment/proxy"):
        assert net.lets(pod(installed, name), service, SERVICE_PORT)
    assert net.lets(PROMETHEUS, service, SERVICE_PORT)
    for other in (STRANGER, ELSEWHERE, PUBLIC, Outside("10.0.0.9")):
        assert not net.lets(other, service, SERVICE_PORT)
    without = render(TRIAL)
    assert not network(without).lets(PROMETHEUS, pod(without, "Deployment/gpudev"), SERVICE_PORT)


def test_whom_the_service_reaches(installed: Rendered) -> None:
    net, service = network(installed), pod(installed, "Deployment/gpudev")
    assert net.lets(service, pod(installed, "Deployment/hub"), HUB_PORT)
    assert net.lets(service, pod(installed, "StatefulSet/gpudev-database"), POSTGRES_PORT)
    assert net.lets(service, API_SERVER, 443)
    assert net.lets(service, DNS, 53, "UDP")
    assert not net.lets(service, ADA, SERVER_PORT)
    for other in (STRANGER, ELSEWHERE, PUBLIC):
        for port in (80, 8443, POSTGRES_PORT):
            assert not net.lets(service, other, port)


#: What may call the API server, or a database outside, and with which values.
CALLERS = ("Deployment/gpudev", "Job/gpudev-migrate", "Job/gpudev-cleanup")


@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_nothing_of_ours_reaches_cloud_metadata(name: str, values: dict[str, Any]) -> None:
    rendered = render(values, upgrade=True)
    net, who = network(rendered), pod(rendered, name)
    for where in ALL_METADATA:
        for port in WEB_PORTS:
            assert not net.lets(who, where, port), (where.address, port)


def test_the_same_addresses_are_closed_to_servers(installed: Rendered) -> None:
    for who in (ADA, WORKER):
        for where in ALL_METADATA:
            for port in WEB_PORTS:
                assert not network(installed).lets(who, where, port), (where.address, port)


def test_the_api_servers_ports_are_open_to_all_addresses_until_they_are_named() -> None:
    """As the documentation says: by default it could be anywhere, also where a pod is."""
    where = {"cidrs": ["203.0.113.7/32", "10.96.0.1/32"]}
    for name in ("Deployment/gpudev", "Job/gpudev-cleanup"):
        rendered = render(LEAST)
        for other in (API_SERVER, PUBLIC, STRANGER):
            assert network(rendered).lets(pod(rendered, name), other, 443)
            assert network(rendered).lets(pod(rendered, name), other, 6443)
            assert not network(rendered).lets(pod(rendered, name), other, 80)
        rendered = render(LEAST, {"networkPolicy": {"apiServer": where}})
        for port in (443, 6443):
            assert network(rendered).lets(pod(rendered, name), API_SERVER, port)
            assert network(rendered).lets(pod(rendered, name), Outside("203.0.113.7"), port)
            for other in (PUBLIC, STRANGER, Outside("203.0.113.8"), Outside("2001:db8::1")):
                assert not network(rendered).lets(pod(rendered, name), other, port)


def test_the_databases_port_is_open_to_all_addresses_until_they_are_named() -> None:
    where = {"cidrs": ["10.0.0.5/32"]}
    for name in ("Deployment/gpudev", "Job/gpudev-migrate"):
        rendered = render(LEAST)
        for other in (PUBLIC, STRANGER):
            assert network(rendered).lets(pod(rendered, name), other, POSTGRES_PORT)
        rendered = render(LEAST, {"networkPolicy": {"database": where}})
        for other in (PUBLIC, STRANGER, Outside("2001:db8::1")):
            assert not network(rendered).lets(pod(rendered, name), other, POSTGRES_PORT)


def test_a_range_that_is_named_is_taken_as_it_is() -> None:
    """Somebody's API server may be there; the exception is for who means all addresses."""
    where = {"cidrs": ["169.254.0.0/16"]}
    rendered = render(LEAST, {"networkPolicy": {"apiServer": where}})
    assert network(rendered).lets(pod(rendered, "Deployment/gpudev"), METADATA, 443)


def test_a_database_outside_is_reached_where_it_is_said_to_be() -> None:
    where = {"networkPolicy": {"database": {"cidrs": ["10.0.0.5/32"], "port": 6432}}}
    rendered = render(LEAST, where)
    for name in ("Deployment/gpudev", "Job/gpudev-migrate"):
        who = pod(rendered, name)
        assert network(rendered).lets(who, Outside("10.0.0.5"), 6432)
        assert not network(rendered).lets(who, Outside("10.0.0.6"), 6432)


def test_the_jobs_reach_what_they_need(installed: Rendered) -> None:
    upgraded = render(TRIAL, upgrade=True)
    net, migrate = network(upgraded), pod(upgraded, "Job/gpudev-migrate")
    assert net.lets(migrate, pod(upgraded, "StatefulSet/gpudev-database"), POSTGRES_PORT)
    assert not net.lets(migrate, API_SERVER, 443)
    cleanup = pod(installed, "Job/gpudev-cleanup")
    assert network(installed).lets(cleanup, API_SERVER, 443)
    assert not network(installed).lets(
        cleanup, pod(installed, "StatefulSet/gpudev-database"), POSTGRES_PORT
    )


def test_the_database_calls_nobody(installed: Rendered) -> None:
    net, database = network(installed), pod(installed, "StatefulSet/gpudev-database")
    for other in (DNS, PUBLIC, API_SERVER, pod(installed, "Deployment/gpudev")):
        assert not net.lets(database, other, 443)


def test_the_proxy_reaches_hub_servers_and_gpudev_and_nothing_else(installed: Rendered) -> None:
    net, proxy = network(installed), pod(installed, "Deployment/proxy")
    assert net.lets(proxy, pod(installed, "Deployment/gpudev"), SERVICE_PORT)
    assert net.lets(proxy, pod(installed, "Deployment/hub"), HUB_PORT)
    for other in (PUBLIC, METADATA, API_SERVER, STRANGER):
        for port in WEB_PORTS:
            assert not net.lets(proxy, other, port)


def test_the_hub_has_no_business_with_metadata(installed: Rendered) -> None:
    for port in WEB_PORTS:
        assert not network(installed).lets(pod(installed, "Deployment/hub"), METADATA, port)


@pytest.mark.parametrize("label", [names.LABEL_STATE, names.LABEL_PLACEHOLDER])
def test_a_pod_that_lists_a_snapshot_or_asks_for_a_node_reaches_nobody(
    label: str, installed: Rendered
) -> None:
    alone, net = Pod("alone", {label: "index"}), network(installed)
    for other in (DNS, PUBLIC, API_SERVER, pod(installed, "Deployment/gpudev"), ADA):
        assert not net.lets(alone, other, 443)
        assert not net.lets(other, alone, 443)


def test_the_reading_of_policies_can_say_no_and_yes() -> None:
    policy: dict[str, Any] = {
        "spec": {
            "podSelector": {"matchLabels": {"app": "stranger"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}],
        }
    }
    net = Network([policy])
    assert net.lets(STRANGER, STRANGER, 80)
    assert not net.lets(STRANGER, STRANGER, 81)
    assert not net.lets(ELSEWHERE, STRANGER, 80)
    assert net.lets(STRANGER, PUBLIC, 80)  # nothing is said about the way out
