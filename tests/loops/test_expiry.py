"""When a lease is over, and when the next one may be."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import Reservation
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.loops import expiry
from gpudev_service.operations import extension, reservations
from gpudev_service.settings import Times
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World

TIMES = Times(start_limit=300, crash_grace=120)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("state", "lost", "contact", "now", "expected"),
    [
        # The end comes first, whatever else there would be to say.
        ("active", None, 0, 3599, None),
        ("active", None, 0, 3600, (State.EXPIRED, "as agreed")),
        ("active", None, None, 3601, (State.EXPIRED, "as agreed")),
        ("active", 0, 0, 3600, (State.EXPIRED, "as agreed")),
        ("preparing", None, 0, 3600, (State.FAILED, "before the lease ended")),
        # A start has its time from the later of its own beginning and the Hub's first answer.
        ("preparing", None, 0, 299, None),
        ("preparing", None, 0, 300, (State.FAILED, "did not come up within 5 min")),
        ("preparing", None, 0, 301, (State.FAILED, "did not come up")),
        ("preparing", None, -100, 299, None),
        ("preparing", None, -100, 300, (State.FAILED, "did not come up")),
        ("preparing", None, 100, 399, None),
        ("preparing", None, 100, 400, (State.FAILED, "did not come up")),
        ("preparing", None, None, 3000, None),
        ("active", None, 0, 300, None),
        # A server that is gone may be started again for a while, whatever the Hub does.
        ("active", 1000, 0, 1119, None),
        ("active", 1000, None, 1120, (State.FAILED, "not started again within 2 min")),
        ("active", 1000, 0, 1121, (State.FAILED, "not started again")),
    ],
)
def test_verdicts(
    state: str,
    lost: float | None,
    contact: float | None,
    now: float,
    expected: tuple[State, str] | None,
) -> None:
    row = ReservationRow(
        state=state,
        starts_at=START,
        expires_at=after(3600),
        server_lost_at=None if lost is None else after(lost),
    )
    since = None if contact is None else after(contact)
    found = expiry.verdict(row, TIMES, after(now), since)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] is expected[0]
        assert expected[1] in found[1]


async def lost(world: World, got: Reservation, at: datetime) -> None:
    async def work(session: AsyncSession) -> None:
        (await session.get_one(ReservationRow, got.id)).server_lost_at = at

    await world.ctx.store.run(work)


async def test_the_next_look_is_never_at_what_has_just_been_ended(world: World) -> None:
    """A moment that has passed would have the loop run for ever."""
    times = world.ctx.settings.times
    stays = await world.running(await world.reserve("ada", "t4", hours=5))
    gone = await world.running(await world.reserve("grace", "t4", gpus=1, hours=9))
    await lost(world, gone, START)
    world.clock.pass_time(seconds=times.crash_grace)
    assert await expiry.run(world.ctx) == stays.expires_at
    assert await world.states(gone, stays) == [State.STOPPING, State.ACTIVE]
    assert await expiry.run(world.ctx) == stays.expires_at
    world.clock.pass_time(hours=5)
    assert await expiry.run(world.ctx) is None
    await world.ctx.background.settle()


async def test_what_is_overdue_is_not_looked_for_in_the_past(world: World) -> None:
    """After a pause of the service, what is found then has been due for long."""
    stays = await world.running(await world.reserve("ada", "t4", hours=5))
    gone = await world.running(await world.reserve("grace", "t4", gpus=1, hours=9))
    await lost(world, gone, START)
    world.clock.pass_time(hours=2)
    assert await expiry.run(world.ctx) == stays.expires_at
    late = await world.reserve("linus", "h100", hours=4)
    assert await expiry.run(world.ctx) == stays.expires_at, "without the Hub no start is late"
    world.ctx.contact.answered(world.clock.now())
    world.clock.pass_time(minutes=1)
    limit = timedelta(seconds=world.ctx.settings.times.start_limit)
    assert late.starts_at is not None
    assert await expiry.run(world.ctx) == late.starts_at + limit
    world.ctx.contact.lost()
    world.ctx.contact.answered(world.clock.now())
    assert await expiry.run(world.ctx) == world.clock.now() + limit


async def test_what_has_been_due_for_long_ends_too(world: World) -> None:
    """The service was away: it is not only at the very moment that something is due."""
    expired = await world.running(await world.reserve("ada", "t4", gpus=1, hours=1))
    crashed = await world.running(await world.reserve("grace", "t4", gpus=1, hours=9))
    await lost(world, crashed, START)
    slow = await world.reserve("linus", "t4", gpus=1, hours=9)
    waits = await world.reserve("ken", hours=9)
    stays = await world.running(await world.reserve("edsger", "t4", gpus=1, hours=9))
    world.ctx.contact.answered(START)
    world.clock.pass_time(hours=2)
    started = await world.reserve("barbara", "h100", gpus=1, hours=9)
    await expiry.run(world.ctx)
    assert await world.states(expired, crashed, slow, waits) == [State.STOPPING] * 4
    assert await world.states(stays, started) == [State.ACTIVE, State.PREPARING]


async def test_of_leases_in_both_states_the_first_end_is_the_next(world: World) -> None:
    starting = await world.reserve("ada", "t4", hours=2)
    running = await world.running(await world.reserve("grace", "t4", gpus=1, hours=3))
    assert await expiry.run(world.ctx) == starting.expires_at
    await reservations.cancel(world.ctx, starting.id, Actor("ada"))
    assert await expiry.run(world.ctx) == running.expires_at


async def test_who_was_extended_between_the_look_and_its_turn_is_not_ended(world: World) -> None:
    extended = await world.running(await world.reserve("ada", "t4", gpus=1, hours=1))
    due = await world.running(await world.reserve("grace", "t4", gpus=1, hours=1))
    over = await world.running(await world.reserve("linus", "t4", gpus=1, hours=1))
    await extension.extend(world.ctx, extended.id, Actor("ada"), 1)
    await reservations.cancel(world.ctx, over.id, Actor("linus"))
    world.clock.pass_time(hours=1)
    keys = [extended.id, due.id, over.id]
    ended = await world.ctx.store.run(lambda session: expiry._end(world.ctx, session, keys))
    assert [entry.reservation_id for entry in ended] == [due.id]
    assert await world.states(extended, due) == [State.ACTIVE, State.STOPPING]
    assert (await world.look(over)).reason == "Cancelled by its owner."
