"""The Hub's shares follow the collaborators, whatever is killed when; on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from gpudev_client.models import CollaboratorRequest, Reservation, ServerReport
from gpudev_service.actor import Actor
from gpudev_service.hub import Hub, HubAway, HubRefused
from gpudev_service.loops import driving, shares
from gpudev_service.operations import reservations, servers, sharing
from gpudev_service.store.models import CollaboratorRow, ReservationRow
from tests.fixtures.world import START, World

ADA = Actor("ada")


class Crash(BaseException):
    """The service is killed."""


class SharingHub(Hub):
    """Keeps shares as the Hub does; goes away, or takes the service with it after its answer."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/hub/api", "t", patience=0.5)
        self.known: set[tuple[str, str, str]] = set()
        self.away = self.killing = False
        self.refusing = False
        self.gone: set[str] = set()
        self.asked = self.tried = 0

    async def share(self, owner: str, name: str, user: str) -> None:
        self._troubled()
        self.asked += 1
        if self.refusing or user in self.gone:
            raise HubRefused(400, "No such user")
        self.known.add((owner, name, user))
        self._kill()

    async def groups(self, user: str) -> tuple[str, ...] | None:
        self._troubled()
        return None if user in self.gone else ()

    async def unshare(self, owner: str, name: str, user: str) -> None:
        self._troubled()
        self.asked += 1
        if self.refusing:
            raise HubRefused(403, "Missing scopes")
        self.known.discard((owner, name, user))
        self._kill()

    async def shares(self, owner: str, name: str) -> frozenset[str]:
        self._troubled()
        return frozenset(user for of, at, user in self.known if (of, at) == (owner, name))

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        self._troubled()

    async def remove(self, user: str, name: str) -> None:
        self._troubled()

    def _troubled(self) -> None:
        self.tried += 1
        if self.away:
            raise HubAway("ConnectError")

    def _kill(self) -> None:
        if self.killing:
            raise Crash


@pytest.fixture
def hub(world: World, monkeypatch: pytest.MonkeyPatch) -> SharingHub:
    monkeypatch.setattr(driving, "PAUSE", 0.0)
    world.ctx.hub = found = SharingHub()
    return found


async def invite(world: World, to: Reservation, user: str = "grace", role: str = "use") -> None:
    request = CollaboratorRequest.model_validate({"role": role})
    await sharing.invite(world.ctx, to.id, user, request, ADA)


async def round_of(world: World) -> None:
    await shares.run(world.ctx)
    await world.ctx.background.settle()


async def shared(world: World) -> Reservation:
    """A lease of ada's whose server the Hub shares with grace."""
    got = await world.running(await world.reserve())
    await invite(world, got)
    await round_of(world)
    return got


async def left(world: World) -> int:
    async with world.ctx.store.reading() as session:
        return await session.scalar(select(func.count()).select_from(CollaboratorRow)) or 0


async def test_a_share_comes_and_goes_with_the_invitation(world: World, hub: SharingHub) -> None:
    got = await world.running(await world.reserve())
    await invite(world, got)
    await invite(world, got, "linus", "view")
    await round_of(world)
    assert hub.known == {("ada", got.id, "grace")}
    await sharing.remove(world.ctx, got.id, "grace", ADA)
    await round_of(world)
    assert hub.known == set()
    await round_of(world)
    assert await left(world) == 1, "who was removed is forgotten"


async def test_an_invitation_before_the_lease_waits_for_the_server(
    world: World, hub: SharingHub
) -> None:
    got = await world.reserve()
    await invite(world, got)
    await round_of(world)
    assert hub.known == set(), "the Hub has no row of the server yet"
    said = ServerReport(status="starting", handle={"kind": "process", "pid": 1, "created": 1.0})
    await servers.report(world.ctx, got.id, Actor("spawner"), said)
    await round_of(world)
    assert hub.known == {("ada", got.id, "grace")}


