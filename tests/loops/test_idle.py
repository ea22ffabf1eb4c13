"""The idle loop: told, kept, given back; and never anybody who uses their lease."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import ActivityReport, Reservation
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import idle as loop
from gpudev_service.operations import idle, reservations
from gpudev_service.settings import IdleAction, IdleRule, Policy, PolicyRule
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import World, make_world

RELEASE = IdleRule(
    action=IdleAction.RELEASE, after_minutes=60, grace_minutes=15, keep_hours=2, keeps=2
)


def watched(store: Store, folder: Path, rule: IdleRule | None = RELEASE) -> World:
    return make_world(store, folder, policy=Policy(default=PolicyRule(max_hours=24, idle=rule)))


async def active(world: World) -> Reservation:
    reservation = await world.reserve(hours=24)
    await world.running(reservation)
    return reservation


async def report(
    world: World,
    reservation: Reservation,
    *,
    busy: bool = False,
    last_at: datetime | None = None,
) -> Any:
    said = {"sources": [{"source": "kernels", "busy": busy, "last_at": last_at}]}
    return await idle.record(world.ctx, reservation.id, ActivityReport.model_validate(said))


async def look_after(world: World, lease: Reservation, minutes: float) -> None:
    """The loop's look when nobody has done anything for so much longer."""
    world.clock.pass_time(minutes=minutes)
    await report(world, lease)
    await loop.run(world.ctx)


async def test_told_first_and_given_back_after_the_grace(store: Store, tmp_path: Path) -> None:
    world = watched(store, tmp_path)
    lease = await active(world)
    await look_after(world, lease, 61)
    assert (await world.look(lease)).state is State.ACTIVE
    assert (await world.reasons(lease))[-1] == (
        "Nobody has used your lease on 1 x t4-small for 1 h 1 min. "
        "It is given back in 15 min unless it is used or kept."
    )
    world.clock.pass_time(minutes=14)
    await report(world, lease)
    await loop.run(world.ctx)
    assert (await world.look(lease)).state is State.ACTIVE
    world.clock.pass_time(minutes=1)
    await loop.run(world.ctx)
    ended = await world.look(lease)
    assert ended.state is State.STOPPING
    assert ended.reason == "Given back because nobody used it for 1 h 16 min."
    await world.sweep()
    assert (await world.look(lease)).state is State.CANCELLED


async def test_told_once(store: Store, tmp_path: Path) -> None:
    world = watched(store, tmp_path, RELEASE.model_copy(update={"action": IdleAction.WARN}))
    lease = await active(world)
    world.clock.pass_time(minutes=61)
    await report(world, lease)
    for _ in range(3):
        await loop.run(world.ctx)
        world.clock.pass_time(minutes=5)
    told = [reason for reason in await world.reasons(lease) if reason.startswith("Nobody has used")]
    once = (
        "Nobody has used your lease on 1 x t4-small for 1 h 1 min. "
        "Give it back if you do not need it."
    )
    assert told == [once]
    world.clock.pass_time(hours=5)
    await report(world, lease)
    await loop.run(world.ctx)
    assert (await world.look(lease)).state is State.ACTIVE


async def test_use_after_the_warning_takes_it_back(store: Store, tmp_path: Path) -> None:
    world = watched(store, tmp_path)
    lease = await active(world)
    await look_after(world, lease, 61)
    world.clock.pass_time(minutes=10)
    found = await report(world, lease, last_at=world.clock.now() - timedelta(minutes=1))
    assert found.state == "in_use"
    world.clock.pass_time(minutes=10)
    await report(world, lease, last_at=world.clock.now() - timedelta(minutes=11))
    await loop.run(world.ctx)
    assert (await world.look(lease)).state is State.ACTIVE
    # Idle again later: the whole grace again, not what was left of the first.
    world.clock.pass_time(minutes=60)
    await report(world, lease, last_at=world.clock.now() - timedelta(minutes=71))
    await loop.run(world.ctx)
    world.clock.pass_time(minutes=14)
    await loop.run(world.ctx)
    assert (await world.look(lease)).state is State.ACTIVE


async def test_kept_within_limits(store: Store, tmp_path: Path) -> None:
    world = watched(store, tmp_path)
    lease, ada = await active(world), Actor("ada")
    world.clock.pass_time(minutes=61)
    for _ in range(2):
        await report(world, lease)
        await loop.run(world.ctx)
        await idle.keep(world.ctx, lease.id, ada)
        assert (await world.reasons(lease))[-1] == "Kept on request for 2 h."
        world.clock.pass_time(minutes=119)
        assert (await report(world, lease)).state == "kept"
        await loop.run(world.ctx)
        world.clock.pass_time(minutes=1)
    await report(world, lease)
    with pytest.raises(Refusal, match=r"This was said 2 times without any use since\.") as refusal:
        await idle.keep(world.ctx, lease.id, ada)
    assert refusal.value.code == "policy_limit"
    await report(world, lease, busy=True)
    world.clock.pass_time(minutes=61)
    await report(world, lease)
    await idle.keep(world.ctx, lease.id, ada)


async def test_a_server_that_does_not_report_is_left_alone(store: Store, tmp_path: Path) -> None:
    world = watched(store, tmp_path)
    lease = await active(world)
    for _ in range(20):
        world.clock.pass_time(hours=1)
        await loop.run(world.ctx)
    assert (await world.look(lease)).state is State.ACTIVE
    assert not [r for r in await world.reasons(lease) if "used" in r]


