"""Invitations: who, with which role, until when; on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

import pytest
from sqlalchemy import select

from gpudev_client.models import Collaborator, CollaboratorRequest, Reservation, Role
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.events import Invitation, Owner
from gpudev_service.operations import reservations, rows, sharing
from gpudev_service.operations.reservations import ReservationFilter
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World

ADA = Actor("ada")
HOUR = timedelta(hours=1)


async def invite(
    world: World, to: Reservation, user: str, role: Role = "use", **values: object
) -> list[Collaborator]:
    request = CollaboratorRequest.model_validate({"role": role, **values})
    view = await sharing.invite(world.ctx, to.id, user, request, ADA)
    return view.collaborators


async def shared_with(world: World, user: str) -> list[str]:
    part = ReservationFilter(users=frozenset({user}), invited=user, of=user)
    page = await reservations.listing(world.ctx, part, 50, None)
    return [view.id for view in page.items]


async def owner(world: World, of: Reservation) -> Owner:
    found = await reservations.owner_of(world.ctx, of.id)
    assert found is not None
    return found


async def test_an_invitation_and_its_removal(world: World) -> None:
    got = await world.reserve()
    assert [one.user for one in await invite(world, got, "grace")] == ["grace"]
    (one,) = await invite(world, got, "grace")
    assert (one.role, one.since, one.until, one.invited_by) == ("use", START, None, "ada")
    assert await shared_with(world, "grace") == [got.id]
    view = await sharing.remove(world.ctx, got.id, "grace", ADA)
    assert view.collaborators == []
    assert await shared_with(world, "grace") == []
    await sharing.remove(world.ctx, got.id, "grace", ADA)
    said = [reason for reason in await world.reasons(got) if "grace" in reason]
    assert said == ["ada invited grace to use the server.", "ada removed grace."]


async def test_a_list_has_what_is_ones_own_and_what_is_shared_each_once(world: World) -> None:
    own = await world.reserve("grace", "t4")
    foreign = await world.reserve("ada", "t4")
    await world.reserve("ada", "t4")
    for user in ("grace", "linus"):
        await invite(world, foreign, user)
    assert sorted(await shared_with(world, "grace")) == sorted([own.id, foreign.id])
    assert await shared_with(world, "linus") == [foreign.id]
    assert await shared_with(world, "sam") == []


async def test_a_role_and_an_end_can_be_changed(world: World) -> None:
    got = await world.running(await world.reserve())
    await invite(world, got, "grace")
    (one,) = await invite(world, got, "grace", "view", until=START + HOUR / 2)
    assert (one.role, one.until) == ("view", START + HOUR / 2)
    assert (await world.reasons(got))[-1] == (
        "grace is invited to see the reservation until 12:30 UTC now."
    )


async def test_an_invitation_ends_by_itself(world: World) -> None:
    got = await world.running(await world.reserve())
    await invite(world, got, "grace", until=START + HOUR / 2)
    assert await sharing.end_due(world.ctx) == START + HOUR / 2
    world.clock.pass_time(minutes=29)
    await sharing.end_due(world.ctx)
    assert await shared_with(world, "grace") == [got.id], "nobody's ends before its time"
    world.clock.pass_time(minutes=1)
    assert await shared_with(world, "grace") == [], "also before the loop has run"
    assert (await world.look(got)).collaborators == []
    assert sharing.standing((await owner(world, got)).invited, "grace", world.clock.now()) is None
    await sharing.end_due(world.ctx)
    assert await sharing.end_due(world.ctx) is None
    assert (await world.reasons(got))[-1] == "The invitation of grace has ended."


async def test_an_invitation_with_an_end_is_listed_until_then(world: World) -> None:
    """To the moment, whenever the loop comes by that writes its end down."""
    got = await world.reserve(hours=4)
    await invite(world, got, "grace", until=START + HOUR)
    assert await shared_with(world, "grace") == [got.id]
    world.clock.pass_time(hours=1)
    assert await shared_with(world, "grace") == []
    world.clock.pass_time(hours=1)
    assert await shared_with(world, "grace") == []


async def test_the_history_of_invitations_ends_with_no_more_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_LINES_MAX", 3)
    # Those of others do not count, whether their ids are smaller or greater.
    some = [await world.reserve("ada", "t4") for _ in range(3)]
    first, got, last = sorted(some, key=lambda one: one.id)
    for each in (first, got, last):
        await invite(world, each, "grace")
    await sharing.remove(world.ctx, got.id, "grace", ADA)
    await invite(world, got, "grace")
    for user, role in (("linus", "use"), ("grace", "view")):
        with pytest.raises(Refusal, match="too often") as raised:
            await invite(world, got, user, cast("Role", role))
        assert raised.value.code == "quota"
    view = await sharing.remove(world.ctx, got.id, "grace", ADA)
    assert view.collaborators == []
    assert (await world.reasons(got))[-1] == "ada removed grace."


async def test_somebody_who_was_removed_can_be_invited_again(world: World) -> None:
    got = await world.reserve()
    await invite(world, got, "grace")
    await sharing.remove(world.ctx, got.id, "grace", Actor("grace"))
    assert (await world.reasons(got))[-1] == "grace has left."
    world.clock.pass_time(minutes=5)
    (one,) = await invite(world, got, "grace")
    assert one.since == START + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("until", "field"),
    [(START, "until"), (START - HOUR, "until"), (START + HOUR + timedelta(seconds=1), "until")],
)
async def test_an_end_lies_within_the_lease(world: World, until: object, field: str) -> None:
    got = await world.running(await world.reserve())
    with pytest.raises(Refusal) as raised:
        await invite(world, got, "grace", until=until)
    assert (raised.value.code, raised.value.field) == ("invalid_input", field)
    assert raised.value.accepted == {
        "min": START.isoformat(),
        "max": (START + HOUR).isoformat(),
    }


async def test_an_invitation_before_the_lease_ends_with_it_at_the_latest(world: World) -> None:
    await world.reserve("sam")
    got = await world.reserve()
    assert got.state is State.QUEUED
    far = START + timedelta(days=2)
    assert [one.until for one in await invite(world, got, "grace", until=far)] == [far]
    world.clock.pass_time(hours=2)
    await world.sweep()
    await world.sweep()
    view = await world.look(got)
    assert view.expires_at is not None
    assert [one.until for one in view.collaborators] == [view.expires_at]


async def test_the_owner_is_not_invited(world: World) -> None:
    with pytest.raises(Refusal, match="theirs already"):
        await invite(world, await world.reserve(), "ada")


async def test_nobody_is_invited_to_what_is_over(world: World) -> None:
    got = await world.running(await world.reserve())
    await reservations.cancel(world.ctx, got.id, ADA)
    with pytest.raises(Refusal, match="nobody can be invited"):
        await invite(world, got, "grace")
    await world.sweep()
    with pytest.raises(Refusal, match="cancelled; nobody can be invited"):
        await invite(world, got, "grace")


async def test_as_many_as_fifty(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MOST", 2)
    got = await world.reserve()
    await invite(world, got, "grace")
    await invite(world, got, "linus")
    with pytest.raises(Refusal) as raised:
        await invite(world, got, "sam")
    assert (raised.value.code, raised.value.accepted) == ("quota", {"max": 2})
    await invite(world, got, "linus", "view")
    await sharing.remove(world.ctx, got.id, "grace", ADA)
    assert len(await invite(world, got, "sam")) == 2


async def test_the_events_reach_those_who_are_invited(world: World) -> None:
    got = await world.reserve()

    def grace(owner: Owner) -> bool:
        return sharing.standing(owner.invited, "grace", world.clock.now()) is not None

    async with world.ctx.events.listen(grace) as listener:
        await invite(world, got, "grace")
        event = await listener.next()
        assert (event.kind, event.reservation.id) == ("collaborator", got.id)
        await sharing.remove(world.ctx, got.id, "grace", ADA)
        await invite(world, got, "grace")
        assert (await listener.next()).message == "ada invited grace to use the server."


async def test_a_line_is_said_once_of_each_reservation(world: World) -> None:
    one, other = await world.reserve("ada"), await world.reserve("grace")
    for said in ("The Hub is away.", "The Hub is away.", "The Hub is back."):
        await sharing.say_once(world.ctx, one.id, said)
    await sharing.say_once(world.ctx, other.id, "The Hub is back.")
    assert (await world.reasons(one))[-2:] == ["The Hub is away.", "The Hub is back."]
    assert (await world.reasons(one)).count("The Hub is away.") == 1
    assert (await world.reasons(other)).count("The Hub is back.") == 1


async def test_an_invitation_of_who_is_gone_ends_once(world: World) -> None:
    got = await world.reserve()
    await invite(world, got, "grace")
    await sharing.gone(world.ctx, got.id, "linus")
    for _ in range(2):
        await sharing.gone(world.ctx, got.id, "grace")
    assert await shared_with(world, "grace") == []
    said = [reason for reason in await world.reasons(got) if "no user" in reason]
    assert said == ["The Hub has no user grace any more; the invitation has ended."]


async def test_an_end_that_is_nearer_takes_the_place_of_the_one_before(world: World) -> None:
    got = await world.reserve(hours=3)
    for hours in (2, 1):
        (one,) = await invite(world, got, "grace", until=START + hours * HOUR)
        assert one.until == START + hours * HOUR


def test_an_invitation_stands_until_its_end() -> None:
    there = [Invitation("ken", "use"), Invitation("grace", "view", START)]
    assert sharing.standing(there, "ken", START + HOUR) == there[0]
    assert sharing.standing(there, "grace", START - HOUR) == there[1]
    assert sharing.standing(there, "grace", START) is None
    assert sharing.standing(there, "ada", START) is None


async def test_who_looks_on_is_not_invited_to_use_it(world: World) -> None:
    """Where somebody's keys changed, servers are told that they let in."""
    used, seen = await world.reserve("ada", "t4"), await world.reserve("ada", "t4")
    await invite(world, used, "grace")
    await invite(world, seen, "grace", "view")

    async def found(**role: str) -> set[str]:
        there = sharing.invited("grace", world.clock.now(), **role)
        async with world.ctx.store.reading() as session:
            return set(await session.scalars(select(ReservationRow.id).where(there)))

    assert await found() == {used.id, seen.id}
    assert await found(role="use") == {used.id}
    assert await found(role="view") == {seen.id}


async def test_what_concerns_somebody_is_theirs_or_was_shared_with_them(world: World) -> None:
    own, other, shared, left = [await world.reserve(user, "t4") for user in ("grace", *3 * ["ada"])]
    for each in (shared, left):
        await invite(world, each, "grace")
    await sharing.remove(world.ctx, left.id, "grace", ADA)
    await invite(world, other, "linus")
    async with world.ctx.store.reading() as session:
        theirs = select(ReservationRow.id).where(rows.concerns({"grace"}))
        found = set(await session.scalars(theirs))
    assert found == {own.id, shared.id, left.id}
