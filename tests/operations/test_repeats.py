"""Calls that come twice, too late, or at the very moment at which something ends."""

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import Milestone, ServerReport
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import warnings
from gpudev_service.operations import extension, notices, reservations, servers
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import World

SPAWNER = Actor("gpudev-spawner")
HANDLE: dict[str, str | int | float] = {"kind": "process", "pid": 2**22 + 1, "created": 1.0}


async def test_a_lease_past_its_end_cannot_be_extended_before_it_is_swept(world: World) -> None:
    got = await world.running(await world.reserve(hours=1))
    world.clock.pass_time(minutes=59, seconds=59)
    await extension.extend(world.ctx, got.id, Actor("ada"), 1)
    world.clock.pass_time(hours=1, seconds=1)
    offer = await extension.offer(world.ctx, got.id)
    assert (offer.possible_hours, offer.extendable_until) == (0, world.clock.now())
    assert "just ended" in (offer.limited_by or "")
    with pytest.raises(Refusal, match="just ended") as refused:
        await extension.extend(world.ctx, got.id, Actor("ada"), 1)
    assert refused.value.code == "wrong_state"
    await world.sweep()
    assert await world.states(got) == [State.EXPIRED]
    with pytest.raises(Refusal, match="is expired"):
        await extension.extend(world.ctx, got.id, Actor("ada"), 1)


async def test_a_report_that_comes_twice_is_noted_once(world: World) -> None:
    got = await world.reserve()
    for _ in range(2):
        said = ServerReport(status="starting", handle=HANDLE)
        await servers.report(world.ctx, got.id, SPAWNER, said)
    for _ in range(2):
        await world.running(got)
    reasons = await world.reasons(got)
    assert reasons.count("The server is starting.") == 1
    assert reasons.count("The server is running.") == 1
    again = ServerReport(status="starting", handle=HANDLE | {"pid": 2**22 + 2})
    await servers.report(world.ctx, got.id, SPAWNER, again)
    assert (await world.reasons(got)).count("The server is starting.") == 2


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ("left", State.CANCELLED, "Left the queue."),
        ("stopped", State.CANCELLED, "Left the queue."),
        ("running", State.QUEUED, None),
        ("failed", State.QUEUED, None),
        ("starting", State.QUEUED, None),
    ],
)
async def test_reports_about_somebody_who_waits(
    world: World, status: str, state: State, reason: str | None
) -> None:
    await world.reserve("ada")
    waiting = await world.reserve("grace")
    said = ServerReport.model_validate({"status": status})
    got = await servers.report(world.ctx, waiting.id, SPAWNER, said)
    assert (got.state, got.reason) == (state, reason)


async def test_reports_about_what_is_over_change_nothing_but_the_handle(world: World) -> None:
    first, waiting = await world.reserve("ada"), await world.reserve("grace")
    await servers.report(world.ctx, waiting.id, SPAWNER, ServerReport(status="left"))
    before = await world.look(waiting)
    told = await world.reasons(waiting)
    for status in ("starting", "running", "failed", "stopped", "left", "note"):
        said = ServerReport.model_validate({"status": status, "handle": HANDLE})
        await servers.report(world.ctx, waiting.id, SPAWNER, said)
    assert await world.look(waiting) == before
    assert await world.reasons(waiting) == told
    assert await world.states(first) == [State.PREPARING]


async def test_a_failed_second_start_keeps_the_lease(world: World) -> None:
    got = await world.running(await world.reserve())
    said = ServerReport(status="failed", message="The port is taken.")
    assert (await servers.report(world.ctx, got.id, SPAWNER, said)).state is State.ACTIVE
    assert (await world.reasons(got))[-1] == "The port is taken."


async def test_the_steps_of_a_start_are_kept_once(world: World) -> None:
    got = await world.reserve()
    begin = world.clock.now()
    steps = [
        Milestone(step=step, at=begin + timedelta(seconds=seconds))
        for step, seconds in (("begin", 0), ("image", 9), ("lab", 12))
    ]
    for status, state in (("starting", State.PREPARING), ("running", State.ACTIVE)):
        said = ServerReport.model_validate({"status": status, "milestones": steps})
        for _ in range(2):
            assert (await servers.report(world.ctx, got.id, SPAWNER, said)).state is state
    told = "The start took 12 s: image there (9 s), JupyterLab answers (3 s)."
    assert (await world.reasons(got)).count(told) == 1


async def test_a_note_about_the_server_changes_nothing_and_is_kept_once(world: World) -> None:
    got = await world.running(await world.reserve())
    said = ServerReport(status="note", message="The worker on n2 is lost.")
    for _ in range(2):
        assert (await servers.report(world.ctx, got.id, SPAWNER, said)).state is State.ACTIVE
    assert (await world.reasons(got)).count("The worker on n2 is lost.") == 1


async def test_nothing_is_launched_without_a_lease(world: World) -> None:
    await world.reserve("ada")
    waiting = await world.reserve("grace")
    with pytest.raises(Refusal, match="nothing may be started"):
        await servers.launch(world.ctx, waiting.id)