async def test_off_by_default(store: Store, tmp_path: Path) -> None:
    world = watched(store, tmp_path, None)
    lease = await active(world)
    world.clock.pass_time(hours=3)
    assert await report(world, lease) is None
    await loop.run(world.ctx)
    assert (await world.look(lease)).state is State.ACTIVE
    with pytest.raises(Refusal, match="not watched for idleness") as refusal:
        await idle.keep(world.ctx, lease.id, Actor("ada"))
    assert refusal.value.code == "wrong_state"


async def test_a_servers_clock_that_is_ahead_cannot_keep_a_lease(
    store: Store, tmp_path: Path
) -> None:
    world = watched(store, tmp_path)
    lease = await active(world)
    await report(world, lease, last_at=world.clock.now() + timedelta(days=30))
    world.clock.pass_time(minutes=61)
    found = await report(world, lease, last_at=None)
    assert found.state == "idle"


async def test_what_is_said_of_a_lease_that_is_over_is_not_taken(
    store: Store, tmp_path: Path
) -> None:
    world = watched(store, tmp_path)
    lease = await active(world)
    await reservations.cancel(world.ctx, lease.id, Actor("ada"))
    assert await report(world, lease, busy=True) is None
    with pytest.raises(Refusal, match="not watched"):
        await idle.keep(world.ctx, lease.id, Actor("ada"))


@pytest.mark.parametrize(
    "rule", [RELEASE.model_copy(update={"action": IdleAction.NOTHING}), None], ids=["idle", "rule"]
)
async def test_nothing_follows_where_policy_says_nothing(
    store: Store, tmp_path: Path, rule: IdleRule | None
) -> None:
    world = watched(store, tmp_path, rule)
    lease = await active(world)
    world.clock.pass_time(hours=5)
    await report(world, lease)

    async def judged(session: AsyncSession) -> list[Any]:
        row = await session.get_one(ReservationRow, lease.id)
        return list(await idle.judge(world.ctx, session, row, world.clock.now()))

    assert await world.ctx.store.run(judged) == []


async def test_a_rule_of_a_group_concerns_only_those_in_it(store: Store, tmp_path: Path) -> None:
    policy = Policy(
        default=PolicyRule(max_hours=24), groups={"class": PolicyRule(max_hours=24, idle=RELEASE)}
    )
    world = make_world(store, tmp_path, policy=policy)
    made = [
        await world.running(await world.reserve(user, "t4", gpus=1, hours=24, groups=groups))
        for user, groups in (("ada", ("class",)), ("grace", ()), ("linus", ("class",)))
    ]
    idle_, free, ends = made
    world.clock.pass_time(minutes=61)
    for one in made:
        await report(world, one)
    # Its owner gives it back between the look for idle leases and the turn to judge them.
    await reservations.cancel(world.ctx, ends.id, Actor("linus"))
    keys = [one.id for one in made]
    entries = await world.ctx.store.run(lambda session: loop._judge(world.ctx, session, keys))
    assert [entry.reservation_id for entry in entries] == [idle_.id]
    assert [entry.data for entry in entries] == [{"warning": True}]
    world.clock.pass_time(minutes=15)
    for one in (idle_, free):
        await report(world, one)
    await loop.run(world.ctx)
    assert await world.states(idle_, free) == [State.STOPPING, State.ACTIVE]


async def test_only_what_warns_is_shown_in_terminals(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is given back has nobody left to read it."""
    shown: list[str] = []

    async def tell(_: str, text: str) -> int:
        shown.append(text)
        return 1

    world = watched(store, tmp_path)
    monkeypatch.setattr(world.ctx.servers, "tell", tell)
    lease = await active(world)
    for minutes in (61, 15):
        await look_after(world, lease, minutes)
    await world.ctx.background.settle()
    assert await world.states(lease) == [State.STOPPING]
    assert len(shown) == 1
    assert shown[0].startswith("Nobody has used your lease")


async def test_what_should_have_been_given_back_is_at_the_next_look(
    store: Store, tmp_path: Path
) -> None:
    world = watched(store, tmp_path)
    lease = await active(world)
    for minutes in (61, 20):
        await look_after(world, lease, minutes)
    assert await world.states(lease) == [State.STOPPING]


async def test_who_has_kept_a_lease_more_often_than_is_allowed_now_cannot_again(
    store: Store, tmp_path: Path
) -> None:
    before = watched(store, tmp_path)
    lease = await active(before)
    for _ in range(2):
        await idle.keep(before.ctx, lease.id, Actor("ada"))
    after = watched(store, tmp_path, RELEASE.model_copy(update={"keeps": 1}))
    with pytest.raises(Refusal, match="This was said 2 times"):
        await idle.keep(after.ctx, lease.id, Actor("ada"))


async def test_the_warning_says_how_long_the_grace_is(store: Store, tmp_path: Path) -> None:
    world = watched(store, tmp_path, RELEASE.model_copy(update={"grace_minutes": 180}))
    lease = await active(world)
    world.clock.pass_time(hours=4)
    await report(world, lease)
    await loop.run(world.ctx)
    assert (await world.reasons(lease))[-1] == (
        "Nobody has used your lease on 1 x t4-small for 4 h. "
        "It is given back in 3 h unless it is used or kept."
    )
