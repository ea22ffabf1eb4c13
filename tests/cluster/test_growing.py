"""Nodes that are asked for, that lose GPUs, and that a server comes to for the second time: what
the real API server and scheduler say to it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.kubernetes import LABEL_RESERVATION
from gpudev_client.models import PodLaunch
from gpudev_client.states import State
from gpudev_service.kube.objects import HOSTNAME
from gpudev_service.loops import fleet as fleet_loop
from gpudev_service.operations import servers
from gpudev_service.settings import GpuTypeSpec, KubernetesType, ScaleUp
from gpudev_service.store.engine import Store
from tools.cluster import fleet as crowd
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

from .pods import pod
from .service import CROWD, group_type, service

pytestmark = pytest.mark.cluster

GPU = "nvidia.com/gpu"


@contextmanager
def crowd_of(cluster: Cluster, count: int) -> Iterator[str]:
    """So many nodes with eight GPUs each, which only seem to run pods; the group's name."""
    name = f"growing-{secrets.token_hex(3)}"
    cluster.add_nodes(count, name, resources={GPU: "8"})
    try:
        cluster.kubectl.wait("node", "Ready", selector=f"{crowd.GROUP}={name}")
        yield name
    finally:
        cluster.remove_nodes(name)


def growing(name: str, group: str, **more: Any) -> GpuTypeSpec:
    kubernetes = KubernetesType(
        node_selector={crowd.GROUP: group},
        tolerations=(CROWD,),
        scale_up=ScaleUp(max_nodes=9, minutes=5),
        **more,
    )
    return GpuTypeSpec(name=name, gpus_per_node=8, cpus=64, memory_gb=512, kubernetes=kubernetes)


def placeholders(namespace: Kubectl) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = namespace.get("pods")["items"]
    return [one for one in found if one["metadata"]["name"].startswith("gpudev-wanted-")]


@pytest.mark.parametrize(("nodes", "unlabelled"), [(2, False), (3, False), (3, True)])
async def test_a_placeholder_goes_to_a_new_node_and_to_none_that_is_there(
    cluster: Cluster,
    namespace: Kubectl,
    store: Store,
    tmp_path: Path,
    nodes: int,
    unlabelled: bool,
) -> None:
    with crowd_of(cluster, nodes) as group:
        if unlabelled:
            cluster.kubectl("label", "node", f"{group}-0", f"{group}-1", f"{HOSTNAME}-")
        types = {"h100": growing("h100", group)}
        inside = namespace.namespace or ""
        async with service(cluster.place.kubeconfig, tmp_path, types, inside) as there:
            await there.until(lambda: sum(n.ready for n in there.fleet.nodes()) == nodes)
            world = there.world(store, tmp_path)
            # What is there is taken in our books, and has no pod: the scheduler would use it.
            taken = [await world.reserve(f"user{n}", "h100", gpus=8) for n in range(nodes)]
            assert set(await world.states(*taken)) == {State.PREPARING}
            waits = await world.reserve("late", "h100", gpus=8)
            await fleet_loop.run(world.ctx)
            assert there.fleet.view().no_growth is None
            [made] = placeholders(namespace)
            name = made["metadata"]["name"]
            # The scheduler has looked at all nodes, and found none.
            namespace.wait(f"pod/{name}", "condition=PodScheduled=False")
            assert "nodeName" not in namespace.get("pod", name)["spec"]
            own = {crowd.GROUP: group}
            cluster.add_nodes(1, f"{group}-new", resources={GPU: "8"}, labels=own)
            new = f"{group}-new-0"
            namespace.wait(f"pod/{name}", f"jsonpath={{.spec.nodeName}}={new}")
            await there.until(lambda: any(n.name == new and n.ready for n in there.fleet.nodes()))
            await there.until(lambda: any(p.node == new for p in there.view.placeholders()))
            await fleet_loop.run(world.ctx)
            assert await world.states(waits) == [State.PREPARING]
            launch = (await servers.launch(world.ctx, waits.id)).pods
            assert launch is not None
            assert launch.nodes == [new]
            namespace.wait(f"pod/{name}", "delete")


