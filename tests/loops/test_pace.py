"""A loop that has left something undone says when it looks again; one that has not rests."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.loops import driving, expiry, starts
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World

SWEEP = timedelta(seconds=1)


async def test_driving_looks_again_while_anything_is_on_its_way(world: World) -> None:
    assert await driving.run(world.ctx) is None
    lease = await world.reserve()
    assert await driving.run(world.ctx) == START + SWEEP, "its server has to come up"
    await world.running(lease)
    assert await driving.run(world.ctx) is None
    await world.ctx.background.settle()


async def test_expiry_waits_for_what_may_end_next(world: World) -> None:
    times = world.ctx.settings.times
    assert await expiry.run(world.ctx) is None
    world.ctx.contact.answered(START)
    starting = await world.reserve("grace")
    assert await expiry.run(world.ctx) == START + timedelta(seconds=times.start_limit)
    lease = await world.running(starting)
    assert await expiry.run(world.ctx) == lease.expires_at

    async def lost(session: AsyncSession) -> None:
        (await session.get_one(ReservationRow, lease.id)).server_lost_at = START

    await world.ctx.store.run(lost)
    assert await expiry.run(world.ctx) == START + timedelta(seconds=times.crash_grace)


async def test_starts_wait_for_the_next_promise(world: World) -> None:
    assert await starts.run(world.ctx) is None
    await world.running(await world.reserve())
    waiting = await world.reserve("grace")
    assert await starts.run(world.ctx) == waiting.promised_start


async def test_a_start_that_is_due_is_looked_at_again(world: World) -> None:
    """It may have to wait: for a view of the fleet, or for a lease that should have ended."""
    await world.running(await world.reserve())
    waiting = await world.reserve("grace")

    async def late(session: AsyncSession) -> None:
        row = await session.get_one(ReservationRow, waiting.id)
        row.planned_start = START

    await world.ctx.store.run(late)
    assert await starts.run(world.ctx) == START + SWEEP
