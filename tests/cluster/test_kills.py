"""SIGKILL of the cluster's parts, of the Hub and of the service at named points of a lease's life.

Nothing that was accepted is lost, no pod is left without a lease, and leases end on time.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from gpudev_client.states import State
from tests.e2e.waiting import until
from tests.fixtures.cluster import together
from tools.cluster.cluster import Cluster

from .kills import (
    ENDING,
    HUB,
    PATIENCE,
    PLACED,
    RUNNING,
    SERVICE,
    STARTING,
    Killed,
    processes,
)
from .site import built, opened

pytestmark = [pytest.mark.cluster, pytest.mark.hub, pytest.mark.slow]

#: How late a lease may end, whatever is dead.
LATEST = timedelta(seconds=5)


@pytest.fixture(scope="module")
def killed(cluster: Cluster) -> Iterator[Killed]:
    with pytest.MonkeyPatch.context() as monkeypatch, ExitStack() as stack:
        with together(cluster):
            built(cluster)
            site = stack.enter_context(opened(cluster, monkeypatch, SERVICE, HUB))
            made = Killed(site)
        stack.callback(made.close)
        yield made


@pytest.fixture(autouse=True)
def sound_afterwards(alone: None, killed: Killed) -> Iterator[None]:
    """After each crash everything that was accepted ends as it should, and nothing is left; also
    where a part did not come back, so that the next test does not meet what this one has left."""
    yield
    killed.site.cluster.mend()
    killed.settle()


#: `CLUSTER=1 make r2` takes every victim at every point.
@pytest.mark.parametrize(
    ("victim", "point"),
    [
        ("kube-apiserver", PLACED),
        ("kube-apiserver", RUNNING),
        ("etcd", STARTING),
        ("kubelet", STARTING),
        ("kubelet", RUNNING),
        ("service", PLACED),
        ("hub", STARTING),
    ],
)
def test_a_lease_outlives_the_kill(killed: Killed, victim: str, point: str) -> None:
    lease = killed.lease(point)
    killed.kill(victim)
    killed.assert_sound()
    killed.until_state(lease.id, State.ACTIVE)
    until(
        lambda: killed.site.lab(lease, "api/status").is_success,
        "the server can be reached",
        patience=PATIENCE,
    )


@pytest.mark.parametrize("victim", ["kube-apiserver", "kubelet", "hub"])
def test_a_lease_ends_in_spite_of_the_kill(killed: Killed, victim: str) -> None:
    # Of its own, so that none is in use still where another case has failed.
    disk = f"work-{victim}"
    lease = killed.lease(ENDING, disk=disk, create_disk=True)
    killed.kill(victim)
    killed.until_state(lease.id, State.CANCELLED)
    killed.assert_sound()
    assert not processes([lease.id])
    found = killed.site.hub.call("GET", f"/disks/{disk}/snapshots", killed.site.token).json()
    assert {one["state"] for one in found["items"]} == {"ready"}


def test_a_lease_ends_while_the_hub_is_dead(killed: Killed) -> None:
    key, end = killed.short_lease(20)
    hub = killed.site.hub
    hub.end("hub", signal.SIGKILL)
    until(lambda: not processes([key]), "its server has ended", patience=PATIENCE, pause=0.1)
    ended = datetime.now(UTC)
    hub.start_hub()
    assert end <= ended <= end + LATEST
    killed.until_state(key, State.EXPIRED)


@pytest.mark.parametrize("victim", ["kube-apiserver", "etcd"])
def test_a_lease_ends_soon_after_the_return(killed: Killed, victim: str) -> None:
    """At the latest: the server hears of its lease's end, and does not wait for its node."""
    key, end = killed.short_lease(20)
    cluster = killed.site.cluster
    cluster.kill(victim)
    until(lambda: datetime.now(UTC) > end, "the lease is over", pause=0.1)
    cluster.start(victim)
    back = datetime.now(UTC)
    until(lambda: not processes([key]), "its server has ended", patience=PATIENCE, pause=0.1)
    assert datetime.now(UTC) <= back + LATEST
    killed.until_state(key, State.EXPIRED)
