"""Who may use a route, and who calls, without a Hub: what a table of all routes does not reach."""

from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError, fields, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError, RequestHandler

from gpudev_client.models import CollaboratorRequest, Role
from gpudev_service.actor import Actor
from gpudev_service.api import access
from gpudev_service.api.auth import KNOWN_FOR, Authenticator, Caller
from gpudev_service.api.people import People
from gpudev_service.api.permissions import PREFIX, read_scopes
from gpudev_service.api.ratelimit import RateLimit
from gpudev_service.api.route import Access
from gpudev_service.errors import Refusal
from gpudev_service.events import Owner
from gpudev_service.operations import sharing
from tests.fixtures.world import World

#: Whoever is let in at all holds this.
OWN = f"{PREFIX}own"


def caller(name: str, *scopes: str, kind: str = "user") -> Caller:
    return Caller(name, kind, (), frozenset(scopes), read_scopes(scopes))


@pytest.mark.parametrize(
    ("scope", "may"),
    [(access.HUB_METRICS_SCOPE, True), (f"{PREFIX}admin", True), (f"{PREFIX}reserve", False)],
)
def test_metrics_are_for_those_who_read_the_hubs(scope: str, may: bool) -> None:
    if may:
        access.check_caller(Access.METRICS, caller("ada", scope))
        return
    with pytest.raises(Refusal, match="admin") as refused:
        access.check_caller(Access.METRICS, caller("ada", scope))
    assert refused.value.code == "not_allowed"


def test_what_is_public_asks_for_nothing() -> None:
    access.check_caller(Access.PUBLIC, caller("ada"))
    with pytest.raises(Refusal, match=f"{PREFIX}read"):
        access.check_caller(Access.READ, caller("ada"))


def test_keys_are_a_matter_of_the_person_and_the_scope() -> None:
    def whose(who: Caller, user: str) -> Owner:
        return access.same_person(Access.PERSON_WRITE, who, user)

    whole = caller("ada", f"{PREFIX}reserve!user=ada")
    assert whose(whole, "ada") == whole.owner
    assert whose(caller("root", f"{PREFIX}admin"), "ada") == Owner("ada", ())
    with pytest.raises(Refusal, match=f"{PREFIX}reserve"):
        whose(caller("ada", f"{PREFIX}reserve!server=ada/x"), "ada")
    for other in (whole, caller("grace", f"{PREFIX}reserve", kind="service")):
        with pytest.raises(Refusal) as refused:
            whose(other, "grace")
        assert (refused.value.code, refused.value.field) == ("not_allowed", "user")


def test_a_service_and_a_user_of_one_name_are_told_apart() -> None:
    service = caller("ada", kind="service")
    assert (service.key, service.owner) == ("service:ada", Owner("service:ada", ()))
    user = replace(caller("ada"), groups=("lab",))
    assert (user.key, user.owner) == ("ada", Owner("ada", ("lab",)))


@pytest.mark.parametrize(
    ("kind", "scope", "acts"),
    [("service", "spawner", True), ("user", "spawner", False), ("service", "admin", False)],
)
def test_only_the_hubs_spawner_acts_for_others(kind: str, scope: str, acts: bool) -> None:
    assert caller("hub", f"{PREFIX}{scope}", kind=kind).acts_for_others is acts


async def test_who_may_act_for_a_group_may_for_its_members() -> None:
    class Told:
        async def groups(self, user: str) -> tuple[str, ...]:
            return {"grace": ("lab",), "linus": ("other",)}[user]

    leader, people = caller("ada", f"{PREFIX}reserve!group=lab"), cast("People", Told())
    found = await access.person(people, Access.CREATE, leader, "grace")
    assert found == Owner("grace", ("lab",))
    with pytest.raises(Refusal, match="for that user"):
        await access.person(people, Access.CREATE, leader, "linus")


async def test_a_service_says_for_whom() -> None:
    service = caller("bot", f"{PREFIX}reserve", kind="service")
    nobody = cast("People", None)
    with pytest.raises(Refusal) as refused:
        await access.person(nobody, Access.CREATE, service, None)
    assert (refused.value.code, refused.value.field) == ("invalid_input", "user")
    assert await access.person(nobody, Access.CREATE, service, "ada") == Owner("ada", ())


