"""Submitting, planning, extending, cancelling; on both databases."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from gpudev_client.models import Reservation, ReservationRequest, ServerReport
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.operations import capacity, extension, reservations, servers
from gpudev_service.settings import PolicyRule
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import LeaseUnitRow
from tests.fixtures.world import START, World


async def test_a_free_gpu_is_leased_at_once(world: World) -> None:
    got = await world.reserve(hours=0.5)
    assert got.state is State.PREPARING
    assert got.starts_at == START
    assert got.expires_at == START + timedelta(minutes=30)
    assert [p.node for p in got.placement] == ["small-1"]
    assert got.placement[0].gpu_ids == ["0"]
    assert got.simulated
    assert got.server_name == got.id


async def test_who_waits_is_promised_the_end_of_the_lease_before_and_the_turnover(
    world: World,
) -> None:
    first = await world.reserve("ada", hours=1)
    second = await world.reserve("grace", hours=1)
    third = await world.reserve("linus", hours=1)
    turnover = timedelta(seconds=world.ctx.settings.times.turnover)
    assert first.expires_at is not None
    assert second.state is State.QUEUED
    assert second.promised_start == first.expires_at + turnover
    assert second.position == 1
    assert third.position == 2
    assert third.promised_start == second.promised_start + timedelta(hours=1) + turnover


async def test_a_whole_life_with_the_hub_dead_ends_on_time_and_starts_the_next(
    world: World,
) -> None:
    first = await world.reserve("ada", hours=1, disk="work", create_disk=True)
    second = await world.reserve("grace", hours=1)
    await world.running(first)
    world.clock.pass_time(minutes=59, seconds=59)
    await world.sweep()
    assert await world.states(first, second) == [State.ACTIVE, State.QUEUED]
    world.clock.pass_time(seconds=1)
    await world.sweep()
    assert await world.states(first) == [State.EXPIRED]
    after = await world.look(second)
    assert after.state is State.PREPARING
    assert after.starts_at is not None
    assert second.promised_start is not None
    assert after.starts_at <= second.promised_start
    reasons = await world.reasons(first)
    assert any(r.startswith("Snapshot taken") for r in reasons), reasons


async def test_the_last_gpu_goes_to_one_of_two(world: World) -> None:
    got = await asyncio.gather(world.reserve("ada"), world.reserve("grace"))
    assert sorted(r.state for r in got) == [State.PREPARING, State.QUEUED]
    async with world.ctx.store.reading() as session:
        assert await session.scalar(select(func.count()).select_from(LeaseUnitRow)) == 1


async def test_cancelling_who_waits_improves_the_others(world: World) -> None:
    await world.reserve("ada", hours=1)
    second = await world.reserve("grace", hours=5)
    third = await world.reserve("linus", hours=1)
    await reservations.cancel(world.ctx, second.id, Actor("grace"))
    moved = await world.look(third)
    assert moved.promised_start == second.promised_start
    assert moved.position == 1
    assert moved.first_promised_start == third.promised_start


async def test_cancelling_twice_is_no_error_and_a_lease_ends_through_stopping(
    world: World,
) -> None:
    got = await world.reserve()
    stopping = await reservations.cancel(world.ctx, got.id, Actor("ada"))
    assert stopping.state is State.STOPPING
    assert (await reservations.cancel(world.ctx, got.id, Actor("ada"))).state is State.STOPPING
    await world.sweep()
    assert await world.states(got) == [State.CANCELLED]
    assert (await reservations.cancel(world.ctx, got.id, Actor("ada"))).state is State.CANCELLED


async def test_an_extension_is_granted_as_far_as_no_promise_moves(world: World) -> None:
    first = await world.running(await world.reserve("ada", hours=1))
    longer = await extension.extend(world.ctx, first.id, Actor("ada"), 0.5)
    assert longer.expires_at == START + timedelta(hours=1.5)
    assert longer.extended_hours == 0.5
    waiting = await world.reserve("grace", hours=1)
    with pytest.raises(Refusal) as refused:
        await extension.extend(world.ctx, first.id, Actor("ada"), 1)
    assert refused.value.code == "extension_limited"
    assert refused.value.accepted == {"max": 0}
    assert (await world.look(waiting)).promised_start == waiting.promised_start


async def test_the_offer_that_is_made_is_granted(world: World) -> None:
    got = await world.running(await world.reserve("ada", hours=1))
    offer = await extension.offer(world.ctx, got.id)
    assert offer.possible_hours == 24
    longer = await extension.extend(world.ctx, got.id, Actor("ada"), offer.possible_hours)
    assert longer.expires_at == offer.extendable_until
    again = await extension.offer(world.ctx, got.id)
    assert again.possible_hours == 0
    assert again.limited_by


@pytest.mark.parametrize(
    ("values", "field", "accepted"),
    [
        ({"gpu_type": "tpu"}, "gpu_type", ["h100", "t4", "t4-small", "cpu-x86"]),
        ({"gpu_type": "t4", "gpus": 3 * 4}, "gpus", [1, 2, 3, 4, 8]),
        ({"gpu_type": "cpu-x86", "gpus": 1}, "gpus", [0]),
        ({"hours": 0.01}, "hours", {"min": 5 / 60, "max": 24}),
        ({"hours": 25}, "hours", {"min": 5 / 60, "max": 24}),
        ({"disk": "nothing"}, "disk", []),
    ],
)
async def test_a_bad_request_names_the_field_and_what_would_be_accepted(
    world: World, values: dict[str, Any], field: str, accepted: object
) -> None:
    with pytest.raises(Refusal) as refused:
        await world.reserve(**values)
    assert refused.value.field == field
    assert refused.value.accepted == accepted
    page = await reservations.listing(
        world.ctx, reservations.ReservationFilter(users=None), 10, None
    )
    assert page.items == []


async def test_a_disk_serves_one_live_reservation_and_the_refusal_names_it(world: World) -> None:
    first = await world.reserve("ada", disk="work", create_disk=True)
    with pytest.raises(Refusal) as refused:
        await world.reserve("ada", gpu_type="t4", disk="work")
    assert refused.value.code == "disk_in_use"
    assert first.id in refused.value.message
    other = await world.reserve("grace", gpu_type="t4", disk="work", create_disk=True)
    assert other.disk == "work"  # grace's own disk of that name


async def test_cpu_types_are_shared_and_queue_when_full(world: World) -> None:
    got = [await world.reserve(u, "cpu-x86", hours=100) for u in ("ada", "grace", "linus")]
    assert [r.state for r in got] == [State.PREPARING, State.PREPARING, State.QUEUED]
    assert got[0].gpus == 0
    assert got[0].placement[0].gpu_ids == []
    launch = await servers.launch(world.ctx, got[0].id)
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == ""


async def test_two_whole_nodes_or_nothing(world: World) -> None:
    one = await world.reserve("ada", "t4", gpus=1, hours=1)
    both = await world.reserve("grace", "t4", gpus=8, hours=1)
    assert both.state is State.QUEUED
    assert one.expires_at is not None
    turnover = timedelta(seconds=world.ctx.settings.times.turnover)
    assert both.promised_start == one.expires_at + turnover
    small = await world.reserve("linus", "t4", gpus=4, hours=0.9)
    assert small.state is State.PREPARING  # backfill: over before both nodes are needed
    late = await world.reserve("edsger", "t4", gpus=1, hours=2)
    assert late.state is State.QUEUED  # would move the promise


async def test_a_server_that_failed_to_start_gives_the_gpus_to_the_next(world: World) -> None:
    first = await world.reserve("ada")
    second = await world.reserve("grace")
    await servers.report(
        world.ctx, first.id, Actor("spawner"), ServerReport(status="failed", message="No image.")
    )
    await world.sweep()
    got = await world.look(first)
    assert (got.state, got.reason) == (State.FAILED, "No image.")
    assert await world.states(second) == [State.PREPARING]


async def test_no_start_in_time_fails_with_a_reason(world: World) -> None:
    got = await world.reserve()
    world.ctx.contact.answered(world.clock.now())
    world.clock.pass_time(seconds=world.ctx.settings.times.start_limit)
    await world.sweep()
    after = await world.look(got)
    assert after.state is State.FAILED
    assert "did not come up" in (after.reason or "")


async def test_a_booking_starts_at_its_time_and_nobody_is_in_its_way(world: World) -> None:
    at = START + timedelta(hours=2)
    booked = await world.reserve("ada", hours=1, starts_at=at)
    assert booked.state is State.SCHEDULED
    assert booked.promised_start == at
    short = await world.reserve("grace", hours=1)
    assert short.state is State.PREPARING
    long = await world.reserve("linus", hours=2)
    assert long.promised_start is not None
    assert long.promised_start >= at + timedelta(hours=1)
    with pytest.raises(Refusal) as refused:
        await world.reserve("edsger", hours=1, starts_at=at + timedelta(minutes=30))
    assert refused.value.field == "starts_at"
    await world.running(short)
    world.clock.pass_time(hours=1)
    await world.sweep()
    world.clock.pass_time(hours=1)
    await world.sweep()
    assert await world.states(booked) == [State.PREPARING]
    assert (await world.look(booked)).starts_at == at


async def test_a_drain_moves_promises_and_the_history_says_why(world: World) -> None:
    await world.reserve("ada", "h100", gpus=8, hours=1)
    waiting = await world.reserve("grace", "h100", gpus=8, hours=1)
    await capacity.drain(world.ctx, "h100-1", "new cooling", Actor("root-admin"))
    after = await world.look(waiting)
    assert after.state is State.QUEUED
    assert after.promised_start is None
    assert any("promise" in r.lower() for r in await world.reasons(waiting))
    await capacity.undrain(world.ctx, "h100-1", Actor("root-admin"))
    assert (await world.look(waiting)).promised_start == waiting.promised_start


async def test_preview_says_what_submit_then_does_and_stores_nothing(world: World) -> None:
    await world.reserve("ada", "t4", gpus=4, hours=3)
    await world.reserve("ada", "t4", gpus=4, hours=1)
    request = ReservationRequest(gpu_type="t4", gpus=8, hours=1)
    plan = await reservations.preview(world.ctx, Actor("grace"), request, ())
    got = await world.reserve("grace", "t4", gpus=8, hours=1)
    assert plan.starts_at == got.promised_start
    assert plan.position == got.position
    assert not plan.starts_now


async def test_lists_are_paginated_and_filtered(world: World) -> None:
    made = []
    for _ in range(5):
        made.append(await world.reserve("ada", "h100", gpus=1))
        world.clock.pass_time(seconds=1)
    await world.reserve("grace")
    chosen = reservations.ReservationFilter(users=frozenset({"ada"}))
    seen, cursor = [], None
    while True:
        page = await reservations.listing(world.ctx, chosen, 2, cursor)
        seen += [r.id for r in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [r.id for r in reversed(made)]


async def test_groups_select_by_the_owners_groups(world: World) -> None:
    mine = await world.reserve("ada", groups=("lab", "all"))
    await world.reserve("grace", "t4", groups=("labs",))
    await world.reserve("linus", "t4", groups=("kab",))
    chosen = reservations.ReservationFilter(groups=frozenset({"lab"}))
    page = await reservations.listing(world.ctx, chosen, 10, None)
    assert [r.id for r in page.items] == [mine.id]


async def test_a_refused_extension_gives_the_reason_that_counts(world: World) -> None:
    mine = await world.running(await world.reserve("ada", hours=1))
    with pytest.raises(Refusal, match="24 hours would be possible now"):
        await extension.extend(world.ctx, mine.id, Actor("ada"), 30)
    await world.reserve("grace", hours=1)
    with pytest.raises(Refusal, match="Somebody who waits"):
        await extension.extend(world.ctx, mine.id, Actor("ada"), 30)


async def test_who_comes_together_is_admitted_as_one_after_the_other(world: World) -> None:
    """Among those who come at once, some are refused: of each kind, and nobody on their account."""
    asked = [
        *(world.reserve(f"u{at}", hours=1) for at in range(12)),
        world.reserve("nobody", gpus=99),  # refused before anything is written
        world.reserve("ada", hours=1, disk="work", create_disk=True),
        world.reserve("ada", hours=2, disk="work"),  # the disk has just been taken
        world.reserve("grace", hours=1, server_name="same"),
        world.reserve("grace", hours=1, server_name="same"),
    ]
    got = await asyncio.gather(*asked, return_exceptions=True)
    refused = [one.code for one in got if isinstance(one, Refusal)]
    assert sorted(refused) == ["disk_in_use", "invalid_input", "server_in_use"]
    made = [one for one in got if not isinstance(one, BaseException)]
    assert len(made) == len(asked) - 3
    assert len({one.id for one in made}) == len(made)
    waiting = sorted((one for one in made if one.state is State.QUEUED), key=_place)
    async with world.ctx.store.reading() as session:
        held = await session.scalar(select(func.count()).select_from(LeaseUnitRow))
    assert held == len(made) - len(waiting) == 1
    # In the order in which they came, and each with a place of its own in the end.
    last = [await world.look(one) for one in waiting]
    assert [one.position for one in last] == list(range(1, len(last) + 1))


async def test_a_booking_that_cannot_be_among_others_is_refused_alone(world: World) -> None:
    at = START + timedelta(hours=5)
    got = await asyncio.gather(
        *(world.reserve(f"u{number}", hours=1, starts_at=at) for number in range(4)),
        return_exceptions=True,
    )
    refused = [one for one in got if isinstance(one, Refusal)]
    assert [one.code for one in refused] == ["impossible"] * 3
    assert len([one for one in got if not isinstance(one, BaseException)]) == 1


async def test_whose_turn_does_not_come_is_told_that_nothing_was_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(world.ctx.submissions, "do", late)
    with pytest.raises(StoreUnavailable, match="Too many wait for the database"):
        await world.reserve()


async def test_a_quota_counts_those_who_come_at_the_same_time(world: World) -> None:
    policy = world.ctx.settings.policy
    base = policy.default.model_copy(update={"max_reservations": 2})
    world.ctx.settings = world.ctx.settings.model_copy(
        update={"policy": policy.model_copy(update={"default": base})}
    )
    got = await asyncio.gather(
        *(world.reserve("ada", hours=1) for _ in range(5)), return_exceptions=True
    )
    assert [isinstance(one, Refusal) for one in got] == [False, False, True, True, True]


def _place(one: Reservation) -> int:
    return one.position or 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("UNIQUE constraint failed: index 'uq_reservations_live_disk'", "disk_in_use"),
        (
            'duplicate key value violates unique constraint "uq_reservations_live_server"',
            "server_in_use",
        ),
    ],
)
async def test_a_race_that_the_database_decides_is_a_refusal(said: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        async with reservations._races():
            raise IntegrityError("INSERT", {}, Exception(said))
    assert refused.value.code == code


async def test_what_a_constraint_refuses_otherwise_is_no_race() -> None:
    with pytest.raises(IntegrityError):
        async with reservations._races():
            raise IntegrityError("INSERT", {}, Exception("CHECK constraint failed: hours"))


async def test_a_stream_of_events_begins_with_what_concerns_somebody(world: World) -> None:
    mine, his = await world.reserve(), await world.reserve("bob")

    async def shown(interest: frozenset[str] | None) -> set[str]:
        found = reservations.present(world.ctx, lambda owner: True, interest)
        return {one.id async for one in found}

    assert await shown(None) == {mine.id, his.id}
    assert await shown(frozenset({"bob"})) == {his.id}


async def test_the_beginning_of_a_stream_is_read_in_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "PRESENT_AT_ONCE", 2)
    made = sorted([(await world.reserve("ada", "t4")).id for _ in range(5)])
    found: list[str] = []
    async for view in reservations.present(world.ctx, lambda _: True):
        if not found:  # what comes meanwhile is told as an event
            await reservations.cancel(world.ctx, made[3], Actor("ada"))
            await world.sweep()
            await world.reserve("bob", "t4")
        found.append(view.id)
    assert sorted(found) == [key for key in made if key != made[3]]


async def test_a_lease_that_is_over_and_not_swept_yet_cannot_be_extended(world: World) -> None:
    """Whoever is next has been promised it."""
    lease = await world.running(await world.reserve(hours=1))
    world.clock.pass_time(hours=1)
    with pytest.raises(Refusal, match="has just ended"):
        await extension.extend(world.ctx, lease.id, Actor("ada"), 1)


async def test_a_preview_counts_those_who_are_promised_an_earlier_start(world: World) -> None:
    await world.reserve("ada", hours=1)
    await world.reserve("grace", hours=1)
    await world.reserve("linus", hours=1, starts_at=START + timedelta(hours=10))
    request = ReservationRequest(gpu_type="t4-small", hours=1)
    plan = await reservations.preview(world.ctx, Actor("ken"), request, ())
    assert (plan.position, plan.starts_now) == (2, False)
    assert plan.starts_at == START + timedelta(hours=2, seconds=30)
    assert plan.expires_at == plan.starts_at + timedelta(hours=1)
    assert (plan.nodes, plan.gpu_type, plan.gpus, plan.hours) == (["small-1"], "t4-small", 1, 1)
    got = await world.reserve("ken", hours=1)
    assert (got.position, got.promised_start) == (2, plan.starts_at)
    # Who starts at the same moment elsewhere is before them, too.
    for user in ("ada", "grace", "linus"):
        await world.reserve(user, "h100", gpus=4, hours=1)
    beside = ReservationRequest(gpu_type="h100", gpus=4, hours=1)
    plan = await reservations.preview(world.ctx, Actor("ken"), beside, ())
    assert (plan.position, plan.starts_at) == (2, START + timedelta(hours=1, seconds=15))
    other = ReservationRequest(gpu_type="t4", gpus=8, hours=2)
    plan = await reservations.preview(world.ctx, Actor("ken"), other, ())
    assert (plan.position, plan.starts_now, plan.starts_at) == (0, True, START)
    assert plan.nodes == ["t4-1", "t4-2"]


async def test_a_lease_says_how_far_it_could_be_extended_and_nobody_else(world: World) -> None:
    lease = await world.reserve("ada", hours=1)
    waiting = await world.reserve("grace", hours=1)
    shown = (await world.look(lease)).extension
    assert shown is not None
    assert shown.possible_hours == 0
    assert (await world.look(waiting)).extension is None
    await reservations.cancel(world.ctx, waiting.id, Actor("grace"))
    shown = (await world.look(await world.running(lease))).extension
    assert shown is not None
    assert shown.possible_hours == 24
    await reservations.cancel(world.ctx, lease.id, Actor("ada"))
    assert (await world.look(lease)).extension is None


async def test_who_ended_a_reservation_is_told(world: World) -> None:
    mine, theirs, full = [await world.reserve("ada", "t4", gpus=1) for _ in range(3)]
    await reservations.cancel(world.ctx, mine.id, Actor("ada"))
    await reservations.cancel(world.ctx, theirs.id, Actor("root-admin", admin=True))
    await reservations.cancel(world.ctx, full.id, Actor("ada"), "The room gets too warm.")
    assert [(await world.look(one)).reason for one in (mine, theirs, full)] == [
        "Cancelled by its owner.",
        "Cancelled by root-admin.",
        "The room gets too warm.",
    ]


async def test_a_server_has_one_live_reservation_and_the_refusal_names_it(world: World) -> None:
    first = await world.reserve("ada", "t4", gpus=1, server_name="lab")
    await world.reserve("grace", "t4", gpus=1, server_name="lab")  # another one's server
    await world.reserve("ada", "t4", gpus=1, server_name="")
    with pytest.raises(Refusal) as refused:
        await world.reserve("ada", "t4", gpus=1, server_name="lab")
    assert (refused.value.code, refused.value.field) == ("server_in_use", "server_name")
    assert refused.value.accepted == {"reservation": first.id}
    assert f"({first.id}), which is preparing." in refused.value.message
    await reservations.cancel(world.ctx, first.id, Actor("ada"))
    await world.sweep()
    assert (await world.reserve("ada", "t4", gpus=1, server_name="lab")).server_name == "lab"


async def test_the_priority_of_the_owners_groups_decides_between_those_who_wait(
    world: World,
) -> None:
    policy = world.ctx.settings.policy.model_copy(
        update={"groups": {"urgent": PolicyRule(priority=5)}}
    )
    world.ctx.settings = world.ctx.settings.model_copy(update={"policy": policy})
    first = await world.reserve("ada", hours=1)
    await world.reserve("grace", hours=9)
    late = await world.reserve("linus", hours=1)
    urgent = await world.reserve("ken", hours=1, groups=("urgent",))
    assert urgent.promised_start is not None
    assert late.promised_start is not None
    assert urgent.promised_start > late.promised_start, "nobody's promise is broken for it"
    await reservations.cancel(world.ctx, first.id, Actor("ada"))
    await world.sweep()
    assert await world.states(urgent, late) == [State.PREPARING, State.QUEUED]
