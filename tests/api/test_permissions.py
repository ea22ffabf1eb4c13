"""What scopes grant: a table, and what no scope may ever do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_service.api import access
from gpudev_service.api.auth import Caller
from gpudev_service.api.permissions import PREFIX, Grants, Right, read_scopes
from gpudev_service.events import Invitation, Owner

ADA = Owner("ada", ("lab",), "x")
ADA_OTHER_SERVER = Owner("ada", ("lab",), "y")
ADA_HERSELF = Owner("ada", ("lab",))
SAM = Owner("sam", (), "x")

R, W, C, DR, DW, SSH, LAB, L, A = (
    Right.READ, Right.WRITE, Right.CREATE, Right.DISK_READ, Right.DISK_WRITE, Right.CONNECT,
    Right.LAB, Right.LAUNCH, Right.ADMIN,
)  # fmt: skip
RESERVE = {R, W, C, DR, DW, SSH}

TABLE = [
    # (scope after the prefix, owner, rights)
    ("read", SAM, {R, DR}),
    ("read!user=ada", ADA, {R, DR}),
    ("read!user=ada", SAM, set()),
    ("reserve", SAM, RESERVE),
    ("reserve!user=ada", ADA, RESERVE),
    ("reserve!user=ada", ADA_HERSELF, RESERVE),
    ("reserve!user=ada", SAM, set()),
    ("reserve!user=ad", ADA, set()),
    ("reserve!user=ADA", ADA, set()),
    ("reserve!group=lab", ADA, RESERVE),
    ("reserve!group=lab", SAM, set()),
    ("reserve!group=la", ADA, set()),
    ("reserve!server=ada/x", ADA, {R, W}),
    ("reserve!server=ada/x", ADA_OTHER_SERVER, set()),
    ("reserve!server=ada/x", ADA_HERSELF, set()),
    ("reserve!server=ada/x", SAM, set()),
    ("reserve!server=ada/", Owner("ada", (), ""), {R, W}),
    ("reserve!server=ada/", ADA_HERSELF, set()),
    ("reserve!server=ada", ADA, set()),
    ("lab", SAM, {R, LAB}),
    ("lab!user=ada", ADA, {R, LAB}),
    ("lab!user=ada", SAM, set()),
    ("lab!server=ada/x", ADA, {R, LAB}),
    ("lab!server=ada/x", ADA_OTHER_SERVER, set()),
    ("lab!server=ada/x", ADA_HERSELF, set()),
    ("lab!server=ada/x", SAM, set()),
    ("spawner", ADA, {R, W, C, DR, L}),
    ("spawner!user=ada", SAM, set()),
    ("admin", ADA, RESERVE | {LAB, L, A}),
    ("admin!user=ada", ADA, RESERVE | {LAB, L}),
    ("admin!user=ada", SAM, set()),
    ("admin!group=lab", ADA, RESERVE | {LAB, L}),
    ("admin!server=ada/x", ADA, {R, W, LAB, L}),
    # What cannot be read grants nothing, and is never taken for the unfiltered scope.
    ("reserve!user", ADA, set()),
    ("reserve!user=", ADA, set()),
    ("reserve!", ADA, set()),
    ("reserve!group=", Owner("ada", ("",)), set()),
    ("reserve!colour=red", ADA, set()),
    ("Reserve", ADA, set()),
    ("reserve2", ADA, set()),
    ("", ADA, set()),
    ("own", ADA, set()),
]


@pytest.mark.parametrize(("scope", "owner", "rights"), TABLE)
def test_what_a_scope_grants(scope: str, owner: Owner, rights: set[Right]) -> None:
    grants = read_scopes([PREFIX + scope])
    assert {right for right in Right if grants.may(right, owner)} == rights


def test_grants_add_up() -> None:
    grants = read_scopes(["custom:gpudev:read!user=ada", "custom:gpudev:reserve!server=sam/x"])
    assert grants.may(R, ADA)
    assert not grants.may(W, ADA)
    assert grants.may(W, SAM)
    assert not grants.may(DR, Owner("sam", ()))


@pytest.mark.parametrize(
    "scope",
    ["admin:users", "servers", "custom:gpudev", "custom:other:admin", "xcustom:gpudev:admin",
     "inherit", "self", "admin-ui", "*"],
)  # fmt: skip
def test_scopes_of_others_grant_nothing(scope: str) -> None:
    assert not read_scopes([scope])


def test_only_the_unfiltered_admin_is_admin_of_the_fleet() -> None:
    assert read_scopes(["custom:gpudev:admin"]).everywhere(A)
    for narrowed in ("!user=ada", "!group=lab", "!server=ada/x"):
        grants = read_scopes([f"custom:gpudev:admin{narrowed}"])
        assert not grants.everywhere(A)
        assert not grants.somewhere(A)


FILTERS = st.one_of(
    st.just(""),
    st.builds("!{}={}".format, st.sampled_from(["user", "group", "server"]), st.text(max_size=9)),
)
NAMES = st.sampled_from(["read", "reserve", "lab", "spawner", "admin"])


@given(NAMES, FILTERS, st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3),
       st.none() | st.text(max_size=5))  # fmt: skip
def test_a_filter_never_grants_more_than_the_scope_without_it(
    name: str, narrowed: str, user: str, groups: list[str], server: str | None
) -> None:
    owner = Owner(user, tuple(groups), server)
    whole = read_scopes([PREFIX + name])
    part = read_scopes([PREFIX + name + narrowed])
    for right in Right:
        assert whole.may(right, owner) or not part.may(right, owner)
    if narrowed:
        assert not any(part.everywhere(right) for right in Right)


def test_no_scopes_no_rights() -> None:
    assert not Grants()
    assert not any(Grants().may(right, ADA) for right in Right)


PEOPLE = st.sampled_from(["ada", "grace", "linus"])
GROUPS = st.lists(st.sampled_from(["lab", "ml"]), max_size=2).map(tuple)
SCOPES = st.builds(
    "{}{}{}".format,
    st.just(PREFIX),
    st.sampled_from(["read", "reserve", "lab"]),
    st.sampled_from(["", "!user=ada", "!user=grace", "!group=lab", "!server=grace/x"]),
)
INVITED = st.lists(st.builds(Invitation, PEOPLE, st.sampled_from(["use", "view"])), max_size=2)
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@given(PEOPLE, st.sampled_from(["user", "service"]), GROUPS, st.lists(SCOPES, max_size=2),
       PEOPLE, INVITED)  # fmt: skip
def test_whoever_may_see_something_is_asked_about_it(
    name: str,
    kind: str,
    groups: tuple[str, ...],
    scopes: list[str],
    user: str,
    invited: list[Invitation],
) -> None:
    caller = Caller(name, kind, groups, frozenset(scopes), read_scopes(scopes))
    owner = Owner(user, ("lab",), "x", tuple(invited))
    interest = access.interest(caller)
    asked = interest is None or interest & {user, *(one.user for one in invited)}
    assert asked or not access.may_see(caller, owner, NOON)


def test_whose_a_right_is_narrowed_to_is_told_by_the_right() -> None:
    """Lists are narrowed to these: a scope for somebody that lacks the right names nobody."""
    grants = read_scopes(
        f"{PREFIX}{scope}"
        for scope in (
            "read!user=ada", "reserve!user=grace", "read!group=lab", "reserve!group=team",
            "read!server=ada/x", "lab!server=sam/y", "read",
        )
    )  # fmt: skip
    assert grants.users(Right.DISK_WRITE) == {"grace"}
    assert grants.users(Right.DISK_READ) == {"ada", "grace"}
    assert grants.groups(Right.DISK_WRITE) == {"team"}
    assert grants.groups(Right.DISK_READ) == {"lab", "team"}
    assert grants.servers(Right.LAB) == {("sam", "y")}
    assert grants.servers(Right.READ) == {("ada", "x"), ("sam", "y")}
