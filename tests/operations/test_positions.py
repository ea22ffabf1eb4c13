"""Places in the queue are the same by the plan in memory and by the rows."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import WAITING
from gpudev_service.operations import planning, positions
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import World


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