@pytest.mark.parametrize(
    ("scope", "code", "says"),
    [
        ("reserve!user=grace", "not_found", "disk"),
        ("read", "not_allowed", "for that user"),
    ],
)
async def test_a_disk_of_another_is_not_there_unless_it_may_be_seen(
    scope: str, code: str, says: str
) -> None:
    who, nobody = caller("grace", f"{PREFIX}{scope}"), cast("People", None)
    with pytest.raises(Refusal, match=says) as refused:
        await access.person(nobody, Access.DISK_WRITE, who, "ada", named="work")
    assert refused.value.code == code


async def test_ones_own_disk_needs_the_scope() -> None:
    who, nobody = caller("ada", f"{PREFIX}read!user=ada"), cast("People", None)
    assert await access.person(nobody, Access.DISK_READ, who, "ada", named="work") == who.owner
    with pytest.raises(Refusal, match=f"{PREFIX}reserve") as refused:
        await access.person(nobody, Access.DISK_WRITE, who, "ada", named="work")
    assert refused.value.code == "not_allowed"


async def test_who_may_see_everything_changes_nothing_of_others(world: World) -> None:
    got = await world.reserve("ada")
    for who, says in (
        (caller("root", f"{PREFIX}read"), f"{PREFIX}reserve"),
        (caller("ada", f"{PREFIX}read!user=ada"), f"{PREFIX}reserve"),
    ):
        with pytest.raises(Refusal, match=says) as refused:
            await access.reservation_owner(world.ctx, Access.RESERVATION_WRITE, who, got.id)
        assert refused.value.code == "not_allowed"
    guest = caller("grace", f"{PREFIX}reserve!user=grace")
    for key in (got.id, "not-there"):
        with pytest.raises(Refusal) as refused:
            await access.reservation_owner(world.ctx, Access.RESERVATION_WRITE, guest, key)
        assert refused.value.code == "not_found"


@pytest.mark.parametrize(("role", "enters"), [("use", True), ("view", False)])
async def test_who_only_looks_on_does_not_enter(world: World, role: Role, enters: bool) -> None:
    got = await world.reserve("ada")
    invitation = CollaboratorRequest(role=role)
    await sharing.invite(world.ctx, got.id, "grace", invitation, Actor("ada"))
    grace = caller("grace", f"{PREFIX}reserve!user=grace")
    if enters:
        owner = await access.reservation_owner(world.ctx, Access.CONNECT, grace, got.id)
        assert owner.user == "ada"
        return
    with pytest.raises(Refusal, match="Ask the owner to invite you") as refused:
        await access.reservation_owner(world.ctx, Access.CONNECT, grace, got.id)
    assert refused.value.code == "not_allowed"


@pytest.mark.parametrize(
    ("more", "says"),
    [([], "Only the owner of this reservation"), ([f"{PREFIX}read"], f"{PREFIX}reserve")],
)
async def test_a_guest_is_told_what_they_lack(world: World, more: list[str], says: str) -> None:
    """To see it by a scope of one's own is to be told of scopes."""
    got = await world.reserve("ada")
    await sharing.invite(world.ctx, got.id, "grace", CollaboratorRequest(), Actor("ada"))
    grace = caller("grace", f"{PREFIX}reserve!user=grace", *more)
    with pytest.raises(Refusal, match=says) as refused:
        await access.reservation_owner(world.ctx, Access.RESERVATION_WRITE, grace, got.id)
    assert refused.value.code == "not_allowed"


@pytest.mark.parametrize("name", ["abe", "ada", "zoe"])
async def test_one_enters_ones_own_and_nobody_elses(world: World, name: str) -> None:
    """Neither does whoever may do everything but that, nor a token of another kind."""
    got = await world.reserve("ada")
    mine = caller(name, f"{PREFIX}reserve!user={name}", f"{PREFIX}read")
    if name == "ada":
        assert (
            await access.reservation_owner(world.ctx, Access.CONNECT, mine, got.id)
        ).user == name
        mine = caller(name, f"{PREFIX}reserve!user={name}", f"{PREFIX}read", kind="service")
    with pytest.raises(Refusal) as refused:
        await access.reservation_owner(world.ctx, Access.CONNECT, mine, got.id)
    assert refused.value.code == "not_allowed"


