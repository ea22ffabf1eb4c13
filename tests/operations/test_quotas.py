"""`max_running_gpus`: what is beyond it waits, with a promise, and is not refused."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gpudev_client.models import Reservation, ReservationRequest
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import fleet
from gpudev_service.operations import capacity, extension, kept, limited, reservations
from gpudev_service.settings import Policy, PolicyRule
from gpudev_service.store.engine import Store
from tests.fixtures.world import START, TYPES, World, make_world

TURNOVER = timedelta(seconds=15)
POLICY = Policy(
    default=PolicyRule(max_hours=24, max_extension_hours=24, max_total_hours=48),
    groups={"class": PolicyRule(max_running_gpus=4), "staff": PolicyRule(max_running_gpus=8)},
)


def _start(one: Reservation) -> datetime:
    assert one.promised_start is not None
    return one.promised_start


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return make_world(store, tmp_path, policy=POLICY)


async def test_what_is_beyond_it_waits_for_ones_own_lease_though_gpus_are_free(
    world: World,
) -> None:
    first = await world.reserve("ada", "t4", gpus=4, hours=1, groups=("class",))
    second = await world.reserve("ada", "t4", gpus=1, hours=1, groups=("class",))
    other = await world.reserve("grace", "t4", gpus=4, hours=1, groups=("class",))
    assert [r.state for r in (first, second, other)] == [
        State.PREPARING,
        State.QUEUED,
        State.PREPARING,
    ]
    assert first.expires_at is not None
    assert second.promised_start == first.expires_at + TURNOVER
    await reservations.cancel(world.ctx, first.id, Actor("ada"))
    await world.sweep()
    assert (await world.look(second)).state is State.PREPARING


async def test_types_count_apart_and_shares_of_a_node_do_not(world: World) -> None:
    for gpu_type, gpus in (("t4", 4), ("h100", 4), ("cpu-x86", 0), ("cpu-x86", 0)):
        got = await world.reserve("ada", gpu_type, gpus=gpus, groups=("class",))
        assert got.state is State.PREPARING, gpu_type


async def test_more_than_it_at_once_is_refused(world: World) -> None:
    with pytest.raises(Refusal) as refused:
        await world.reserve("ada", "h100", gpus=8, groups=("class",))
    assert (refused.value.code, refused.value.field) == ("quota", "gpus")
    assert refused.value.accepted == {"max": 4}


async def test_a_preview_knows_it(world: World) -> None:
    first = await world.reserve("ada", "t4", gpus=4, hours=1, groups=("class",))
    request = ReservationRequest(gpu_type="t4", gpus=2, hours=1)
    mine = await reservations.preview(world.ctx, Actor("ada"), request, ("class",))
    theirs = await reservations.preview(world.ctx, Actor("grace"), request, ("class",))
    assert first.expires_at is not None
    assert (mine.starts_at, mine.starts_now) == (first.expires_at + TURNOVER, False)
    assert theirs.starts_now


async def test_what_is_free_when_is_told_with_it(world: World) -> None:
    """A start that is shown before the reservation is the one that is promised then."""
    first = await world.reserve("ada", "t4", gpus=4, hours=1, groups=("class",))
    assert first.expires_at is not None

    async def starts(*of: str) -> dict[int, datetime | None]:
        [t4] = await capacity.availability(world.ctx, 1, ("class",), "t4", *of)
        return {each.gpus: each.starts_at for each in t4.earliest}

    mine = await starts("ada")
    assert (mine[1], mine[4], mine[8]) == (first.expires_at + TURNOVER,) * 2 + (None,)
    second = await world.reserve("ada", "t4", gpus=1, hours=1, groups=("class",))
    assert second.promised_start == mine[1]
    theirs, anyones = await starts("grace"), await starts()
    assert theirs[1] == theirs[4] == anyones[1] == START
    assert theirs[8] is None
    assert anyones[8] is not None


async def test_an_extension_keeps_off_ones_own_promise(world: World) -> None:
    first = await world.running(await world.reserve("ada", "t4", gpus=4, groups=("class",)))
    second = await world.reserve("ada", "t4", gpus=4, hours=1, groups=("class",))
    with pytest.raises(Refusal):
        await extension.extend(world.ctx, first.id, Actor("ada", ("class",)), 1)
    assert (await world.look(second)).promised_start == second.promised_start


async def test_the_groups_of_the_newest_request_tell_the_limit(world: World) -> None:
    """In another group since: what waited under the old limit begins under the new one."""
    await world.reserve("ada", "t4", gpus=4, hours=1, groups=("class",))
    second = await world.reserve("ada", "t4", gpus=3, hours=1, groups=("class",))
    world.clock.pass_time(minutes=1)
    third = await world.reserve("ada", "t4", gpus=1, hours=1, groups=("staff",))
    assert await world.states(second, third) == [State.PREPARING, State.PREPARING]


async def test_a_lower_limit_in_the_newest_group_holds_for_who_waits_already(world: World) -> None:
    first = await world.reserve("ada", "t4", gpus=4, hours=5, groups=("staff",))
    other = await world.reserve("grace", "t4", gpus=4, hours=1)
    waits = await world.reserve("ada", "t4", gpus=4, hours=1, groups=("staff",))
    assert first.expires_at is not None
    assert other.expires_at is not None
    assert waits.promised_start == other.expires_at + TURNOVER
    world.clock.pass_time(minutes=1)
    await world.reserve("ada", "t4", gpus=1, hours=1, groups=("class",))
    assert (await world.look(waits)).promised_start == first.expires_at + TURNOVER


async def test_who_gets_a_limit_is_counted_with_what_they_have(world: World) -> None:
    """What is kept of the plan did not count it."""
    first = await world.reserve("ada", "t4", gpus=3, hours=1)
    world.clock.pass_time(minutes=1)
    second = await world.reserve("ada", "t4", gpus=2, hours=1, groups=("class",))
    assert second.state is State.QUEUED
    assert first.expires_at is not None
    assert second.promised_start == first.expires_at + TURNOVER
    # And who has it no more waits no longer for it.
    world.clock.pass_time(minutes=1)
    third = await world.reserve("ada", "t4", gpus=1, hours=1)
    assert await world.states(second, third) == [State.PREPARING, State.PREPARING]


async def test_a_lowered_limit_moves_a_promise_and_says_so(store: Store, tmp_path: Path) -> None:
    before = make_world(store, tmp_path, policy=POLICY)
    at = START + timedelta(hours=1)
    asked = [
        await before.reserve("ada", "t4", gpus=4, hours=1, starts_at=at, groups=("staff",))
        for _ in range(2)
    ]
    lower = POLICY.model_copy(update={"groups": {"staff": PolicyRule(max_running_gpus=4)}})
    after = make_world(store, tmp_path, policy=lower)
    await fleet.run(after.ctx)
    first, moved = sorted([await after.look(one) for one in asked], key=_start)
    assert first.promised_start == at
    assert moved.promised_start == at + timedelta(hours=1) + TURNOVER
    page = await reservations.history(after.ctx, moved.id, 50, None)
    said = [entry.reason for entry in page.items if entry.kind == "promise"]
    assert said == ["The promised start had to move: a limit was lowered."]


def _lowered(store: Store, tmp_path: Path) -> World:
    lower = POLICY.model_copy(update={"groups": {"staff": PolicyRule(max_running_gpus=3)}})
    return make_world(store, tmp_path, policy=lower)


async def test_who_waits_for_it_is_told_so(world: World) -> None:
    first = await world.reserve("ada", "t4", gpus=3, hours=1, groups=("class",))
    other = await world.reserve("grace", "t4", gpus=4, hours=1)
    second = await world.reserve("ada", "t4", gpus=2, hours=1, groups=("class",))
    # What is waited for is GPUs: the limit would have room.
    third = await world.reserve("ada", "h100", gpus=4, hours=1, groups=("class",))
    fourth = await world.reserve("grace", "t4", gpus=4, hours=1)
    said = "You may have 4 t4 at once and your leases hold 3: this one waits until they leave room "
    assert second.limited_by == said + "for it."
    assert (await world.look(second)).limited_by == second.limited_by
    assert [r.limited_by for r in (first, other, third, fourth)] == [None] * 4
    await reservations.cancel(world.ctx, first.id, Actor("ada"))
    await world.sweep()
    assert (await world.look(second)).limited_by is None


async def test_all_that_ones_leases_hold_of_a_type_counts(world: World) -> None:
    """On however many nodes; what else is held, and by whom else, does not."""
    both = await world.reserve("ada", "t4", gpus=8, hours=1, groups=("staff",))
    one = await world.reserve("ada", "h100", gpus=1, hours=1, groups=("staff",))
    two = await world.reserve("ada", "h100", gpus=2, hours=1, groups=("staff",))
    await world.reserve("grace", "h100", gpus=1, hours=1, groups=("class",))
    assert await world.states(both, one, two) == [State.PREPARING] * 3
    fits = await world.reserve("ada", "h100", gpus=4, hours=1, groups=("staff",))
    waits = await world.reserve("ada", "h100", gpus=2, hours=1, groups=("staff",))
    more = await world.reserve("ada", "t4", gpus=1, hours=1, groups=("staff",))
    assert fits.state is State.PREPARING
    said = "You may have 8 {} at once and your leases hold {}: this one waits until they leave "
    assert [
        (r.limited_by or "").startswith(said.format(*of))
        for r, of in (
            (waits, ("h100", 7)),
            (more, ("t4", 8)),
        )
    ] == [True, True]
    # Who waits for GPUs that others have is not told of limits that would leave room.
    third = await world.reserve("grace", "h100", gpus=3, hours=1, groups=("class",))
    assert (third.state, third.limited_by) == (State.QUEUED, None)
    other = await world.reserve("linus", "t4", gpus=1, hours=1, groups=("class",))
    assert (other.state, other.limited_by) == (State.QUEUED, None)


def test_where_no_number_is_allowed_none_is_recommended() -> None:
    said = limited._too_many(TYPES["t4"], 4, 0)
    assert said == (
        "This cannot start: you may have 0 t4 at once now, and it asks for 4. Cancel it, or ask an "
        "operator to raise the limit."
    )
    assert "ask for 1 at most" in limited._too_many(TYPES["t4"], 4, 1)


async def test_a_booking_that_is_more_than_a_lowered_limit_is_told_so(
    store: Store, tmp_path: Path
) -> None:
    before = make_world(store, tmp_path, policy=POLICY)
    at = START + timedelta(hours=3)
    booked = await before.reserve("ada", "t4", gpus=4, hours=1, starts_at=at, groups=("staff",))
    small = await before.reserve("ada", "t4", gpus=3, hours=1, starts_at=at, groups=("staff",))
    after = _lowered(store, tmp_path)
    await fleet.run(after.ctx)
    assert ((await after.look(booked)).limited_by or "").startswith("This cannot start")
    assert (await after.look(small)).limited_by is None


async def test_a_booking_is_not_told_what_is_held_before_it(world: World) -> None:
    await world.reserve("ada", "t4", gpus=4, hours=1, groups=("class",))
    at = START + timedelta(hours=3)
    booked = await world.reserve("ada", "t4", gpus=4, hours=1, starts_at=at, groups=("class",))
    assert booked.limited_by is None


async def test_what_is_more_than_a_lowered_limit_is_told_what_helps(
    store: Store, tmp_path: Path
) -> None:
    before = make_world(store, tmp_path, policy=POLICY)
    await before.reserve("grace", "t4", gpus=4, hours=1)
    await before.reserve("grace", "t4", gpus=4, hours=1)
    waits = await before.reserve("ada", "t4", gpus=4, hours=1, groups=("staff",))
    assert (waits.state, waits.limited_by) == (State.QUEUED, None)
    after = _lowered(store, tmp_path)
    await fleet.run(after.ctx)
    told = await after.look(waits)
    assert told.promised_start is None
    assert told.limited_by == (
        "This cannot start: you may have 3 t4 at once now, and it asks for 4. Cancel it and ask "
        "for 3 at most, or ask an operator to raise the limit."
    )


async def test_the_plan_in_memory_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit is no reason to make the plan anew for each arrival."""
    await world.reserve("ada", "t4", gpus=4, hours=1, groups=("class",))

    def anew(*_: object) -> None:
        raise AssertionError("made anew")

    monkeypatch.setattr(kept, "begin", anew)
    second = await world.reserve("ada", "t4", gpus=2, hours=1, groups=("class",))
    third = await world.reserve("ada", "t4", gpus=2, hours=1, groups=("class",))
    assert second.promised_start == third.promised_start
    assert (await world.look(second)).state is State.QUEUED
