"""A clock that may be wrong removes nothing for good; leases end all the same."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import DiskRequest, LoopHealth
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.loops import retention
from gpudev_service.loops.runner import Runner, run_once
from gpudev_service.operations import disks, doubts, snapshots, status
from gpudev_service.other_clocks import OtherClocks
from gpudev_service.settings import Policy, PolicyRule
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreBroken
from gpudev_service.store.models import DiskRow, IdempotencyRow, SnapshotRow
from tests.fixtures.world import World, make_world

ADA = Actor("ada")


async def deleted_disk(world: World) -> str:
    await disks.create(world.ctx, "ada", DiskRequest(name="work"), (), ADA)
    async with world.ctx.store.reading() as session:
        key = (await disks.require(session, "ada", "work")).id
    await disks.delete(world.ctx, "ada", "work", (), ADA)
    return key


async def is_there(world: World, key: str) -> bool:
    async with world.ctx.store.reading() as session:
        return await session.get(DiskRow, key) is not None


async def begin(world: World) -> LoopHealth:
    """A start of the service; how the clock looks then."""
    runner = Runner(world.ctx)
    await doubts.look_back(world.ctx)
    runner.start()
    await runner.close()
    [clock] = [loop for loop in runner.health() if loop.name == "clock"]
    return clock


async def test_after_a_long_absence_nothing_goes_for_an_hour(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = await deleted_disk(world)
    lease = await world.running(await world.reserve(hours=1))
    await run_once(world.ctx, "expiry")
    world.clock.pass_time(days=31)
    with caplog.at_level(logging.WARNING):
        clock = await begin(world)
    assert clock.ok, "a service may be away"
    assert clock.message is not None
    assert "nothing had been written for 31 days before" in clock.message
    assert "Until 13:00 UTC nothing is removed for good" in clock.message
    assert clock.message in caplog.text
    world.clock.pass_time(minutes=2)
    due = await retention.run(world.ctx)
    assert await is_there(world, key)
    assert due == world.clock.now() + timedelta(minutes=58)
    await world.sweep()
    assert await world.states(lease) == [State.EXPIRED]

    # A service that is killed meanwhile begins again with the same clock.
    await run_once(world.ctx, "expiry")
    world.ctx.other_clocks = OtherClocks()
    assert (await begin(world)).message == clock.message
    world.clock.pass_time(minutes=2)
    await retention.run(world.ctx)
    assert await is_there(world, key)

    world.clock.pass_time(hours=1)
    assert await retention.run(world.ctx) is None
    assert not await is_there(world, key)
    assert (await begin(world)).message is None


async def test_a_clock_that_was_ahead_and_is_set_has_removed_nothing(world: World) -> None:
    key = await deleted_disk(world)
    await run_once(world.ctx, "expiry")
    world.clock.pass_time(days=31)
    await begin(world)
    await retention.run(world.ctx)
    world.clock.pass_time(days=-31)
    await begin(world)
    world.clock.pass_time(minutes=2)
    assert await retention.run(world.ctx) is None, "nothing is in doubt any more"
    assert await is_there(world, key)


async def test_a_clock_that_was_set_since_the_start_removes_nothing(world: World) -> None:
    key = await deleted_disk(world)
    await begin(world)
    world.clock.pass_time(days=31)
    world.clock.moved = timedelta(minutes=-2)
    assert await retention.run(world.ctx) is None
    assert await is_there(world, key)
    [clock] = [loop for loop in Runner(world.ctx).health() if loop.name == "clock"]
    assert not clock.ok
    assert "nothing is removed for good until the service starts again" in str(clock.message)
    world.clock.moved = timedelta(seconds=50)
    await retention.run(world.ctx)
    assert not await is_there(world, key)


async def test_an_absence_that_cannot_be_written_down_counts_all_the_same(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk keeps nobody from starting who could before."""

    class Full:
        async def check(self, session: AsyncSession) -> None:
            raise StoreBroken("its disk is full")

    key = await deleted_disk(world)
    await run_once(world.ctx, "expiry")
    world.clock.pass_time(days=31)
    world.ctx.store.fence = Full()
    await doubts.look_back(world.ctx)
    assert "could not be written down: its disk is full" in caplog.text
    world.ctx.store.fence = None
    assert await retention.run(world.ctx) == world.clock.now() + doubts.PAUSE
    assert await is_there(world, key)


