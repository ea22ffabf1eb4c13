"""Disks near their limit: who is told, when, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpudev_client.models import HistoryEntry, Reservation
from gpudev_service.actor import Actor
from gpudev_service.disks.base import DiskFailure, Usage
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.errors import Refusal
from gpudev_service.loops import sizes
from gpudev_service.operations import disks, fullness, reservations
from tests.fixtures.world import NODES, TYPES, World, make_world

ADA = Actor("ada")
LIMIT = 1_000_000


@pytest.fixture(autouse=True)
def _small_disks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that files of a test can reach."""
    monkeypatch.setattr(fullness, "GB", LIMIT)
    world.ctx.settings = world.ctx.settings.model_copy(update={"disk_limit_gb": 1})


async def fill(world: World, percent: int, name: str = "work") -> None:
    """Makes the disk so full, as the file system counts it."""
    async with world.ctx.store.reading() as session:
        home = world.ctx.disks.path((await disks.require(session, "ada", name)).id)
    (home / "data").write_bytes(b"x" * (LIMIT * percent // 100))


async def look(world: World) -> None:
    await sizes.run(world.ctx)
    await world.ctx.background.settle()


async def told(world: World, lease: Reservation) -> list[HistoryEntry]:
    page = await reservations.history(world.ctx, lease.id, 200, None)
    return [entry for entry in page.items if "percent" in entry.data]


async def over(world: World) -> None:
    """A disk of ada's that is over its limit, and free."""
    lease = await world.running(await world.reserve(disk="work", create_disk=True))
    await disks.ensure(world.ctx, await key_of(world))
    await fill(world, 120)
    await reservations.cancel(world.ctx, lease.id, ADA)
    await world.sweep()


async def key_of(world: World, name: str = "work") -> str:
    async with world.ctx.store.reading() as session:
        return (await disks.require(session, "ada", name)).id


async def test_a_lease_is_told_at_each_level_once(world: World) -> None:
    lease = await world.running(await world.reserve(disk="work", create_disk=True, hours=5))
    await disks.ensure(world.ctx, await key_of(world))
    expected: list[tuple[str, int]] = []
    for percent, news in (
        (50, None), (95, ("warning", 90)), (97, None), (120, ("warning", 100)), (130, None),
        (20, ("note", 0)), (120, ("warning", 100)), (95, ("note", 90)),
    ):  # fmt: skip
        await fill(world, percent)
        world.clock.pass_time(minutes=10)
        await look(world)
        expected += [news] if news else []
        assert [(e.kind, e.data["percent"]) for e in await told(world, lease)] == expected
    first = (await told(world, lease))[0]
    assert "'work' is nearly full" in first.reason
    assert "of 1 MB" in first.reason
    assert first.data["limit_bytes"] == LIMIT


async def test_a_disk_is_measured_at_the_start_and_then_now_and_then(world: World) -> None:
    await over(world)
    lease = await world.running(await world.reserve(gpu_type="cpu-x86", disk="work", hours=5))
    world.clock.pass_time(seconds=1)
    await look(world)
    # A lease that begins on a full disk is told at once.
    assert [entry.data["percent"] for entry in await told(world, lease)] == [100]
    await fill(world, 10)
    world.clock.pass_time(minutes=9)
    await look(world)
    assert len(await told(world, lease)) == 1
    world.clock.pass_time(minutes=1)
    await look(world)
    assert [entry.data["percent"] for entry in await told(world, lease)] == [100, 0]


async def test_a_disk_over_its_limit_gets_no_gpus_until_it_is_cleared_up(world: World) -> None:
    await over(world)
    assert (await disks.get(world.ctx, "ada", "work")).over_limit
    with pytest.raises(Refusal, match="Reserve cpu-x86 with it and delete files") as refused:
        await world.reserve(disk="work")
    assert (refused.value.code, refused.value.field) == ("quota", "disk")
    assert refused.value.accepted == {"max_bytes": LIMIT, "gpu_types": ["cpu-x86"]}
    lease = await world.running(await world.reserve(gpu_type="cpu-x86", disk="work"))
    await fill(world, 50)
    await reservations.cancel(world.ctx, lease.id, ADA)
    await world.sweep()
    assert not (await disks.get(world.ctx, "ada", "work")).over_limit
    await world.reserve(disk="work")


async def test_a_raised_limit_holds_for_disks_that_are_there(world: World) -> None:
    await over(world)
    world.ctx.settings = world.ctx.settings.model_copy(update={"disk_limit_gb": 2})
    disk = await disks.get(world.ctx, "ada", "work")
    assert (disk.over_limit, disk.limit_bytes) == (False, 2 * LIMIT)
    await world.reserve(disk="work")


async def test_without_a_limit_nothing_is_measured(world: World) -> None:
    world.ctx.settings = world.ctx.settings.model_copy(update={"disk_limit_gb": None})
    lease = await world.running(await world.reserve(disk="work", create_disk=True))
    await disks.ensure(world.ctx, await key_of(world))
    await fill(world, 200)
    world.clock.pass_time(minutes=10)
    await look(world)
    assert await told(world, lease) == []
    disk = await disks.get(world.ctx, "ada", "work")
    assert (disk.size_bytes, disk.over_limit, disk.limit_bytes) == (None, False, None)


async def test_nobody_is_locked_out_of_a_disk(world: World, tmp_path: Path) -> None:
    """Where every type has GPUs, a lease is the only way to delete a file."""
    await over(world)
    types = {name: spec for name, spec in TYPES.items() if spec.gpus_per_node}
    nodes = tuple(node for node in NODES if node.gpu_type in types)
    gpus_only = make_world(world.ctx.store, tmp_path, types=types, nodes=nodes)
    gpus_only.ctx.settings = gpus_only.ctx.settings.model_copy(update={"disk_limit_gb": 1})
    assert (await gpus_only.reserve(disk="work")).disk == "work"


class Unreadable(DirectoryDisks):
    """Some disks cannot be measured."""

    bad: str = ""

    async def usage(self, disk_id: str) -> Usage:
        if disk_id == self.bad:
            raise DiskFailure("the file system of the disks refused the work")
        return await super().usage(disk_id)


async def test_a_disk_that_cannot_be_measured_keeps_no_other(world: World, tmp_path: Path) -> None:
    world.ctx.disks = backend = Unreadable(tmp_path / "disks")
    leases = {}
    for name in ("bad", "good"):
        got = await world.reserve(gpu_type="t4", disk=name, create_disk=True, hours=2)
        leases[name] = await world.running(got)
        await disks.ensure(world.ctx, await key_of(world, name))
        await fill(world, 95, name)
    backend.bad = await key_of(world, "bad")
    world.clock.pass_time(minutes=10)
    await look(world)
    assert await told(world, leases["bad"]) == []
    assert len(await told(world, leases["good"])) == 1


async def test_storage_that_keeps_to_sizes_itself_refuses_nobody_gpus(
    world: World, tmp_path: Path
) -> None:
    class Sized(DirectoryDisks):
        takes_sizes = True

    await over(world)
    await look(world)
    async with world.ctx.store.reading() as session:
        disk = await disks.require(session, "ada", "work")
    with pytest.raises(Refusal):
        fullness.refuse_over(world.ctx, disk, "h100")
    world.ctx.disks = Sized(tmp_path / "disks")
    fullness.refuse_over(world.ctx, disk, "h100")


async def test_a_size_without_a_limit_says_nothing_to_a_lease(world: World) -> None:
    await world.running(await world.reserve(disk="work", create_disk=True))
    await disks.ensure(world.ctx, await key_of(world))
    await fill(world, 120)
    await look(world)
    world.ctx.settings = world.ctx.settings.model_copy(update={"disk_limit_gb": None})
    async with world.ctx.store.reading() as session:
        disk = await disks.require(session, "ada", "work")
        assert disk.size_bytes
        assert await fullness.measured(world.ctx, session, disk, world.clock.now()) == []
