"""The service is killed in its pod, and the pod itself, while one lease lives and the next waits.

Nothing that was accepted is lost, nothing begins twice, and nothing is left over.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from gpudev_client.kubernetes import worker_name
from gpudev_client.states import State
from tests.e2e.waiting import until
from tests.fixtures.cluster import together
from tools.cluster.cluster import Cluster

from .kills import PATIENCE, PLACED, RUNNING, STARTING, processes
from .pod_kills import CONTAINER, POD, KilledRelease, killed_release
from .replicas import created

#: The first test of a run may have to build four images.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.chart,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
]

#: How long after the service's return a lease may last that is over.
_LATEST = timedelta(seconds=5)
#: How long before a lease's end the service is killed, so that it is away then.
_BEFORE = timedelta(seconds=1)


@pytest.fixture(scope="module")
def killed(cluster: Cluster) -> Iterator[KilledRelease]:
    with together(cluster), killed_release(cluster) as made:
        yield made


@pytest.fixture(autouse=True)
def sound_afterwards(killed: KilledRelease) -> Iterator[None]:
    yield
    killed.settle()


def begun_once(killed: KilledRelease, key: str) -> None:
    assert created(killed.release.installed, f"gpudev-{key}") == [worker_name(key, 0)]


#: `CLUSTER=1 make r2` takes both at every point, at random moments.
@pytest.mark.parametrize(
    ("victim", "point"),
    [(CONTAINER, PLACED), (CONTAINER, RUNNING), (POD, STARTING), (POD, RUNNING)],
)
def test_a_lease_and_who_waits_outlive_the_kill(
    killed: KilledRelease, victim: str, point: str
) -> None:
    lease, waits = killed.lease(point), killed.lease(PLACED)
    killed.kill(victim)
    killed.assert_sound()
    killed.until_state(lease.id, State.ACTIVE)
    assert killed.state(waits.id) is State.QUEUED
    assert processes([lease.id, waits.id]) == {lease.id}
    begun_once(killed, lease.id)


def test_a_lease_ends_and_the_next_begins_in_spite_of_the_kill(killed: KilledRelease) -> None:
    """Its snapshot is finished by whoever comes next."""
    lease = killed.lease(RUNNING, disk="work", create_disk=True)
    waits = killed.lease(PLACED)
    client = killed.release.client
    client.cancel(lease.id)
    killed.kill(POD)
    killed.until_state(lease.id, State.CANCELLED)
    killed.until_state(waits.id, State.ACTIVE)
    killed.assert_sound()
    assert not processes([lease.id])
    assert {one.state for one in client.snapshots("work").all()} == {"ready"}
    begun_once(killed, waits.id)


def test_a_lease_ends_soon_after_the_return(killed: KilledRelease) -> None:
    """And nobody has what it holds before."""
    key, end = killed.short_lease(20)
    waits = killed.lease(PLACED)
    until(lambda: datetime.now(UTC) > end - _BEFORE, "it is about to end", pause=0.1)
    assert processes([key])
    killed.kill(CONTAINER)
    back = datetime.now(UTC)

    def over() -> bool:
        found = processes([key, waits.id])
        assert found != {key, waits.id}
        return key not in found

    until(over, "its server has ended", patience=PATIENCE, pause=0.1)
    assert datetime.now(UTC) <= max(back, end) + _LATEST
    killed.until_state(key, State.EXPIRED)
    killed.until_state(waits.id, State.ACTIVE)
    for one in (key, waits.id):
        begun_once(killed, one)
