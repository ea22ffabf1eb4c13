"""Who may do what, decided by scopes alone: pure functions over what the Hub says of a token.

A scope of gpudev is `custom:gpudev:NAME`, alone (everybody's) or with one filter: `!user=ada`,
`!group=lab` (what belongs to owners who were in that Hub group), `!server=ada/x` (the reservation
of ada whose server is x, and nothing else: no disks, no new reservations). The caller's name never
decides: a server's token looks like its owner and may do far less.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from gpudev_service.events import Owner

PREFIX = "custom:gpudev:"
#: What the Hub's spawner holds, and nobody else.
SPAWNER = f"{PREFIX}spawner"


class Right(StrEnum):
    """What can be granted on one owner's things."""

    READ = "read"  # see reservations
    WRITE = "write"  # cancel and extend them
    CREATE = "create"  # reserve for that user
    DISK_READ = "disk_read"
    DISK_WRITE = "disk_write"
    CONNECT = "connect"  # enter servers by SSH
    LAB = "lab"  # what the server itself has to know and to say
    LAUNCH = "launch"  # start and report servers: the Hub's spawner
    ADMIN = "admin"


_READING = frozenset({Right.READ, Right.DISK_READ})
_RESERVING = _READING | {Right.WRITE, Right.CREATE, Right.DISK_WRITE, Right.CONNECT}

#: What each scope grants. A scope that is not here grants nothing.
SCOPES: dict[str, frozenset[Right]] = {
    "read": _READING,
    "reserve": _RESERVING,
    "lab": frozenset({Right.READ, Right.LAB}),
    # The spawner shows a user's disks in the form and must not touch them.
    "spawner": frozenset({Right.READ, Right.WRITE, Right.CREATE, Right.DISK_READ, Right.LAUNCH}),
    "admin": _RESERVING | {Right.LAB, Right.LAUNCH, Right.ADMIN},
}

#: What remains of a scope that is narrowed to one server.
_ON_ONE_SERVER = frozenset({Right.READ, Right.WRITE, Right.LAB, Right.LAUNCH})


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights on everybody's things (no filter) or on those that match the one filter that is set.
    `server` is (user, server name)."""

    rights: frozenset[Right]
    user: str | None = None
    group: str | None = None
    server: tuple[str, str] | None = None

    @property
    def everybody(self) -> bool:
        return self.user is None and self.group is None and self.server is None

    def covers(self, owner: Owner) -> bool:
        """Whether the filter lets `owner`'s things through."""
        if self.server is not None:
            # An owner without a server name is a person or a disk, never a reservation.
            return owner.server_name is not None and self.server == (owner.user, owner.server_name)
        if self.group is not None:
            return self.group in owner.groups
        return self.user is None or self.user == owner.user


@dataclass(frozen=True, slots=True)
class Grants:
    """Everything that a caller may do."""

    all: tuple[Grant, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.all)

    def may(self, right: Right, owner: Owner) -> bool:
        """Whether the caller has `right` on things of `owner`."""
        return any(right in grant.rights and grant.covers(owner) for grant in self.all)

    def somewhere(self, right: Right) -> bool:
        """Whether the caller has `right` on anything at all."""
        return any(right in grant.rights for grant in self.all)

    def everywhere(self, right: Right) -> bool:
        """Whether the caller has `right` on everything; what concerns all needs this."""
        return any(right in grant.rights and grant.everybody for grant in self.all)

    def users(self, right: Right) -> frozenset[str]:
        return frozenset(g.user for g in self.all if right in g.rights and g.user is not None)

    def groups(self, right: Right) -> frozenset[str]:
        return frozenset(g.group for g in self.all if right in g.rights and g.group is not None)

    def servers(self, right: Right) -> frozenset[tuple[str, str]]:
        return frozenset(g.server for g in self.all if right in g.rights and g.server is not None)


def read_scopes(scopes: Iterable[str]) -> Grants:
    """The grants among the scopes of a token. Scopes of others, unknown names and filters that
    cannot be read grant nothing."""
    return Grants(tuple(grant for scope in scopes if (grant := _grant(scope)) is not None))


def _grant(scope: str) -> Grant | None:
    if not scope.startswith(PREFIX):
        return None
    name, bang, filtered = scope.removeprefix(PREFIX).partition("!")
    rights = SCOPES.get(name)
    if rights is None or not bang:
        return None if rights is None else Grant(rights)
    # A filtered admin is an admin of those owners' things, never of the fleet.
    return _narrowed(rights - {Right.ADMIN}, filtered)


def _narrowed(rights: frozenset[Right], filtered: str) -> Grant | None:
    """A filter without a value grants nothing: the Hub expands `!user` before we see it."""
    match filtered.split("=", 1):
        case ["user", str(user)] if user:
            return Grant(rights, user=user)
        case ["group", str(group)] if group:
            return Grant(rights, group=group)
        case ["server", str(value)] if "/" in value:
            user, _, server_name = value.partition("/")
            return Grant(rights & _ON_ONE_SERVER, server=(user, server_name))
    return None
