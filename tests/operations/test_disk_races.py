"""First reservations with one new disk at the same moment: one makes the disk, and has it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import func, make_url, select

from gpudev_client.models import Reservation
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.operations import reservations
from gpudev_service.store.engine import Store
from gpudev_service.store.models import DiskRow
from tests.fixtures.world import START, World, make_world

ROUNDS = 20


async def test_one_new_disk_for_two_services(
    world: World, migrated_url: str, tmp_path: Path
) -> None:
    sides = [make_world(Store(migrated_url), tmp_path) for _ in range(2)]
    start = asyncio.Barrier(len(sides))

    async def submit(world: World, disk: str) -> Reservation | Refusal:
        await start.wait()
        try:
            return await world.reserve("ada", "t4", hours=1, disk=disk, create_disk=True)
        except Refusal as refusal:
            return refusal

    for number in range(ROUNDS):
        name = f"new-{number}"
        got = await asyncio.gather(*(submit(world, name) for world in sides))
        refusals = [answer for answer in got if isinstance(answer, Refusal)]
        assert [(r.code, r.field) for r in refusals] == [("disk_in_use", "disk")]
        async with world.ctx.store.reading() as session:
            found = await session.scalar(select(func.count()).where(DiskRow.name == name))
        assert found == 1
        for answer in got:
            if isinstance(answer, Reservation):
                await reservations.cancel(world.ctx, answer.id, Actor("ada"))
                await world.sweep()
    for side in sides:
        await side.ctx.store.close()


INSERT = (
    'INSERT INTO disks (id, name, "user", groups, created_at, version)'
    " VALUES ('outsider00000000', 'work', 'ada', '[]', %s, 1)"
)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"


def blocked(watcher: psycopg.Connection[tuple[int]]) -> None:
    """Returns when a transaction waits for another one to end."""
    for _ in range(100_000):
        if watcher.execute(WAITING).fetchone() != (0,):
            return
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_disk_that_somebody_makes_between_look_and_write(
    world: World, migrated_url: str
) -> None:
    """A writer that takes no lock of ours: the constraint decides, and the answer says so."""
    plain = make_url(migrated_url).set(drivername="postgresql")
    with (
        psycopg.connect(plain.render_as_string(hide_password=False)) as outsider,
        psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True) as watcher,
    ):
        outsider.execute(INSERT, [START])
        submitting = asyncio.create_task(world.reserve(disk="work", create_disk=True))
        await asyncio.to_thread(blocked, watcher)
        outsider.commit()
        with pytest.raises(Refusal) as refused:
            await submitting
    assert (refused.value.code, refused.value.field) == ("disk_busy", "disk")