async def test_loops_of_a_clock_that_was_ahead_are_forgotten_with_the_first_start(
    world: World,
) -> None:
    """A loop that rests for long has not run again when the service is killed."""
    world.clock.pass_time(days=31)
    await run_once(world.ctx, "expiry")
    world.clock.pass_time(days=-31)
    assert await status.clock_behind(world.ctx) == timedelta(days=31)
    await doubts.look_back(world.ctx)
    assert await status.clock_behind(world.ctx) == timedelta(0)


async def test_what_no_date_decides_about_goes_on(store: Store, tmp_path: Path) -> None:
    """A list of files is made up for; snapshots and the answers to keys are kept."""
    rule = PolicyRule(max_hours=24, snapshots_kept=1, disk_retention_days=1)
    world = make_world(store, tmp_path, policy=Policy(default=rule))
    listed: list[str] = []

    class Lists(DirectoryDisks):
        async def index(self, disk_id: str, snapshot_id: str) -> None:
            listed.append(snapshot_id)

    world.ctx.disks = Lists(tmp_path / "disks")
    await disks.create(world.ctx, "ada", DiskRequest(name="work"), (), ADA)
    old = await snapshots.take(world.ctx, "ada", "work", None, ADA)
    await world.ctx.background.settle()
    async with world.ctx.store.transaction() as session:
        session.add(
            IdempotencyRow(caller="ada", key="old", request_hash="x", created_at=world.clock.now())
        )
    await run_once(world.ctx, "expiry")
    world.clock.pass_time(days=31)
    new = await snapshots.take(world.ctx, "ada", "work", None, ADA)
    await world.ctx.background.settle()
    async with world.ctx.store.transaction() as session:
        await session.execute(update(SnapshotRow).values(files=None))

    async def kept() -> tuple[set[str], bool]:
        async with world.ctx.store.reading() as session:
            there = set(await session.scalars(select(SnapshotRow.id)))
            return there, await session.get(IdempotencyRow, ("ada", "old")) is not None

    await doubts.look_back(world.ctx)
    await retention.run(world.ctx)
    await world.ctx.background.settle()
    assert await kept() == ({old.id, new.id}, True)
    assert listed == [new.id]
    world.clock.pass_time(hours=1)
    await retention.run(world.ctx)
    assert await kept() == ({new.id}, False)


async def test_a_short_absence_is_nothing_to_tell(world: World) -> None:
    await run_once(world.ctx, "expiry")
    world.clock.pass_time(hours=5)
    assert (await begin(world)).message is None


async def test_while_another_clock_says_otherwise_nothing_goes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = await deleted_disk(world)
    lease = await world.running(await world.reserve(hours=1))
    clocks = world.ctx.other_clocks
    clocks.heard("the database's", world.clock.now(), clocks._count())
    world.clock.pass_time(days=31)
    with caplog.at_level(logging.ERROR):
        clock = await begin(world)
    assert not clock.ok
    assert clock.message is not None
    assert "clock is 30 days 23 h ahead of the database's" in clock.message
    world.clock.pass_time(hours=2)
    assert await retention.run(world.ctx) is None
    assert await is_there(world, key)
    await world.sweep()
    assert await world.states(lease) == [State.EXPIRED]
    clocks.heard("the database's", world.clock.now(), clocks._count())
    assert await retention.run(world.ctx) is None
    assert not await is_there(world, key)


async def test_nothing_goes_before_others_were_heard(world: World) -> None:
    key = await deleted_disk(world)
    world.clock.pass_time(days=31)
    await begin(world)
    begun = world.clock.now()
    assert await retention.run(world.ctx) == begun + doubts.FIRST
    assert await is_there(world, key)
    world.clock.pass_time(minutes=1)
    assert await retention.run(world.ctx) is None
    assert not await is_there(world, key)
