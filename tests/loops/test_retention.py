"""Retention, and what it finds that others left; one bad disk is in no other's way."""

from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_client.models import CloneRequest
from gpudev_service.actor import Actor
from gpudev_service.disks.base import DiskFailure
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.loops import retention
from gpudev_service.operations import disks, reservations, servers, snapshots
from gpudev_service.store.models import DiskRow, IdempotencyRow
from tests.fixtures.world import World

ADA = Actor("ada")


class BadDisks(DirectoryDisks):
    """Some disks cannot be purged."""

    bad: frozenset[str] = frozenset()

    async def purge(self, disk_id: str) -> None:
        if disk_id in self.bad:
            raise DiskFailure("the file system of the disks refused the work")
        await super().purge(disk_id)


async def key_of(world: World, name: str) -> str:
    async with world.ctx.store.reading() as session:
        return (await disks.require(session, "ada", name)).id


@pytest.mark.parametrize("bad", [("a",), ("a", "b")], ids=str)
async def test_a_disk_that_cannot_be_purged_keeps_no_other(
    world: World, tmp_path: Path, bad: tuple[str, ...]
) -> None:
    world.ctx.disks = backend = BadDisks(tmp_path / "disks")
    keys = {}
    for name in ("a", "b", "c", "d"):
        await disks.create(world.ctx, "ada", name, (), ADA)
        keys[name] = await key_of(world, name)
        await disks.delete(world.ctx, "ada", name, (), ADA)
    backend.bad = frozenset(keys[name] for name in bad)
    world.clock.pass_time(days=31)
    with pytest.raises(DiskFailure if len(bad) == 1 else ExceptionGroup):
        await retention.run(world.ctx)
    async with world.ctx.store.reading() as session:
        left = {name for name, key in keys.items() if await session.get(DiskRow, key)}
    assert left == set(bad)
    backend.bad = frozenset()
    await retention.run(world.ctx)
    async with world.ctx.store.reading() as session:
        assert not [key for key in keys.values() if await session.get(DiskRow, key)]


async def test_homes_without_a_disk_go_with_their_reservation(world: World) -> None:
    over, runs = await world.reserve("ada"), await world.reserve("grace", "t4")
    for got in (over, runs):
        await servers.launch(world.ctx, got.id)
    await reservations.cancel(world.ctx, over.id, ADA)
    await world.sweep()
    left = servers.scratch(world.ctx, over.id)
    assert not left.exists()
    left.mkdir()  # a server was just being started while its lease ended
    foreign = servers.scratch(world.ctx, "zzzzzzzzzzzzzzzz")
    foreign.mkdir()
    await retention.run(world.ctx)
    assert not left.exists()
    assert servers.scratch(world.ctx, runs.id).exists()
    assert foreign.exists()


async def test_old_answers_to_idempotency_keys_are_forgotten(world: World) -> None:
    async def remember(session: object) -> None:
        for key, age in (("old", 25), ("new", 23)):
            session.add(  # type: ignore[attr-defined]
                IdempotencyRow(
                    caller="ada",
                    key=key,
                    request_hash="x",
                    created_at=world.clock.now() - timedelta(hours=age),
                )
            )

    await world.ctx.store.run(remember)
    await retention.run(world.ctx)
    async with world.ctx.store.reading() as session:
        assert await session.get(IdempotencyRow, ("ada", "old")) is None
        assert await session.get(IdempotencyRow, ("ada", "new")) is not None


async def test_work_on_disks_that_is_just_beginning_is_not_taken_for_interrupted(
    world: World,
) -> None:
    """A look between the writing down of a clone and its begin gave the new disk up."""
    await disks.create(world.ctx, "ada", "work", (), ADA)
    (world.ctx.disks.path(await key_of(world, "work")) / "a.txt").write_text("mine")
    real_exists = world.ctx.disks.exists
    begun: list[str] = []

    class Between(DirectoryDisks):
        """Lets a clone be written down while `resume` is looking for bytes."""

        async def exists(self, disk_id: str) -> bool:
            found = await real_exists(disk_id)
            if not begun:
                begun.append(disk_id)
                world.ctx.background.start(f"disk:{disk_id}", snapshots._clone(*args))
            return found

    source = await key_of(world, "work")
    target = await disks.create_row(world.ctx, "ada", "copy", (), busy=snapshots.CLONING)
    args = (world.ctx, source, target, None)
    world.ctx.disks = Between(world.ctx.settings.data_dir / "disks")
    await snapshots.resume(world.ctx)
    await world.ctx.background.settle()
    assert begun == [target]
    copy = await disks.get(world.ctx, "ada", "copy")
    assert copy.busy is None
    assert (world.ctx.disks.path(target) / "a.txt").read_text() == "mine"


async def test_a_clone_is_begun_at_once(world: World) -> None:
    await disks.create(world.ctx, "ada", "work", (), ADA)
    made = await snapshots.clone(world.ctx, "ada", "work", CloneRequest(name="copy"), (), ADA)
    assert made.busy
    await world.ctx.background.settle()
    assert (await disks.get(world.ctx, "ada", "copy")).busy is None