async def test_a_role_that_sinks_closes_the_server(world: World, hub: SharingHub) -> None:
    got = await shared(world)
    await invite(world, got, role="view")
    await round_of(world)
    assert hub.known == set()
    await invite(world, got)
    await round_of(world)
    assert hub.known == {("ada", got.id, "grace")}


async def test_the_end_of_an_invitation_and_of_a_lease(world: World, hub: SharingHub) -> None:
    got = await world.running(await world.reserve())
    until = START + timedelta(minutes=10)
    request = CollaboratorRequest(until=until)
    await sharing.invite(world.ctx, got.id, "grace", request, ADA)
    await invite(world, got, "linus")
    sweep = timedelta(seconds=world.ctx.settings.times.sweep)
    assert await shares.run(world.ctx) == START + sweep, "there is something to do"
    await world.ctx.background.settle()
    assert await shares.run(world.ctx) == until
    assert {user for _, _, user in hub.known} == {"grace", "linus"}
    world.clock.pass_time(minutes=10)
    await round_of(world)
    assert {user for _, _, user in hub.known} == {"linus"}
    await reservations.cancel(world.ctx, got.id, ADA)
    await round_of(world)
    assert hub.known == set(), "before the server is stopped"
    await world.sweep()
    assert [one.user for one in (await world.look(got)).collaborators] == ["linus"]


async def test_a_hub_that_is_away_is_asked_again(world: World, hub: SharingHub) -> None:
    got = await world.running(await world.reserve())
    await invite(world, got)
    hub.away = True
    await round_of(world)
    hub.away = False
    world.clock.pass_time(seconds=1)
    await round_of(world)
    assert hub.known == {("ada", got.id, "grace")}
    await sharing.remove(world.ctx, got.id, "grace", ADA)
    hub.away = True
    await round_of(world)
    hub.away = False
    world.clock.pass_time(seconds=1)
    await round_of(world)
    assert hub.known == set()


async def test_a_hub_that_stays_away_is_asked_less_and_less_by_one_pause_for_all(
    world: World, hub: SharingHub
) -> None:
    got = await world.running(await world.reserve(hours=4))
    for user in ("grace", "linus"):
        await invite(world, got, user)
    hub.away, before = True, hub.tried
    for _ in range(120):
        due = await shares.run(world.ctx)
        await world.ctx.background.settle()
        assert due is None or due - world.clock.now() <= timedelta(seconds=8)
        world.clock.pass_time(seconds=1)
    # At 0, 1, 3, 7 seconds and then every 8, for each of two people.
    assert hub.tried - before == 2 * (4 + 14)
    hub.away = False
    world.clock.pass_time(seconds=8)
    await round_of(world)
    assert {user for _, _, user in hub.known} == {"grace", "linus"}


async def test_a_refusal_stops_nobody_else(world: World, hub: SharingHub) -> None:
    got = await world.running(await world.reserve())
    await invite(world, got)
    hub.refusing = True
    await round_of(world)
    hub.refusing = False
    await invite(world, got, "linus")
    await round_of(world)
    assert {user for _, _, user in hub.known} == {"linus"}
    world.clock.pass_time(seconds=1)
    await round_of(world)
    assert {user for _, _, user in hub.known} == {"grace", "linus"}


async def test_what_the_hub_refuses_is_asked_less_and_less_and_the_owner_is_told_once(
    world: World, hub: SharingHub
) -> None:
    got = await world.running(await world.reserve(hours=4))
    await invite(world, got)
    hub.refusing = True
    for removed, word in ((False, "to let grace in"), (True, "to take back that grace")):
        hub.asked = 0
        if removed:
            await sharing.remove(world.ctx, got.id, "grace", ADA)
        for _ in range(600):
            await round_of(world)
            world.clock.pass_time(seconds=1)
        assert hub.asked == 15, "at once, then with pauses up to a minute"
        told = [one for one in await world.reasons(got) if one.startswith("The Hub refuses")]
        assert [word in one for one in told] == [False] * removed + [True]
    hub.refusing = False
    world.clock.pass_time(seconds=60)
    await round_of(world)
    assert await left(world) == 0


