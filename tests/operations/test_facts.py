"""What the planner is asked about is what the rows say: compared as a whole."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpudev_client.models import Reservation
from gpudev_service.actor import Actor
from gpudev_service.operations import capacity, facts
from gpudev_service.planner import Demand, Hold, Node, Rules, Slot
from gpudev_service.settings import Policy, Times
from gpudev_service.store.engine import Store
from tests.fixtures.world import START, World, make_world

ADMIN = Actor("root-admin", admin=True)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW, HOUR, TURNOVER = facts.to_ms(START), 3_600_000, 15_000
HOURS = timedelta(hours=1)


@pytest.mark.parametrize(
    ("microseconds", "milliseconds"), [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (-1, 0)]
)
def test_a_moment_is_rounded_up_to_milliseconds(microseconds: int, milliseconds: int) -> None:
    assert facts.to_ms(EPOCH + timedelta(microseconds=microseconds)) == milliseconds


def test_milliseconds_are_a_moment_again() -> None:
    assert facts.from_ms(facts.to_ms(START)) == START
    assert facts.from_ms(1) == EPOCH + timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("turnover", "min_hours", "rules"),
    [
        (15, 1, Rules(overstay_ms=15_000, late_start_ms=60_000)),
        (0, 1, Rules(overstay_ms=1_000, late_start_ms=60_000)),
        (1.5, 0.02, Rules(overstay_ms=1_500, late_start_ms=36_000)),
    ],
)
def test_rules_follow_from_the_settings(
    store: Store, tmp_path: Path, turnover: float, min_hours: float, rules: Rules
) -> None:
    times, policy = Times(turnover=turnover, hub_patience=0.5), Policy(min_hours=min_hours)
    assert facts.rules(make_world(store, tmp_path, times=times, policy=policy).ctx) == rules


async def read(
    world: World, gpu_types: Collection[str] | None = None, only: Collection[str] | None = None
) -> facts.World:
    async with world.ctx.store.reading() as session:
        return await facts.world(world.ctx, session, world.clock.now(), gpu_types, only)


def node(name: str, pool: str, units: int, *, available: bool = True) -> Node:
    return Node(name, pool, units, available)


def waiting(one: Reservation, pool: str, units: int, hours: int, promise: Slot) -> Demand:
    return Demand(
        id=one.id,
        pool=pool,
        nodes=1,
        units_per_node=units,
        duration_ms=hours * HOUR + TURNOVER,
        priority=0,
        order=(NOW, one.id),
        promise=promise,
    )


async def test_nodes_leases_and_who_waits(world: World) -> None:
    lease = await world.reserve("ada", "h100", gpus=8, hours=2)
    after = await world.reserve("grace", "h100", gpus=4, hours=1)
    small = await world.reserve("linus", "t4", gpus=1, hours=3)
    booked = await world.reserve("alan", "t4", gpus=2, hours=1, starts_at=START + 5 * HOURS)
    await capacity.drain(world.ctx, "t4-2", "cooling", ADMIN)

    holds = [
        Hold(lease.id, {"h100-1": 8}, NOW + 2 * HOUR + TURNOVER),
        Hold(small.id, {"t4-1": 1}, NOW + 3 * HOUR + TURNOVER),
    ]
    there = Slot(NOW + 2 * HOUR + TURNOVER, ("h100-1",), 4)
    queued = waiting(after, "h100", 4, 1, there)
    found = await read(world)
    assert found.nodes == [
        node("h100-1", "h100", 8),
        node("t4-1", "t4", 4),
        node("t4-2", "t4", 4, available=False),
        node("small-1", "t4-small", 1),
        node("cpu-1", "cpu-x86", 2),
    ]
    assert sorted(found.holds, key=lambda hold: hold.until_ms) == holds
    assert {name: len(units) for name, units in found.taken.items()} == {"h100-1": 8, "t4-1": 1}
    by_id = {demand.id: demand for demand in found.demands}
    assert by_id.keys() == {after.id, booked.id}
    assert by_id[after.id] == queued
    assert (by_id[booked.id].booked_start_ms, by_id[booked.id].not_before_ms) == (
        NOW + 5 * HOUR,
        None,
    )
    assert by_id[booked.id].promise == Slot(NOW + 5 * HOUR, ("t4-1",), 2)

    parts = found.parts(["h100", "t4", "t4-small", "cpu-x86"])
    assert parts["h100"] == facts.World(
        found.nodes[:1], holds[:1], [queued], {"h100-1": set(range(8))}
    )
    assert (parts["t4"].nodes, parts["t4"].holds) == (found.nodes[1:3], holds[1:])
    assert parts["t4"].demands == [by_id[booked.id]]
    assert parts["cpu-x86"] == facts.World(found.nodes[4:])

    assert await read(world, ["h100"]) == parts["h100"]
    assert await read(world, ["t4"], [small.id]) == facts.World(
        found.nodes[1:3], holds[1:], [], parts["t4"].taken
    )
    assert await read(world, ["t4"], [booked.id]) == facts.World(
        found.nodes[1:3], [], [by_id[booked.id]]
    )
    assert await read(world, ["t4"], []) == facts.World(found.nodes[1:3])


async def test_a_lease_on_a_node_that_is_gone_is_in_no_part(world: World) -> None:
    hold = Hold("a", {"gone": 1}, NOW)
    found = facts.World([node("t4-1", "t4", 4)], [hold], [], {"gone": {0}, "t4-1": {1}})
    assert found.parts(["t4", "h100"]) == {
        "t4": facts.World([node("t4-1", "t4", 4)], [], [], {"t4-1": {1}}),
        "h100": facts.World(),
    }


async def test_a_booking_whose_time_has_come_is_one_no_more(world: World) -> None:
    booked = await world.reserve("alan", "t4", gpus=2, hours=1, starts_at=START + HOURS)
    promise = Slot(NOW + HOUR, ("t4-1",), 2)
    [before] = (await read(world, ["t4"])).demands
    assert (before.booked_start_ms, before.not_before_ms, before.promise) == (
        NOW + HOUR,
        None,
        promise,
    )
    world.clock.pass_time(hours=1)
    [then] = (await read(world, ["t4"])).demands
    assert (then.id, then.booked_start_ms, then.not_before_ms, then.promise) == (
        booked.id,
        None,
        None,
        promise,
    )


async def test_a_booking_that_lost_its_place_is_not_before_its_time(world: World) -> None:
    booked = await world.reserve("alan", "t4", gpus=8, hours=1, starts_at=START + HOURS)
    await capacity.drain(world.ctx, "t4-2", "cooling", ADMIN)
    [found] = (await read(world, ["t4"])).demands
    assert (found.id, found.nodes, found.units_per_node) == (booked.id, 2, 4)
    assert (found.booked_start_ms, found.not_before_ms, found.promise) == (None, NOW + HOUR, None)


def test_a_question_is_the_last_among_its_equals(world: World) -> None:
    spec = world.ctx.fleet.types()["t4"]
    asked = facts.question(world.ctx, spec, 8, timedelta(hours=2), NOW)
    assert asked == Demand(
        id="",
        pool="t4",
        nodes=2,
        units_per_node=4,
        duration_ms=2 * HOUR + TURNOVER,
        priority=0,
        order=(NOW, "~"),
    )
