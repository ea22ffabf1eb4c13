"""Promises over time: what moves them stands in the history."""

from datetime import timedelta

from gpudev_client.states import State
from gpudev_service.operations import reservations
from tests.fixtures.world import START, World


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
