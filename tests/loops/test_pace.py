"""A loop that has left something undone says when it looks again; one that has not rests."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import State
from gpudev_service.fleet.base import View
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


async def test_nothing_starts_while_the_fleet_cannot_be_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due is looked at again; what comes sooner than that is not missed either."""
    lease = await world.running(await world.reserve())
    first = await world.reserve("grace")
    other = await world.reserve("grace", "t4", gpus=4)
    await world.running(other)
    await world.running(await world.reserve("ada", "t4", gpus=4))
    second = await world.reserve("linus", "t4", gpus=4)

    async def at(session: AsyncSession) -> None:
        (await session.get_one(ReservationRow, first.id)).planned_start = START
        soon = START + SWEEP / 2
        (await session.get_one(ReservationRow, second.id)).planned_start = soon

    await world.ctx.store.run(at)
    monkeypatch.setattr(world.ctx.fleet, "view", lambda: View(fresh=False, trouble="away"))
    assert await starts.run(world.ctx) == START + SWEEP / 2
    assert await world.states(lease, first) == [State.ACTIVE, State.QUEUED]
    assert (await world.look(first)).promised_start == START
