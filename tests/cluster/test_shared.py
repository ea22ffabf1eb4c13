"""The folder that the nodes of a reservation share: a claim that lives as long as the lease."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudev_client.kubernetes import shared_name
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import retention
from gpudev_service.operations import reservations
from gpudev_service.operations import servers as operations
from gpudev_service.servers import SharedFolders
from gpudev_service.store.engine import Store
from tests.fixtures.world import World
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

from .service import Service, group_type, service

pytestmark = pytest.mark.cluster


@pytest.fixture
async def there(cluster: Cluster, namespace: Kubectl, tmp_path: Path) -> AsyncIterator[Service]:
    group = f"shared-{secrets.token_hex(3)}"
    cluster.add_nodes(2, group, resources={"nvidia.com/gpu": "1"})
    try:
        types = {"pair": group_type("pair", group)}
        inside = namespace.namespace or ""
        async with service(cluster.place.kubeconfig, tmp_path, types, inside) as found:
            await found.until(lambda: sum(one.ready for one in found.fleet.nodes()) == 2)
            yield found
    finally:
        cluster.remove_nodes(group)


@pytest.fixture
def world(there: Service, namespace: Kubectl, store: Store, tmp_path: Path) -> World:
    made = there.world(store, tmp_path)
    made.ctx.shared = SharedFolders(there.view.kube, namespace.namespace or "", "folders-late", 1)
    return made


def claims(namespace: Kubectl) -> list[str]:
    return [item["metadata"]["name"] for item in namespace.get("persistentvolumeclaims")["items"]]


async def test_it_is_made_once_and_goes_with_the_lease(world: World, namespace: Kubectl) -> None:
    lease = await world.reserve(gpu_type="pair", gpus=2)
    for _ in range(2):
        launch = await operations.launch(world.ctx, lease.id)
        assert launch.pods is not None
        assert launch.pods.shared_claim == shared_name(lease.id)
    [made] = namespace.get("persistentvolumeclaims")["items"]
    assert made["metadata"]["name"] == shared_name(lease.id)
    assert made["spec"]["accessModes"] == ["ReadWriteMany"]

    await retention.run(world.ctx)
    assert claims(namespace) == [shared_name(lease.id)], "who has a lease keeps it"
    await reservations.cancel(world.ctx, lease.id, Actor("ada"))
    await world.sweep()
    assert await world.states(lease) == [State.CANCELLED]
    namespace.wait(f"persistentvolumeclaim/{shared_name(lease.id)}", "delete")


async def test_what_an_end_could_not_remove_goes_later(world: World, namespace: Kubectl) -> None:
    lease = await world.reserve(gpu_type="pair", gpus=2)
    await operations.launch(world.ctx, lease.id)
    folders, world.ctx.shared = world.ctx.shared, None
    await reservations.cancel(world.ctx, lease.id, Actor("ada"))
    await world.sweep()
    assert claims(namespace) == [shared_name(lease.id)]
    world.ctx.shared = folders
    await retention.run(world.ctx)
    namespace.wait(f"persistentvolumeclaim/{shared_name(lease.id)}", "delete")


async def test_one_node_needs_none(world: World, namespace: Kubectl) -> None:
    lease = await world.reserve(gpu_type="pair", gpus=1)
    launch = await operations.launch(world.ctx, lease.id)
    assert launch.pods is not None
    assert launch.pods.shared_claim is None
    assert claims(namespace) == []


async def test_a_cluster_that_refuses_it_is_told(world: World, namespace: Kubectl) -> None:
    quota = {"hard": {"persistentvolumeclaims": "0"}}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": quota,
        }
    )
    namespace.wait("resourcequota/none", "jsonpath={.status.hard.persistentvolumeclaims}=0")
    lease = await world.reserve(gpu_type="pair", gpus=2)
    with pytest.raises(Refusal, match="refused the folder that your nodes share"):
        await operations.launch(world.ctx, lease.id)
