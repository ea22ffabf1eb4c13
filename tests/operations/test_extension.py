"""How far a lease can be extended, and what is told of the reason."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.operations import extension, reservations
from gpudev_service.settings import Policy, PolicyRule
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World, make_world

ADA = Actor("ada")
ALL_TOLD = "A lease may be extended by 24 hours in all."


async def test_with_nobody_waiting_policy_is_what_limits(world: World) -> None:
    got = await world.running(await world.reserve(hours=1))
    offer = await extension.offer(world.ctx, got.id)
    assert (offer.possible_hours, offer.limited_by) == (24, ALL_TOLD)
    assert offer.extendable_until == START + timedelta(hours=25)
    for hours in (1, 2.5):
        got = await extension.extend(world.ctx, got.id, ADA, hours)
    assert got.extended_hours == 3.5
    assert got.expires_at == START + timedelta(hours=4.5)
    offer = await extension.offer(world.ctx, got.id)
    assert offer.possible_hours == 20.5
    longer = await extension.extend(world.ctx, got.id, ADA, 20.5)
    assert longer.expires_at == offer.extendable_until
    with pytest.raises(Refusal) as refused:
        await extension.extend(world.ctx, got.id, ADA, 1)
    assert refused.value.message == f"No extension is possible now. {ALL_TOLD}"
    assert refused.value.accepted == {"max": 0}


async def test_the_whole_length_of_a_lease_is_limited_too(store: Store, tmp_path: Path) -> None:
    rule = PolicyRule(max_hours=24, max_extension_hours=4, max_total_hours=5)
    world = make_world(store, tmp_path, policy=Policy(default=rule))
    long = await world.running(await world.reserve("ada", "t4", gpus=1, hours=3))
    short = await world.running(await world.reserve("ada", "t4", gpus=1, hours=1))
    told = "A lease may last 5 hours in all."
    offer = await extension.offer(world.ctx, long.id)
    assert (offer.possible_hours, offer.limited_by) == (2, told)
    offer = await extension.offer(world.ctx, short.id)
    # Both limits leave as much: the one that is about extensions is named.
    by_extension = "A lease may be extended by 4 hours in all."
    assert (offer.possible_hours, offer.limited_by) == (4, by_extension)
    with pytest.raises(Refusal) as refused:
        await extension.extend(world.ctx, long.id, ADA, 2.5)
    assert refused.value.message == f"2 hours would be possible now. {told}"


async def test_a_lease_that_was_longer_than_is_allowed_now_cannot_be_extended(
    store: Store, tmp_path: Path
) -> None:
    before = make_world(store, tmp_path)
    got = await before.running(await before.reserve(hours=6))
    rule = PolicyRule(max_hours=24, max_extension_hours=4, max_total_hours=5)
    world = make_world(store, tmp_path, policy=Policy(default=rule))
    offer = await extension.offer(world.ctx, got.id)
    assert (offer.possible_hours, offer.extendable_until) == (0, got.expires_at)
    assert offer.limited_by == "A lease may last 5 hours in all."


async def test_who_waits_is_told_by_what_and_when_and_by_name_to_nobody_else(
    world: World,
) -> None:
    got = await world.running(await world.reserve("ada", hours=1))
    at = START + timedelta(hours=3)
    booked = await world.reserve("grace", hours=1, starts_at=at, name="secret plans")
    turnover = world.ctx.settings.times.turnover_span
    offer = await extension.offer(world.ctx, got.id)
    assert offer.extendable_until == at - turnover
    assert offer.possible_hours == 1.99
    said = offer.limited_by or ""
    assert said.startswith("Somebody who waits has been promised 1 x t4-small from ")
    assert "secret" not in said
    # Policy would let it be longer, and what is asked for is more than either.
    with pytest.raises(Refusal) as refused:
        await extension.extend(world.ctx, got.id, ADA, 30)
    assert refused.value.message == f"1.99 hours would be possible now. {said}"
    await reservations.cancel(world.ctx, booked.id, Actor("grace"))
    await world.reserve("ada", hours=1, starts_at=at, name="mine")
    offer = await extension.offer(world.ctx, got.id)
    assert (offer.limited_by or "").startswith("Your own “mine” has been promised 1 x t4-small")
    # Whatever the two are called.
    theirs = await world.running(await world.reserve("grace", "h100", gpus=8, hours=1))
    await world.reserve("ada", "h100", gpus=8, hours=1, starts_at=at, name="secret plans")
    offer = await extension.offer(world.ctx, theirs.id)
    assert (offer.limited_by or "").startswith("Somebody who waits has been promised 8 x h100")


async def test_whoever_is_there_no_more_is_not_told_of(world: World) -> None:
    """A promise may have been taken back since the plan was asked."""
    said = "The GPUs are promised to others after that."
    assert extension._in_the_way(None, "ada") == said
    nobody = ReservationRow(user="grace", gpus=1, gpu_type="t4", nodes=1, name="x")
    assert extension._in_the_way(nobody, "ada") == said


@pytest.mark.parametrize(("seconds", "possible"), [(59, 0), (60, 0.01), (72, 0.02), (3600, 1)])
async def test_what_is_not_worth_it_is_not_offered(
    world: World, seconds: int, possible: float
) -> None:
    """From a minute on it is, in hundredths of an hour that are granted in full."""
    got = await world.running(await world.reserve("ada", hours=1))
    turnover = world.ctx.settings.times.turnover_span
    at = START + timedelta(hours=1, seconds=seconds) + turnover
    await world.reserve("grace", hours=1, starts_at=at)
    offer = await extension.offer(world.ctx, got.id)
    assert offer.possible_hours == possible
    granted = timedelta(seconds=seconds if possible else 0)
    assert offer.extendable_until == START + timedelta(hours=1) + granted


async def test_where_no_lease_runs_there_is_nothing_to_extend(world: World) -> None:
    first = await world.running(await world.reserve("ada", hours=1))
    second = await world.reserve("grace", hours=1)
    offer = await extension.offer(world.ctx, second.id)
    assert (offer.possible_hours, offer.extendable_until) == (0, None)
    assert offer.limited_by == "The reservation is queued; only a running lease can be extended."
    world.clock.pass_time(hours=1, seconds=-1)
    assert (await extension.offer(world.ctx, first.id)).limited_by != offer.limited_by
    world.clock.pass_time(seconds=1)
    offer = await extension.offer(world.ctx, first.id)
    assert (offer.possible_hours, offer.extendable_until) == (0, first.expires_at)
    assert offer.limited_by == "The lease has just ended; only a running lease can be extended."
    assert await world.states(first) == [State.ACTIVE]
