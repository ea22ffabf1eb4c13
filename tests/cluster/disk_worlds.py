"""A service without HTTP whose disks are volumes of the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gpudev_client.models import DiskRequest
from gpudev_service.actor import Actor
from gpudev_service.operations import disks
from gpudev_service.settings import KubernetesSettings
from gpudev_service.store.engine import Store
from tests.cluster.volumes import Setting
from tests.fixtures.world import NODES, World, make_world
from tools.cluster import node
from tools.cluster.kubectl import Kubectl

ADA = Actor("ada")


@asynccontextmanager
async def world_of(setting: Setting, store: Store, folder: Path) -> AsyncIterator[World]:
    """Reaches the cluster as `setting` says."""
    async with setting.disks() as backend:
        # Where the volumes are.
        nodes = tuple(spec.model_copy(update={"zone": node.ZONE}) for spec in NODES)
        made = make_world(store, folder, nodes=nodes)
        made.ctx.disks = backend
        usual_gb(made, 1)
        try:
            yield made
        finally:
            await made.ctx.background.close()


def usual_gb(world: World, size: int) -> None:
    """How large disks are for which nobody asks another size, by the configuration."""
    kubernetes = KubernetesSettings(disk_size_gb=size)
    world.ctx.settings = world.ctx.settings.model_copy(update={"kubernetes": kubernetes})


async def used(
    world: World, namespace: Kubectl, name: str = "work", size: int | None = None
) -> str:
    """The id of a disk of ada's that has its volume."""
    async with world.ctx.store.reading() as session:
        found = await disks.find(session, "ada", name)
    if found is None:
        request = DiskRequest(name=name, size_gb=size)
        await disks.create(world.ctx, "ada", request, (), ADA)
    async with world.ctx.store.reading() as session:
        key = (await disks.require(session, "ada", name)).id
    await disks.ensure(world.ctx, key)
    claim = await world.ctx.disks.claim(key)
    namespace.wait(f"pvc/{claim}", "jsonpath={.status.phase}=Bound")
    return key
