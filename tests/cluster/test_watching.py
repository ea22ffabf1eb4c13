"""The fleet of a real cluster, and what becomes of it when the way to it breaks (R8)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.states import State
from gpudev_service.errors import Refusal
from gpudev_service.kube import Timing
from gpudev_service.loops import fleet as fleet_loop
from gpudev_service.operations import servers
from gpudev_service.store.engine import Store
from tools.cluster import fleet as crowd
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

from .pods import pod
from .proxy import FAULTS
from .service import CROWD, Service, group_type, service

pytestmark = pytest.mark.cluster

#: Shorter than in use, so that tests do not stand still for long.
QUICK = Timing(window=2, limit=4.0)
GPU = "nvidia.com/gpu"


@pytest.fixture
def group(cluster: Cluster) -> Iterator[str]:
    """Four nodes with eight GPUs each, which only seem to run pods."""
    name = f"watched-{secrets.token_hex(3)}"
    cluster.add_nodes(4, name, resources={GPU: "8"}, labels={"topology.kubernetes.io/zone": "z"})
    cluster.kubectl.wait("node", "Ready", selector=f"{crowd.GROUP}={name}")
    yield name
    cluster.remove_nodes(name)


@pytest.fixture
async def there(
    cluster: Cluster, group: str, namespace: Kubectl, tmp_path: Path
) -> AsyncIterator[Service]:
    types = {"h100": group_type("h100", group)}
    inside = namespace.namespace or ""
    async with service(cluster.place.kubeconfig, tmp_path, types, inside, QUICK) as found:
        await found.until(lambda: sum(n.ready for n in found.fleet.nodes()) == 4)
        yield found


async def test_the_fleet_is_what_the_cluster_is(
    there: Service, group: str, cluster: Cluster, namespace: Kubectl
) -> None:
    found = {node.name: node for node in there.fleet.nodes()}
    assert sorted(found) == [f"{group}-{number}" for number in range(4)]
    first = found[f"{group}-0"]
    assert (first.units, first.unit_cpus, first.zone) == (8, 8, "z")
    kubectl = cluster.kubectl
    kubectl("cordon", f"{group}-1")
    kubectl("taint", "node", f"{group}-2", "team=b:NoSchedule")
    sick = '{"status": {"allocatable": {"nvidia.com/gpu": "6"}}}'
    kubectl("patch", "node", f"{group}-3", "--subresource=status", "--type=merge", "-p", sick)
    there_only: dict[str, Any] = {
        "nodeSelector": {"kubernetes.io/hostname": f"{group}-0"},
        "tolerations": [CROWD],
    }
    namespace.apply(pod("foreign", "true", limits={GPU: "3"}, **there_only))

    def seen() -> list[tuple[bool, int | None]]:
        return [(node.ready, node.units) for node in there.fleet.nodes()]

    await there.until(lambda: seen() == [(True, 5), (False, 8), (False, 8), (True, 6)])
    reasons = [node.reason or "" for node in there.fleet.nodes()]
    for words, reason in zip(("used by", "cordoned", "taint team", "out of"), reasons, strict=True):
        assert words in reason


@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_is_placed_on_a_node_that_is_gone_or_closed_whatever_breaks(
    there: Service, group: str, cluster: Cluster, store: Store, tmp_path: Path, fault: str
) -> None:
    world = there.world(store, tmp_path)
    leases = [await world.reserve(f"user{n}", "h100", gpus=8) for n in range(4)]
    assert await world.states(*leases) == [State.PREPARING] * 4
    bad = {f"{group}-0", f"{group}-1"}
    there.proxy.become(fault)
    cluster.kubectl("cordon", f"{group}-0")
    cluster.kubectl("delete", "node", f"{group}-1")
    started = await _launched(world.ctx, [lease.id for lease in leases])
    assert not started & bad
    # It is noticed: either what has changed, or that nothing is seen.
    await there.until(lambda: not there.fleet.view().fresh or not _open(there) & bad)
    await fleet_loop.run(world.ctx)
    newcomers = [await world.reserve(f"late{n}", "h100", gpus=1) for n in range(4)]
    assert not await _launched(world.ctx, [lease.id for lease in newcomers]) & bad
    there.proxy.become(None)
    await there.until(lambda: there.fleet.view().fresh and not _open(there) & bad)
    assert _open(there) == {f"{group}-2", f"{group}-3"}
    await fleet_loop.run(world.ctx)
    every = [lease.id for lease in (*leases, *newcomers)]
    assert await _launched(world.ctx, every) == {f"{group}-2", f"{group}-3"}


def _open(there: Service) -> set[str]:
    return {node.name for node in there.fleet.nodes() if node.ready}


async def _launched(ctx: Any, ids: list[str]) -> set[str]:
    """The nodes on which servers would now be started."""
    nodes: set[str] = set()
    for key in ids:
        try:
            launch = await servers.launch(ctx, key)
        except Refusal as refusal:
            assert refusal.code in {"planned_again", "unavailable", "wrong_state"}  # noqa: PT017
            continue
        assert launch.pods is not None
        nodes.update(launch.pods.nodes)
    return nodes
