"""Promises over time: what moves them stands in the history."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_client.models import Reservation, ReservationRequest
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import expiry, fleet, reconcile, starts
from gpudev_service.operations import capacity, extension, facts, reservations
from gpudev_service.settings import Policy, PolicyRule
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow
from tests.fixtures.statements import statements
from tests.fixtures.world import NODES, START, World, make_world
from tests.simulation.remembered import differences

ADMIN = Actor("root-admin", admin=True)
HOUR = timedelta(hours=1)


async def promises(world: World, key: str) -> list[str]:
    page = await reservations.history(world.ctx, key, 200, None)
    return [entry.reason for entry in page.items if entry.kind == "promise"]


async def test_a_start_that_was_missed_says_so_in_the_history(world: World) -> None:
    booked = await world.reserve("ada", starts_at=START + timedelta(hours=1))
    world.clock.pass_time(hours=3)  # the service was away
    await world.sweep()
    assert (await world.look(booked)).state is State.PREPARING
    said = await promises(world, booked.id)
    assert said == ["The start comes 2 h late: the start was missed while the service was away."]


async def test_a_start_in_time_says_nothing_of_being_late(world: World) -> None:
    first = await world.reserve("ada", hours=1)
    second = await world.reserve("grace", hours=1)
    assert first.expires_at is not None
    world.clock.pass_time(hours=1)
    await world.sweep()
    got = await world.look(second)
    assert got.starts_at == first.expires_at
    assert await promises(world, second.id) == []


async def test_a_short_lease_that_begins_late_is_still_a_lease(
    store: Store, tmp_path: Path
) -> None:
    """Its promised end was past when it began: no lease of the type could begin any more."""
    world = make_world(store, tmp_path, policy=Policy(min_hours=0.001))
    booked = await world.reserve(hours=20 / 3600, starts_at=START + timedelta(seconds=60))
    world.clock.pass_time(seconds=85)
    await world.sweep()
    got = await world.look(booked)
    assert got.state is State.PREPARING
    assert got.starts_at is not None
    assert got.expires_at == got.starts_at + timedelta(seconds=20)


async def test_a_start_that_is_a_little_late_keeps_its_promised_end(world: World) -> None:
    booked = await world.reserve(hours=1, starts_at=START + timedelta(hours=1))
    world.clock.pass_time(minutes=60, seconds=30)
    await world.sweep()
    got = await world.look(booked)
    assert got.starts_at == START + timedelta(minutes=60, seconds=30)
    assert got.expires_at == START + timedelta(hours=2)
    assert len(await promises(world, booked.id)) == 1


async def test_a_promise_on_a_node_that_is_gone_moves_at_the_next_look(
    world: World, store: Store, tmp_path: Path
) -> None:
    """The service comes back with another fleet: nobody may hear of it only when they are due."""
    await world.reserve("ada", "t4", gpus=4, hours=1)
    await world.reserve("grace", "t4", gpus=4, hours=2)
    waiting = await world.reserve("linus", "t4", gpus=4, hours=1)
    assert waiting.promised_start == START + timedelta(hours=1, seconds=15)
    smaller = make_world(store, tmp_path, nodes=tuple(n for n in NODES if n.name != "t4-1"))
    await fleet.run(smaller.ctx)
    got = await smaller.look(waiting)
    assert got.promised_start == START + timedelta(hours=2, seconds=15)
    assert await promises(smaller, waiting.id) == [
        "The promised start had to move: a node has left the fleet."
    ]


async def test_who_waits_without_a_promise_is_planned_at_the_next_comparison(
    world: World, store: Store
) -> None:
    await world.reserve("ada", hours=1)
    waiting = await world.reserve("grace", hours=1)
    async with store.transaction() as session:
        row = await session.get_one(ReservationRow, waiting.id)
        row.planned_start = row.planned_nodes = None
    assert (await world.look(waiting)).promised_start is None
    await reconcile.run(world.ctx)
    assert (await world.look(waiting)).promised_start == waiting.promised_start
    assert await promises(world, waiting.id) == ["A start is promised again."]


async def test_a_type_in_maintenance_offers_no_start(world: World) -> None:
    await capacity.set_maintenance(world.ctx, "t4", "firmware", Actor("root-admin"))
    (offer,) = await capacity.availability(world.ctx, 1, (), "t4")
    assert offer.maintenance == "firmware"
    assert {one.starts_at for one in offer.earliest} == {None}
    assert {one.reason for one in offer.earliest} == {"in maintenance: firmware"}
    await capacity.end_maintenance(world.ctx, "t4", Actor("root-admin"))
    (offer,) = await capacity.availability(world.ctx, 1, (), "t4")
    assert offer.earliest[0].starts_at is not None


async def test_a_booking_that_lost_its_place_gets_the_next_one_at_once(world: World) -> None:
    """It waited without a promise until its time had come."""
    await world.reserve("ada", "t4", gpus=4, hours=1)
    at = START + timedelta(hours=2)
    booked = await world.reserve("grace", "t4", gpus=8, hours=1, starts_at=at)
    behind = await world.reserve("linus", "t4", gpus=4, hours=3)
    await capacity.drain(world.ctx, "t4-2", "cooling", ADMIN)
    assert (await world.look(booked)).promised_start is None
    world.clock.pass_time(hours=1)
    await world.sweep()
    assert (await world.look(behind)).starts_at == START + timedelta(hours=1)
    await capacity.undrain(world.ctx, "t4-2", ADMIN)
    got = await world.look(booked)
    assert got.promised_start == START + timedelta(hours=4, seconds=15)
    assert got.first_promised_start == at
    told = await promises(world, booked.id)
    assert [reason.partition(":")[0] for reason in told] == [
        "The promised start had to be taken back",
        "A start is promised again.",
    ]
    # It is earlier as soon as it can be, and never before its time.
    await reservations.cancel(world.ctx, behind.id, Actor("linus"))
    await world.sweep()
    assert (await world.look(booked)).promised_start == at


async def test_a_booking_that_lost_its_time_keeps_nobody_from_being_planned_quickly(
    world: World,
) -> None:
    """Everything was read and planned anew for each event, for as long as it waited."""
    await world.reserve("ada", "t4", gpus=4, hours=1)
    at = START + timedelta(hours=2)
    booked = await world.reserve("grace", "t4", gpus=8, hours=1, starts_at=at)
    kept = world.ctx.store.memory.kept
    known = kept["t4"]

    async def told() -> tuple[int | None, int | None]:
        assert (await differences(world.ctx))[1] == [], "as if it were made anew from the rows"
        return known.demands[booked.id].booked_start_ms, known.demands[booked.id].not_before_ms

    assert await told() == (facts.to_ms(at), None)
    await capacity.drain(world.ctx, "t4-2", "cooling", ADMIN)
    assert (await world.look(booked)).promised_start is None
    assert await told() == (None, facts.to_ms(at))
    behind = await world.reserve("linus", "t4", gpus=4, hours=3)
    await capacity.undrain(world.ctx, "t4-2", ADMIN)
    assert (await world.look(behind)).state is State.PREPARING, "beside the first, on the other"
    assert (await world.look(booked)).promised_start == START + timedelta(hours=3, seconds=15)
    await reservations.cancel(world.ctx, behind.id, Actor("linus"))
    await world.sweep()
    assert (await world.look(booked)).promised_start == at
    assert await told() == (facts.to_ms(at), None)
    assert kept["t4"] is known


async def test_a_first_promise_is_no_improvement(world: World) -> None:
    await world.reserve("ada")
    async with world.ctx.events.listen(lambda _: True) as listener:
        await world.reserve("grace")
        assert (await listener.next()).message == "Submitted by grace."
        assert listener._queue.empty()


async def test_questions_are_put_to_the_plan_that_is_kept(world: World) -> None:
    """With thousands waiting it takes hundreds of milliseconds to make one anew."""
    lease = await world.reserve("ada", hours=1)
    await world.running(lease)
    await world.reserve("grace", hours=2)
    kept = world.ctx.store.memory.kept
    known = kept["t4-small"]
    asked = ReservationRequest(gpu_type="t4-small", gpus=1, hours=1)
    plan = await reservations.preview(world.ctx, Actor("linus"), asked, ())
    assert plan.starts_at == START + timedelta(hours=3, seconds=30)
    assert (await extension.offer(world.ctx, lease.id)).possible_hours == 0
    with pytest.raises(Refusal, match="No extension is possible now"):
        await extension.extend(world.ctx, lease.id, Actor("ada"), 1)
    assert kept["t4-small"] is known
    world.clock.pass_time(minutes=5)
    plan = await reservations.preview(world.ctx, Actor("linus"), asked, ())
    assert plan.starts_at == START + timedelta(hours=3, seconds=30)
    assert kept["t4-small"] is known
    world.clock.pass_time(minutes=2)
    plan = await reservations.preview(world.ctx, Actor("linus"), asked, ())
    assert plan.starts_at == START + timedelta(hours=3, seconds=30)
    assert kept["t4-small"] is not known, "rows may have been changed by hand"


async def test_who_can_have_no_place_keeps_nobody_from_being_planned_quickly(world: World) -> None:
    """Everything was read and planned anew for each event, for as long as somebody waited so."""
    await world.reserve("ada", "t4", gpus=4, hours=1)
    whole = await world.reserve("grace", "t4", gpus=8, hours=1)
    await capacity.drain(world.ctx, "t4-2", "cooling", ADMIN)
    assert (await world.look(whole)).promised_start is None
    kept = world.ctx.store.memory.kept
    known = kept["t4"]
    behind = await world.reserve("linus", "t4", gpus=4, hours=3)
    asked = ReservationRequest(gpu_type="t4", gpus=4, hours=1)
    plan = await reservations.preview(world.ctx, Actor("ken"), asked, ())
    assert plan.starts_at == START + timedelta(hours=4, seconds=30)
    await reservations.cancel(world.ctx, behind.id, Actor("linus"))
    assert kept["t4"] is known
    await capacity.undrain(world.ctx, "t4-2", ADMIN)
    assert (await world.look(whole)).promised_start == START + timedelta(hours=1, seconds=15)
    assert kept["t4"] is known
    await capacity.drain(world.ctx, "t4-1", "cooling", ADMIN)
    assert (await world.look(whole)).promised_start is None
    await reservations.cancel(world.ctx, whole.id, Actor("grace"))
    assert kept["t4"] is known


async def test_whose_promise_moves_is_told_and_their_rows_hold_it(world: World) -> None:
    lease = await world.reserve("ada", hours=3)
    await world.running(lease)
    first = await world.reserve("grace", hours=1)
    world.clock.pass_time(seconds=1)
    second = await world.reserve("linus", hours=1)
    async with world.ctx.events.listen(lambda owner: owner.user == "linus") as listener:
        await reservations.cancel(world.ctx, lease.id, Actor("ada"))
        await world.sweep()
        told = await listener.next()
    assert (told.kind, told.message) == ("promise", "The start is now earlier.")
    assert told.reservation.promised_start == START + timedelta(hours=1, seconds=16)
    assert (await world.look(first)).state is State.PREPARING
    got = await world.look(second)
    assert got.promised_start == START + timedelta(hours=1, seconds=16)
    assert got.first_promised_start == START + timedelta(hours=4, seconds=30)
    assert await promises(world, second.id) == []


async def test_however_many_come_together_their_promises_are_one_statement(world: World) -> None:
    """Whatever is written of a row later counts on from the version that it has then."""
    await world.reserve("ada", hours=3)

    async def come(number: int) -> tuple[list[Reservation], list[str]]:
        people = [f"of-{number}-{at}" for at in range(number)]
        with statements() as found:
            made = await asyncio.gather(*(world.reserve(name, hours=1) for name in people))
        return made, [line for line in found if line.startswith("UPDATE reservations")]

    _, few = await come(2)
    made, many = await come(12)
    assert len(many) == len(few)
    assert {one.state for one in made} == {State.QUEUED}
    assert len({one.promised_start for one in made}) == len(made)
    for one in made:
        assert one.first_promised_start == one.promised_start
        assert (await world.look(one)).promised_start == one.promised_start
    for one in made:
        cancelled = await reservations.cancel(world.ctx, one.id, Actor(one.user))
        assert cancelled.state is State.CANCELLED


async def test_a_clock_that_is_set_back_keeps_nobody_from_reserving(world: World) -> None:
    """What is kept of the plan knows no time before its own: it is made anew."""
    await world.reserve("ada", "t4", gpus=4, hours=1)
    world.clock.pass_time(minutes=2)
    await world.reserve("grace", "t4", gpus=4, hours=1)
    known = world.ctx.store.memory.kept["t4"]
    world.clock.pass_time(minutes=-1)
    asked = ReservationRequest(gpu_type="t4", gpus=4, hours=1)
    plan = await reservations.preview(world.ctx, Actor("linus"), asked, ())
    got = await world.reserve("linus", "t4", gpus=4, hours=1)
    assert got.promised_start == plan.starts_at == START + timedelta(hours=1, seconds=15)
    assert world.ctx.store.memory.kept["t4"] is not known


async def test_a_booking_that_lost_its_time_comes_after_a_higher_priority(
    store: Store, tmp_path: Path
) -> None:
    """It waits like everybody else then; as long as it had its time nothing was before it."""
    policy = Policy(groups={"urgent": PolicyRule(priority=5)})
    world = make_world(store, tmp_path, policy=policy)
    await world.reserve("ada", "t4", gpus=4, hours=4)
    await world.reserve("ken", "t4", gpus=4, hours=1)
    at = START + timedelta(hours=2)
    booked = await world.reserve("grace", "t4", gpus=4, hours=1, starts_at=at)
    urgent = await world.reserve("linus", "t4", gpus=4, hours=3, groups=("urgent",))
    known = world.ctx.store.memory.kept["t4"]

    async def promised() -> list[timedelta]:
        assert (await differences(world.ctx))[1] == [], "as if it were made anew from the rows"
        assert world.ctx.store.memory.kept["t4"] is known
        starts = [(await world.look(one)).promised_start for one in (booked, urgent)]
        return [start - START for start in starts if start is not None]

    assert await promised() == [timedelta(hours=2), timedelta(hours=3, seconds=15)]
    await capacity.drain(world.ctx, "t4-2", "cooling", ADMIN)
    assert await promised() == [
        timedelta(hours=4, seconds=15),
        timedelta(hours=5, seconds=30),
    ]
    await capacity.undrain(world.ctx, "t4-2", ADMIN)
    later = [timedelta(hours=4, seconds=15), timedelta(hours=1, seconds=15)]
    assert await promised() == later
    await reservations.cancel(world.ctx, urgent.id, Actor("linus"))
    assert (await world.look(booked)).promised_start == at
    # It is a booking again, and what comes then goes round it.
    urgent = await world.reserve("linus", "t4", gpus=4, hours=3, groups=("urgent",))
    assert await promised() == [timedelta(hours=2), timedelta(hours=3, seconds=15)]


async def test_an_end_that_was_moved_by_hand_moves_who_waits_for_it(world: World) -> None:
    """No extension does that: it would be refused."""
    lease = await world.running(await world.reserve("ada", hours=1))
    waiting = await world.reserve("grace", hours=1)
    known = world.ctx.store.memory.kept["t4-small"]
    async with world.ctx.store.transaction() as session:
        row = await session.get_one(ReservationRow, lease.id)
        row.expires_at = START + timedelta(hours=3)
    behind = await world.reserve("linus", hours=1)
    assert (await world.look(waiting)).promised_start == START + timedelta(hours=3, seconds=15)
    assert behind.promised_start == START + timedelta(hours=4, seconds=30)
    assert await promises(world, waiting.id) == [
        "The promised start had to move: GPUs are held longer than they should be, or were lost."
    ]
    assert world.ctx.store.memory.kept["t4-small"] is known


async def test_a_booking_that_was_cancelled_before_its_time_keeps_nobody_from_being_planned_quickly(
    world: World,
) -> None:
    await world.reserve("ada", "t4", gpus=4, hours=1)
    soon, later = START + timedelta(minutes=2), START + timedelta(minutes=4)
    cancelled = await world.reserve("grace", "t4", gpus=4, hours=1, starts_at=soon)
    booked = await world.reserve("grace", "t4", gpus=4, hours=1, starts_at=later + HOUR)
    kept = world.ctx.store.memory.kept
    known = kept["t4"]
    await reservations.cancel(world.ctx, cancelled.id, Actor("grace"))
    world.clock.pass_time(minutes=2)
    await world.reserve("linus", "t4", gpus=4, hours=0.5)
    assert kept["t4"] is known
    assert known.booking_ms == facts.to_ms(later + HOUR)
    at = START + timedelta(minutes=3)
    missed = await world.reserve("grace", "h100", gpus=8, hours=1, starts_at=at)
    other = kept["h100"]
    await reservations.cancel(world.ctx, missed.id, Actor("grace"))
    world.clock.pass_time(minutes=2)
    await world.reserve("ken", "h100", gpus=4, hours=0.5)
    assert kept["h100"] is other, "its time has passed since"
    await reservations.cancel(world.ctx, booked.id, Actor("grace"))
    await world.reserve("ken", "t4", gpus=4, hours=0.5)
    assert kept["t4"] is known
    assert (await differences(world.ctx))[1] == []


async def test_an_event_of_one_type_plans_no_other(world: World) -> None:
    await world.reserve("ada", "t4", gpus=4, hours=1)
    assert set(world.ctx.store.memory.kept) == {"t4"}
    await world.reserve("ada", "h100", gpus=8, hours=1)
    known = dict(world.ctx.store.memory.kept)
    assert set(known) == {"t4", "h100"}
    await capacity.drain(world.ctx, "small-1", "cooling", ADMIN)
    assert {name: world.ctx.store.memory.kept[name] for name in known} == known
    assert set(world.ctx.store.memory.kept) == {*known, "t4-small"}


async def test_a_booking_whose_time_has_come_and_that_cannot_begin_waits_like_everybody_else(
    store: Store, tmp_path: Path
) -> None:
    """The lease before it has ended, and its server has not."""
    world = make_world(store, tmp_path, policy=Policy(min_hours=0.01))
    ends = await world.running(await world.reserve("ada", hours=1 / 30))
    assert ends.expires_at is not None
    at = ends.expires_at + world.ctx.settings.times.turnover_span
    booked = await world.reserve("grace", hours=1, starts_at=at)
    assert booked.promised_start == at
    world.clock.pass_time(minutes=2)
    await expiry.run(world.ctx)
    world.clock.pass_time(seconds=15)
    await starts.run(world.ctx)
    moved = (await world.look(booked)).promised_start
    assert moved is not None
    assert moved > at
    assert (await differences(world.ctx))[1] == [], "as if it were made anew from the rows"
    behind = await world.reserve("linus", hours=1)
    assert behind.promised_start == moved + HOUR + world.ctx.settings.times.turnover_span


async def test_what_was_changed_and_changed_back_keeps_nobody_from_being_planned_quickly(
    world: World,
) -> None:
    lease = await world.running(await world.reserve("ada", hours=1))
    waiting = await world.reserve("grace", hours=1)
    known = world.ctx.store.memory.kept["t4-small"]
    for by in (1, -1):
        async with world.ctx.store.transaction() as session:
            row = await session.get_one(ReservationRow, lease.id)
            assert row.expires_at is not None
            row.expires_at += by * HOUR
            (await session.get_one(ReservationRow, waiting.id)).priority += by
    assert world.ctx.store.memory.stale["t4-small"] == {lease.id, waiting.id}
    behind = await world.reserve("linus", hours=1)
    assert behind.promised_start == START + 2 * HOUR + timedelta(seconds=30)
    assert (await world.look(waiting)).promised_start == waiting.promised_start
    assert world.ctx.store.memory.kept["t4-small"] is known
    assert (await differences(world.ctx))[1] == []