def test_what_somebody_may_do_cannot_be_changed() -> None:
    grants = read_scopes([f"{PREFIX}own"])
    with pytest.raises(FrozenInstanceError):
        setattr(grants, fields(grants)[0].name, ())


class Hub:
    """A Hub that knows every token that does not begin with "x", and may be away."""

    access_scopes = frozenset({OWN})

    def __init__(self) -> None:
        self.away: Exception | None = None
        self.hangs = False
        self.scopes = [OWN]

    def get_token(self, handler: Any, *, in_cookie: bool = True) -> str:
        return str(handler.token or (in_cookie and handler.cookie) or "")

    def check_xsrf_cookie(self, handler: Any) -> None:
        if not handler.has_header:
            raise HTTPError(403, "'_xsrf' argument missing")

    def get_session_id(self, handler: Any) -> str:
        return ""

    async def user_for_token(self, token: str, **_: Any) -> dict[str, Any] | None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.away is not None:
            raise self.away
        return None if token.startswith("x") else {"name": "ada", "scopes": self.scopes}


class Asking:
    def __init__(self, *, patience: float = 60.0) -> None:
        self.hub, self.now = Hub(), 0.0
        self._authenticator = Authenticator(
            cast("HubOAuth", self.hub),
            RateLimit(0.001, 1, lambda: self.now),
            patience=patience,
            time=lambda: self.now,
        )

    async def __call__(self, token: str = "", *, cookie: str = "", has_header: bool = False) -> str:
        """Who that is, or the code of the refusal."""
        request = SimpleNamespace(
            token=token,
            cookie=cookie,
            has_header=has_header,
            request=SimpleNamespace(remote_ip="192.0.2.1"),
        )
        try:
            return (await self._authenticator.caller(cast("RequestHandler", request))).name
        except Refusal as refusal:
            return refusal.code


async def test_nobody_is_believed_while_the_hub_cannot_be_asked() -> None:
    ask = Asking()
    assert await ask("good") == "ada"
    ask.hub.away = HTTPError(500, "a secret of the Hub's")
    assert await ask("good") == "unavailable"
    ask.hub.away = None
    assert await ask("good") == "ada"


async def test_a_cookie_counts_with_the_header_that_only_our_pages_can_send() -> None:
    ask = Asking()
    assert await ask() == "not_authenticated"
    assert await ask(cookie="good", has_header=True) == "ada"
    assert await ask(cookie="good") == "not_allowed"
    assert await ask("good", cookie="good") == "ada"


@pytest.mark.parametrize("token", ["a" * 513, "caf\u00e9", "a\x7fb"])
async def test_what_no_hub_makes_is_not_sent_to_it(token: str) -> None:
    ask = Asking()
    ask.hub.away = AssertionError("it was asked")
    assert await ask(token) == "not_authenticated"


async def test_a_token_without_any_of_our_scopes_is_not_let_in() -> None:
    ask = Asking()
    ask.hub.scopes = ["read:users"]
    assert await ask("good") == "not_allowed"


async def test_a_hub_that_hangs_is_not_waited_for_without_an_end() -> None:
    ask = Asking(patience=0.01)
    ask.hub.hangs = True
    assert await ask("good") == "unavailable"


async def test_whom_the_hub_once_knew_is_asked_about_at_an_address_of_many_wrong_tokens() -> None:
    ask = Asking()
    assert await ask("good") == "ada"
    assert await ask("x1") == "not_authenticated"
    assert await ask("x2") == await ask("other") == "too_many_requests"
    assert await ask("good") == "ada"
    ask.now = KNOWN_FOR
    assert await ask("good") == "too_many_requests"


async def test_only_so_many_are_remembered() -> None:
    ask = Asking()
    for number in range(10_001):
        await ask(f"good{number}")
    assert await ask("x") == "not_authenticated"
    assert await ask("good0") == "too_many_requests"
    assert await ask("good1") == await ask("good10000") == "ada"
