"""Disks as people use them: with names, snapshots, clones, restorations, deletion and its date."""

from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_client.models import CloneRequest, Disk, DiskChange, DiskRequest, RestoreRequest
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import retention
from gpudev_service.operations import disks, reservations, snapshots
from gpudev_service.settings import Policy, PolicyRule
from gpudev_service.store.engine import Store
from gpudev_service.store.models import DiskRow
from tests.fixtures.world import START, World, make_world

ADA = Actor("ada")


async def create(world: World, name: str = "work") -> Disk:
    return await disks.create(world.ctx, "ada", DiskRequest(name=name), (), ADA)


async def folder(world: World, name: str = "work") -> Path:
    async with world.ctx.store.reading() as session:
        row = await disks.require(session, "ada", name)
    return world.ctx.disks.path(row.id)


async def snap(world: World, name: str = "work", note: str | None = None) -> str:
    taken = await snapshots.take(world.ctx, "ada", name, note, ADA)
    await world.ctx.background.settle()
    return taken.id


async def names(world: World, *, deleted: bool = False) -> list[str]:
    page = await disks.listing(
        world.ctx, frozenset({"ada"}), deleted=deleted, limit=50, cursor=None
    )
    return [disk.name for disk in page.items]


async def test_a_disk_is_put_back_to_a_snapshot_after_a_snapshot_of_its_present(
    world: World,
) -> None:
    await create(world)
    (await folder(world) / "a.txt").write_text("first")
    old = await snap(world)
    world.clock.pass_time(minutes=1)
    (await folder(world) / "a.txt").write_text("second")
    await snapshots.restore(world.ctx, "ada", "work", RestoreRequest(snapshot=old), (), ADA)
    await world.ctx.background.settle()
    assert (await folder(world) / "a.txt").read_text() == "first"
    page = await snapshots.listing(world.ctx, "ada", "work", 10, None)
    assert [(s.cause, s.state) for s in page.items] == [("safety", "ready"), ("person", "ready")]
    await snapshots.restore(
        world.ctx, "ada", "work", RestoreRequest(snapshot=page.items[0].id), (), ADA
    )
    await world.ctx.background.settle()
    assert (await folder(world) / "a.txt").read_text() == "second"


async def test_a_snapshot_is_found_by_date(world: World) -> None:
    await create(world)
    for day in range(3):
        (await folder(world) / "day").write_text(str(day))
        await snap(world)
        world.clock.pass_time(days=1)
    asked = CloneRequest(name="then", at=START + timedelta(days=1, hours=3))
    await snapshots.clone(world.ctx, "ada", "work", asked, (), ADA)
    await world.ctx.background.settle()
    assert (await folder(world, "then") / "day").read_text() == "1"
    early = CloneRequest(name="never", at=START - timedelta(days=1))
    with pytest.raises(Refusal, match="no such snapshot"):
        await snapshots.clone(world.ctx, "ada", "work", early, (), ADA)


async def test_a_deleted_disk_comes_back_until_its_date_and_is_gone_after(world: World) -> None:
    await create(world)
    path = await folder(world)
    (path / "kept").write_text("x")
    gone = await disks.delete(world.ctx, "ada", "work", (), ADA)
    assert gone.purged_after == START + timedelta(days=30)
    assert await names(world) == []
    world.clock.pass_time(days=29)
    await retention.run(world.ctx)
    await snapshots.restore(world.ctx, "ada", "work", RestoreRequest(), (), ADA)
    assert (await folder(world) / "kept").read_text() == "x"
    await disks.delete(world.ctx, "ada", "work", (), ADA)
    world.clock.pass_time(days=30)
    await retention.run(world.ctx)
    assert not path.exists()
    assert await names(world, deleted=True) == []
    with pytest.raises(Refusal, match="no such deleted disk"):
        await snapshots.restore(world.ctx, "ada", "work", RestoreRequest(), (), ADA)


async def test_a_name_is_free_again_after_deletion_but_not_for_undoing_it(world: World) -> None:
    await create(world)
    await disks.delete(world.ctx, "ada", "work", (), ADA)
    await create(world)
    with pytest.raises(Refusal) as refused:
        await snapshots.restore(world.ctx, "ada", "work", RestoreRequest(), (), ADA)
    assert refused.value.code == "name_taken"


