"""The size that a disk shows is the one that its volume was made with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import CloneRequest, DiskChange
from gpudev_service.disks.claims import quantity
from gpudev_service.disks.volumes import GB
from gpudev_service.errors import Refusal
from gpudev_service.loops import retention
from gpudev_service.operations import disks, snapshots
from gpudev_service.store.engine import Store
from gpudev_service.store.models import DiskRow
from tests.cluster.disk_worlds import ADA, used, usual_gb, world_of
from tests.cluster.volumes import Setting
from tests.fixtures.world import World
from tools.cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster


@pytest.fixture
async def world(
    setting: Setting, store: Store, tmp_path: Path, index_image: None
) -> AsyncIterator[World]:
    async with world_of(setting, store, tmp_path) as made:
        yield made


async def shown(world: World, name: str) -> int | None:
    return (await disks.get(world.ctx, "ada", name)).size_gb


async def test_a_clone_is_as_large_as_its_source(world: World, namespace: Kubectl) -> None:
    await used(world, namespace, size=5)
    await snapshots.take(world.ctx, "ada", "work", None, ADA)
    await world.ctx.background.settle()
    for name, snapshot in (("live", None), ("old", "latest")):
        asked = CloneRequest(name=name, snapshot=snapshot)
        begun = await snapshots.clone(world.ctx, "ada", "work", asked, (), ADA)
        assert begun.size_gb == 5
        await world.ctx.background.settle()
        assert await shown(world, name) == 5
        smaller = DiskChange(size_gb=3)
        with pytest.raises(Refusal, match=f"{name!r} has 5 GB") as refused:
            await disks.change(world.ctx, "ada", name, smaller, (), ADA)
        assert refused.value.accepted == {"min": 5}
        await disks.change(world.ctx, "ada", name, DiskChange(size_gb=6), (), ADA)
        key = await used(world, namespace, name)
        claim = namespace.get("pvc", str(await world.ctx.disks.claim(key)))
        assert quantity(claim["spec"]["resources"]["requests"]["storage"]) == 6 * GB


async def test_a_clone_is_as_large_as_its_source_has_become(
    world: World, namespace: Kubectl
) -> None:
    """Its source grows after it was written down, before its volume is made."""
    key = await used(world, namespace, size=2)
    asked = CloneRequest(name="copy")
    grown = world.ctx.disks.resize(key, 4)
    begun = await snapshots.clone(world.ctx, "ada", "work", asked, (), ADA)
    assert begun.size_gb == 2
    await grown
    await world.ctx.background.settle()
    assert await shown(world, "copy") == 4


async def test_another_default_changes_no_disk_that_is_there(
    world: World, namespace: Kubectl
) -> None:
    await used(world, namespace)
    lease = await world.reserve(disk="of-a-lease", create_disk=True)
    usual_gb(world, 7)
    assert (await shown(world, "work"), await shown(world, "of-a-lease")) == (1, 1)
    await disks.ensure(world.ctx, await used(world, namespace, "of-a-lease"))
    assert lease.disk == "of-a-lease"
    await used(world, namespace, "later")
    assert await shown(world, "later") == 7


async def test_the_size_of_a_disk_of_an_earlier_version_is_found_out(
    world: World, namespace: Kubectl
) -> None:
    """These did not write down what was only the default."""
    key = await used(world, namespace)

    async def forget(session: AsyncSession) -> None:
        await session.execute(update(DiskRow).where(DiskRow.id == key).values(size_gb=None))

    await world.ctx.store.run(forget)
    usual_gb(world, 7)
    await retention.run(world.ctx)
    assert await shown(world, "work") == 1