async def test_an_extension_of_somebody_who_waits_is_refused(world: World) -> None:
    await world.reserve("ada")
    waiting = await world.reserve("grace")
    offer = await extension.offer(world.ctx, waiting.id)
    assert offer.possible_hours == 0
    assert "queued" in (offer.limited_by or "")


async def test_policy_limits_an_extension_and_says_so(world: World) -> None:
    got = await world.running(await world.reserve(hours=24))
    with pytest.raises(Refusal) as refused:
        await extension.extend(world.ctx, got.id, Actor("ada"), 25)
    assert refused.value.accepted == {"max": 24}
    assert "24 hours in all" in refused.value.message


async def test_less_than_a_minute_is_not_offered(world: World) -> None:
    first = await world.running(await world.reserve("ada", hours=1))
    turnover = world.ctx.settings.times.turnover_span
    assert first.expires_at is not None
    start = first.expires_at + turnover + timedelta(seconds=50)
    await world.reserve("grace", hours=1, starts_at=start)
    assert (await extension.offer(world.ctx, first.id)).possible_hours == 0


async def test_what_happens_again_after_something_else_is_told_again(world: World) -> None:
    got = await world.running(await world.reserve())
    for message in ("The worker is lost.", "The worker is back.", "The worker is lost."):
        said = ServerReport(status="note", message=message)
        await servers.report(world.ctx, got.id, SPAWNER, said)
    assert (await world.reasons(got))[-3:] == [
        "The worker is lost.",
        "The worker is back.",
        "The worker is lost.",
    ]


@pytest.mark.parametrize(
    ("status", "running", "state", "reason"),
    [
        ("failed", False, State.STOPPING, "The server did not start."),
        ("failed", True, State.ACTIVE, "The server did not start again."),
        ("stopped", False, State.STOPPING, "Given back by its owner."),
        ("left", True, State.STOPPING, "Given back by its owner."),
    ],
)
async def test_a_report_without_words_gets_some(
    world: World, status: str, running: bool, state: State, reason: str
) -> None:
    got = await world.reserve()
    if running:
        await world.running(got)
    said = ServerReport.model_validate({"status": status})
    assert (await servers.report(world.ctx, got.id, SPAWNER, said)).state is state
    assert (await world.reasons(got))[-1] == reason
    # What comes after the end has begun says nothing more of it.
    told = await world.reasons(got)
    if state is State.STOPPING:
        for late in ("note", "failed", "running", "stopped"):
            said = ServerReport.model_validate({"status": late, "message": "too late"})
            await servers.report(world.ctx, got.id, SPAWNER, said)
        assert await world.reasons(got) == told


async def test_the_steps_of_a_second_start_are_kept_too_and_none_of_a_server_that_runs(
    world: World,
) -> None:
    got = await world.running(await world.reserve())

    async def told(status: str, seconds: int) -> list[str]:
        steps = [
            Milestone(step=step, at=world.clock.now() + timedelta(seconds=after))
            for step, after in (("begin", 0), ("lab", seconds))
        ]
        said = ServerReport.model_validate({"status": status, "milestones": steps})
        await servers.report(world.ctx, got.id, SPAWNER, said)
        return [one for one in await world.reasons(got) if one.startswith("The start took")]

    assert await told("running", 5) == []

    async def lost(session: AsyncSession) -> None:
        (await session.get_one(ReservationRow, got.id)).server_lost_at = world.clock.now()

    await world.ctx.store.run(lost)
    again = await told("starting", 7)
    assert [one.partition(":")[0] for one in again] == ["The start took 7 s"]
    assert await told("running", 7) == again
    assert (await world.look(got)).server_lost_at is None
    assert (await world.reasons(got))[-1] == "The server runs again."
    assert await told("running", 9) == again


async def test_a_note_is_compared_with_the_last_of_its_own_kind_and_reservation(
    world: World,
) -> None:
    leases = [
        await world.running(await world.reserve(user, "t4", gpus=1, hours=1))
        for user in ("ada", "grace", "linus", "ken")
    ]
    said = ServerReport(status="note", message="The worker is lost.")

    async def told() -> list[int]:
        for lease in leases:
            await servers.report(world.ctx, lease.id, SPAWNER, said)
        return [(await world.reasons(lease)).count("The worker is lost.") for lease in leases]

    assert await told() == [1] * 4
    await extension.extend(world.ctx, leases[0].id, Actor("ada"), 1)
    world.clock.pass_time(minutes=46)
    await warnings.run(world.ctx)
    assert await told() == [1] * 4


@pytest.mark.parametrize("status", ["failed", "note"])
async def test_a_failed_start_is_told_otherwise_than_what_happens_to_a_server(
    world: World, status: str
) -> None:
    got = await world.running(await world.reserve())
    said = ServerReport.model_validate({"status": status, "message": "No room on the node."})
    await servers.report(world.ctx, got.id, SPAWNER, said)
    page = await reservations.history(world.ctx, got.id, 50, None)
    [entry] = [entry for entry in page.items if entry.reason == "No room on the node."]
    expected = notices.failed_start() if status == "failed" else notices.happened()
    assert entry.data == expected
    assert notices.failed_start() != notices.happened()