async def test_the_owner_is_told_of_a_refusal_that_lasts(world: World, hub: SharingHub) -> None:
    got = await world.running(await world.reserve(hours=4))
    await invite(world, got)
    hub.refusing = True
    told: list[int] = []
    while hub.asked < 5:
        await round_of(world)
        world.clock.pass_time(seconds=1)
        if [one for one in await world.reasons(got) if one.startswith("The Hub refuses")]:
            told.append(hub.asked)
    assert told[0] == 3, "fewer may be a moment's"


async def test_an_invitation_of_a_user_who_is_gone_at_the_hub_ends(
    world: World, hub: SharingHub
) -> None:
    got = await shared(world)
    # Deleted at the Hub, and their shares with them.
    hub.gone.add("grace")
    hub.known.clear()
    await shares.compare(world.ctx)
    await round_of(world)
    assert (await world.look(got)).collaborators == []
    assert await left(world) == 0
    hub.asked = 0
    await round_of(world)
    assert hub.asked == 0
    said = "The Hub has no user grace any more; the invitation has ended."
    assert (await world.reasons(got)).count(said) == 1


@pytest.mark.parametrize("removing", [False, True])
async def test_a_service_that_is_killed_forgets_no_share(
    world: World, hub: SharingHub, removing: bool
) -> None:
    got = await world.running(await world.reserve())
    await invite(world, got)
    if removing:
        await round_of(world)
        await sharing.remove(world.ctx, got.id, "grace", ADA)
    hub.killing = True
    with pytest.raises(Crash):
        await shares._settle(world.ctx, (got.id, "grace"))
    hub.killing = False
    if not removing:
        # Made, but nobody has written down that it was: now it must be found again.
        assert hub.known == {("ada", got.id, "grace")}
        await sharing.remove(world.ctx, got.id, "grace", ADA)
    await round_of(world)
    assert hub.known == set()
    await round_of(world)
    assert await left(world) == 0


async def test_a_hub_that_has_lost_a_share_gets_it_again(world: World, hub: SharingHub) -> None:
    got = await shared(world)
    hub.known.clear()
    await round_of(world)
    assert hub.known == set()
    await shares.compare(world.ctx)
    await round_of(world)
    assert hub.known == {("ada", got.id, "grace")}
    hub.away = True
    await shares.compare(world.ctx)
    hub.away = False
    assert await hub.shares("ada", got.id) == {"grace"}


async def test_a_step_that_is_not_needed_any_more_is_not_taken(
    world: World, hub: SharingHub
) -> None:
    """Between the look of the loop and its step somebody else may have been there."""
    got = await shared(world)
    asked = hub.asked
    await shares._settle(world.ctx, (got.id, "grace"))
    await shares._settle(world.ctx, (got.id, "nobody"))
    await shares._revoked(world.ctx, (got.id, "nobody"))
    assert hub.asked == asked
    assert await left(world) == 1


async def test_only_a_share_that_the_hub_has_lost_is_made_again(
    world: World, hub: SharingHub
) -> None:
    got = await world.running(await world.reserve())
    for user in ("grace", "linus"):
        await invite(world, got, user)
    await round_of(world)
    await invite(world, got, "edsger")  # nobody has made it yet
    hub.known.discard(("ada", got.id, "linus"))
    await shares.compare(world.ctx)
    await round_of(world)
    assert {user for _, _, user in hub.known} == {"grace", "linus", "edsger"}
    assert hub.asked == 4


