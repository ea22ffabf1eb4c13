"""Places in the queue are the same by the plan in memory and by the rows."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import WAITING
from gpudev_service.actor import Actor
from gpudev_service.operations import capacity, planning, positions, reservations
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import World

ADMIN = Actor("root-admin", admin=True)


async def queue(world: World, seed: int) -> list[str]:
    """Twenty who wait for two GPUs, some at the same moment, some for the whole node."""
    rng = random.Random(seed)
    made = []
    for number in range(20):
        got = await world.reserve(
            f"user-{number}", "t4", rng.choice((1, 2)), gpus=rng.choice((1, 4))
        )
        made.append(got.id)
        if rng.random() < 0.5:
            world.clock.pass_time(seconds=1)
    return made


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_both_ways_of_counting_agree(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    await queue(world, seed)
    async with world.ctx.store.reading() as session:
        row = ReservationRow
        waiting = list(await session.scalars(select(row).where(row.state.in_(WAITING))))
        by_rows = await positions.positions(world.ctx, session, waiting)
        for one in waiting:  # by another question than that about all of them
            assert await positions.positions(world.ctx, session, [one]) == {one.id: by_rows[one.id]}
        monkeypatch.setattr(positions, "_MANY", 1)
        assert await positions._planned(world.ctx, session, "t4") is not None
        assert await positions.positions(world.ctx, session, waiting) == by_rows
        for one in waiting[:3]:
            assert await positions.positions(world.ctx, session, [one]) == {one.id: by_rows[one.id]}
    assert sorted(by_rows.values()) == list(range(1, len(waiting) + 1))


async def test_an_answer_has_the_place_that_is_read_later(world: World) -> None:
    await queue(world, 4)
    last = await world.reserve("last", "t4", 1, gpus=4)
    assert last.position == (await world.look(last)).position


async def test_what_a_transaction_has_changed_since_its_plan_counts(world: World) -> None:
    await queue(world, 5)

    async def work(session: AsyncSession) -> tuple[int, int]:
        now = world.clock.now()
        await planning.replan(world.ctx, session, now, ["t4"])
        row = ReservationRow
        waiting = list(await session.scalars(select(row).where(row.state.in_(WAITING))))
        first = min(waiting, key=lambda one: one.planned_start or now)
        assert await positions._planned(world.ctx, session, "t4") is not None
        first.planned_start = now + timedelta(days=30)
        return (await positions.positions(world.ctx, session, [first]))[first.id], len(waiting)

    place, waiting = await world.ctx.store.run(work)
    assert place == waiting, "the last"


async def test_each_type_is_counted_by_itself(world: World) -> None:
    """Whatever they are called; and nobody is counted who waits no more or has no promise."""
    made = []
    for gpu_type, gpus in (("h100", 8), ("t4", 8), ("t4-small", 1)):
        world.clock.pass_time(seconds=1)
        await world.running(await world.reserve("ada", gpu_type, gpus=gpus, hours=1))
        gone = await world.reserve("linus", gpu_type, gpus=gpus, hours=1)
        for _ in range(2):
            world.clock.pass_time(seconds=1)
            made.append(await world.reserve("grace", gpu_type, gpus=gpus, hours=1))
        await reservations.cancel(world.ctx, gone.id, Actor("linus"))
    assert [(await world.look(one)).position for one in made] == [1, 2] * 3
    keys = [one.id for one in made]
    async with world.ctx.store.reading() as session:
        row = ReservationRow
        rows = list(await session.scalars(select(row).where(row.id.in_(keys))))
        found = await positions.positions(world.ctx, session, rows)
    assert [found[key] for key in keys] == [1, 2] * 3
    await capacity.drain(world.ctx, "small-1", "cooling", ADMIN)
    assert [(await world.look(one)).position for one in made] == [1, 2] * 2 + [None] * 2