async def test_a_disk_in_use_is_neither_deleted_nor_restored_but_snapshotted(
    world: World,
) -> None:
    got = await world.reserve("ada", disk="work", create_disk=True)
    with pytest.raises(Refusal) as refused:
        await disks.delete(world.ctx, "ada", "work", (), ADA)
    assert refused.value.code == "disk_in_use"
    assert got.id in refused.value.message
    await disks.ensure(world.ctx, await _id(world))
    taken = await snap(world)
    with pytest.raises(Refusal) as refused:
        await snapshots.restore(world.ctx, "ada", "work", RestoreRequest(snapshot=taken), (), ADA)
    assert refused.value.code == "disk_in_use"


async def _id(world: World) -> str:
    async with world.ctx.store.reading() as session:
        return (await disks.require(session, "ada", "work")).id


async def test_renaming_while_in_use_changes_nothing_but_the_name(world: World) -> None:
    got = await world.reserve("ada", disk="work", create_disk=True)
    await disks.rename(world.ctx, "ada", "work", "better", ADA)
    assert (await world.look(got)).disk == "better"
    with pytest.raises(Refusal) as refused:
        await world.reserve("ada", "t4", disk="better")
    assert refused.value.code == "disk_in_use"


async def test_interrupted_work_is_taken_up_again(world: World) -> None:
    """What a crash leaves: rows that say `taking` and `being cloned`, and no task."""
    await create(world)
    (await folder(world) / "a").write_text("x")
    taken = await snapshots.take(world.ctx, "ada", "work", None, ADA)
    asked = CloneRequest(name="copy")
    await snapshots.clone(world.ctx, "ada", "work", asked, (), ADA)
    await world.ctx.background.close()
    await snapshots.resume(world.ctx)
    await world.ctx.background.settle()
    page = await snapshots.listing(world.ctx, "ada", "work", 10, None)
    assert [(s.id, s.state, s.files) for s in page.items] == [(taken.id, "ready", 1)]
    # The clone appears whole or not at all: whichever it was when it was interrupted.
    if await names(world) == ["copy", "work"]:
        assert (await folder(world, "copy") / "a").read_text() == "x"
        assert (await disks.get(world.ctx, "ada", "copy")).busy is None
    else:
        assert await names(world) == ["work"]


async def test_old_snapshots_go_and_the_newest_stays(store: Store, tmp_path: Path) -> None:
    rule = PolicyRule(max_hours=24, snapshots_kept=2, disk_retention_days=1)
    world = make_world(store, tmp_path, policy=Policy(default=rule))
    await create(world)
    made = []
    for _ in range(4):
        made.append(await snap(world))
        world.clock.pass_time(days=1)
    world.clock.pass_time(days=30)
    await retention.run(world.ctx)
    page = await snapshots.listing(world.ctx, "ada", "work", 10, None)
    assert [s.id for s in page.items] == [made[3], made[2]]


async def test_a_person_has_as_many_disks_as_policy_allows(store: Store, tmp_path: Path) -> None:
    rule = PolicyRule(max_hours=24, max_disks=1)
    groups = {"big": PolicyRule(max_disks=2)}
    world = make_world(store, tmp_path, policy=Policy(default=rule, groups=groups))
    await create(world)
    with pytest.raises(Refusal) as refused:
        await create(world, "second")
    assert refused.value.code == "quota"
    with pytest.raises(Refusal):
        await world.reserve("ada", disk="second", create_disk=True)
    await disks.create(world.ctx, "ada", DiskRequest(name="second"), ("big",), ADA)


async def test_the_row_of_a_purged_disk_leaves_the_reservations_history(world: World) -> None:
    got = await world.reserve("ada", disk="work", create_disk=True)
    await reservations.cancel(world.ctx, got.id, ADA)
    await world.sweep()
    await disks.delete(world.ctx, "ada", "work", (), ADA)
    world.clock.pass_time(days=31)
    await retention.run(world.ctx)
    after = await world.look(got)
    assert after.disk is None
    assert any("Snapshot taken" in r for r in await world.reasons(got))
    async with world.ctx.store.reading() as session:
        assert await session.get(DiskRow, "none") is None


async def test_a_directory_has_no_size_of_its_own(world: World) -> None:
    sized = DiskRequest(name="large", size_gb=50)
    with pytest.raises(Refusal) as refused:
        await disks.create(world.ctx, "ada", sized, (), ADA)
    assert (refused.value.code, refused.value.field) == ("invalid_input", "size_gb")
    assert "100 GB" in refused.value.message
    assert await names(world) == []
    await create(world)
    with pytest.raises(Refusal):
        await disks.change(world.ctx, "ada", "work", DiskChange(size_gb=50), (), ADA)
    assert (await disks.get(world.ctx, "ada", "work")).size_gb is None