async def test_what_is_written_down_of_a_share_is_what_follows_from_before(
    world: World, hub: SharingHub
) -> None:
    """Another step may have come before: then it is that one's."""
    got = await shared(world)
    key = (got.id, "grace")

    async def marked(share: str, before: str) -> str:
        async with world.ctx.store.transaction() as session:
            (await session.get_one(CollaboratorRow, key)).share = share
        await shares._mark(world.ctx, key, before, "making")
        async with world.ctx.store.reading() as session:
            return (await session.get_one(CollaboratorRow, key)).share

    assert await marked("no", "no") == "making"
    assert await marked("yes", "yes") == "making"
    assert await marked("yes", "no") == "yes"
    assert await marked("no", "yes") == "no"
    await shares._mark(world.ctx, (got.id, "nobody"), "no", "making")


MAKE, REVOKE, FORGET = shares.Step.MAKE, shares.Step.REVOKE, shares.Step.FORGET


@pytest.mark.parametrize(
    ("state", "handle", "values", "expected"),
    [
        # Who may use a server gets a share once the Hub has it.
        ("queued", False, {}, None),
        ("preparing", False, {}, None),
        ("preparing", True, {}, MAKE),
        ("active", False, {}, MAKE),
        ("active", True, {"share": "making"}, MAKE),
        ("active", True, {"share": "yes"}, None),
        ("active", True, {"role": "view"}, None),
        # It is taken back when the invitation or the lease is over, or the role sinks.
        ("active", True, {"role": "view", "share": "yes"}, REVOKE),
        ("active", True, {"role": "view", "share": "making"}, REVOKE),
        ("active", True, {"share": "yes", "removed_at": START}, REVOKE),
        ("active", True, {"share": "yes", "until": START}, REVOKE),
        ("active", True, {"share": "yes", "until": START + timedelta(seconds=1)}, None),
        ("active", True, {"share": "yes", "until": START - timedelta(seconds=1)}, REVOKE),
        ("active", True, {"until": START}, None),
        ("stopping", True, {"share": "yes"}, REVOKE),
        ("expired", True, {"share": "making"}, REVOKE),
        ("stopping", True, {}, None),
        # One that a server of before had stays until its next start, which needs it again.
        ("preparing", False, {"share": "yes"}, None),
        ("preparing", False, {"share": "yes", "role": "view"}, REVOKE),
        # Who was removed is forgotten when there is no share.
        ("active", True, {"removed_at": START}, FORGET),
        ("queued", False, {"removed_at": START}, FORGET),
        ("cancelled", False, {"removed_at": START, "share": "yes"}, REVOKE),
    ],
)
def test_what_is_to_be_done_next(
    state: str, handle: bool, values: dict[str, Any], expected: shares.Step | None
) -> None:
    row = CollaboratorRow(**{"share": "no", **values})
    # As a database gives it: no constant of this program.
    row.role = "".join(list(values.get("role", "use")))
    reservation = ReservationRow(state=state, server_handle={"kind": "pod"} if handle else None)
    assert shares.step(row, reservation, START) is expected


async def test_with_nothing_to_do_the_loop_waits_for_the_next_end_of_an_invitation(
    world: World, hub: SharingHub
) -> None:
    assert await shares.run(world.ctx) is None
    got = await shared(world)
    assert await shares.run(world.ctx) is None
    until = START + timedelta(minutes=10)
    await sharing.invite(world.ctx, got.id, "grace", CollaboratorRequest(until=until), ADA)
    assert await shares.run(world.ctx) == until
    # While the Hub is away its pause ends first, or the invitation does.
    hub.away = True
    await invite(world, got, "linus")
    await round_of(world)
    assert await shares.run(world.ctx) == START + timedelta(seconds=1)
    world.clock.pass_time(minutes=9, seconds=59)
    await round_of(world)
    assert await shares.run(world.ctx) == until


async def test_a_hub_that_shows_no_shares_has_lost_none(
    world: World, hub: SharingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = await shared(world)

    async def refuse(owner: str, name: str) -> frozenset[str]:
        raise HubRefused(403, "Missing scopes")

    monkeypatch.setattr(hub, "shares", refuse)
    asked = hub.asked
    await shares.compare(world.ctx)
    await round_of(world)
    assert hub.asked == asked
    assert hub.known == {("ada", got.id, "grace")}