async def test_a_type_whose_pods_the_cluster_refuses_keeps_no_other_from_its_nodes(
    cluster: Cluster, namespace: Kubectl, store: Store, tmp_path: Path
) -> None:
    group = f"none-{secrets.token_hex(3)}"
    # Of a runtime class that there is not, the API server makes no pod.
    barred = growing("barred", group, runtime_class=f"{group}-class")
    types = {"barred": barred, "h100": growing("h100", f"{group}-h100")}
    inside = namespace.namespace or ""
    async with service(cluster.place.kubeconfig, tmp_path, types, inside) as there:
        world = there.world(store, tmp_path)
        for name in types:
            await world.reserve(f"{name}-user", name, gpus=8)
        await fleet_loop.run(world.ctx)
        [made] = placeholders(namespace)
        assert made["metadata"]["name"].startswith("gpudev-wanted-h100-")
        told = there.fleet.view().no_growth or ""
        assert "No node of barred can be asked for" in told
        assert "403 Forbidden" in told


async def test_a_lease_whose_gpus_break_or_are_taken_before_its_start_is_planned_again(
    cluster: Cluster, namespace: Kubectl, store: Store, tmp_path: Path
) -> None:
    with crowd_of(cluster, 3) as group:
        types = {"h100": group_type("h100", group)}
        inside = namespace.namespace or ""
        async with service(cluster.place.kubeconfig, tmp_path, types, inside) as there:
            await there.until(lambda: sum(n.ready for n in there.fleet.nodes()) == 3)
            world = there.world(store, tmp_path)
            lease = await world.reserve("ada", "h100", gpus=8)
            first = lease.placement[0].node
            sick = '{"status": {"allocatable": {"nvidia.com/gpu": "6"}}}'
            cluster.kubectl(
                "patch", "node", first, "--subresource=status", "--type=merge", "-p", sick
            )
            second = await _moved(world.ctx, lease.id, {first})
            on_it: dict[str, Any] = {"nodeName": second, "tolerations": [CROWD]}
            namespace.apply(pod("foreign", "true", limits={GPU: "1"}, **on_it))
            units = {second: 7}
            await there.until(
                lambda: all(n.units == units.get(n.name, n.units) for n in there.fleet.nodes())
            )
            await _moved(world.ctx, lease.id, {first, second})


async def _moved(ctx: Any, key: str, away_from: set[str]) -> str:
    launch = await servers.launch(ctx, key)
    assert launch.reservation.state is State.PREPARING
    assert launch.pods is not None
    [found] = launch.pods.nodes
    assert found not in away_from
    return found


async def test_a_second_start_gets_as_much_as_the_first(
    cluster: Cluster, namespace: Kubectl, store: Store, tmp_path: Path
) -> None:
    with crowd_of(cluster, 1) as group:
        types = {"h100": group_type("h100", group)}
        inside = namespace.namespace or ""
        async with service(cluster.place.kubeconfig, tmp_path, types, inside) as there:
            await there.until(lambda: any(n.ready for n in there.fleet.nodes()))
            world = there.world(store, tmp_path)
            lease = await world.reserve("ada", "h100", gpus=8)
            first = (await servers.launch(world.ctx, lease.id)).pods
            assert first is not None
            assert first.cpus > 60
            namespace.apply(_pod_of(lease.id, first))
            namespace.wait("pod/of-before", "Ready")
            await there.until(lambda: any(p.running for p in there.view.pods_of(lease.id)))
            # The Hub was killed, or the server crashes: its pod is still there.
            assert (await servers.launch(world.ctx, lease.id)).pods == first


def _pod_of(reservation_id: str, launch: PodLaunch) -> dict[str, Any]:
    """A server's pod as it would be made, with all that its lease has."""
    asked = {
        "cpu": f"{launch.cpus:.3f}",
        "memory": str(launch.memory_bytes),
        GPU: str(launch.count),
    }
    on_it: dict[str, Any] = {
        "nodeSelector": dict(launch.node_selector),
        "tolerations": list(launch.tolerations),
    }
    made = pod("of-before", "exec sleep 1000", limits=asked, **on_it)
    made["metadata"].setdefault("labels", {})[LABEL_RESERVATION] = reservation_id
    return made
