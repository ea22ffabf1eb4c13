"""Whether a caller may use a route, found out before anything about its object is revealed.

"Not yours" and "not there" are one answer: whoever may not see an object learns nothing of it, not
even from what is wrong with their request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from gpudev_client.models import Role
from gpudev_service.context import Context
from gpudev_service.errors import Refusal, not_found
from gpudev_service.events import Interest, Owner
from gpudev_service.operations import reservations, sharing

from .auth import Caller
from .people import People
from .permissions import PREFIX, Right
from .route import Access

#: The Hub's own scope for its metrics opens ours too.
HUB_METRICS_SCOPE = "read:metrics"

#: What a route's access needs, and the name of the smallest scope that gives it.
_NEEDS: Mapping[Access, tuple[Right, str]] = {
    Access.RESERVATION_READ: (Right.READ, "read"),
    Access.RESERVATION_WRITE: (Right.WRITE, "reserve"),
    Access.LEAVE: (Right.WRITE, "reserve"),
    Access.CONNECT: (Right.CONNECT, "reserve"),
    Access.LAB: (Right.LAB, "lab"),
    Access.PERSON_READ: (Right.READ, "read"),
    Access.PERSON_WRITE: (Right.CREATE, "reserve"),
    Access.SPAWNER: (Right.LAUNCH, "spawner"),
    Access.DISK_READ: (Right.DISK_READ, "read"),
    Access.DISK_WRITE: (Right.DISK_WRITE, "reserve"),
    Access.CREATE: (Right.CREATE, "reserve"),
    Access.ADMIN: (Right.ADMIN, "admin"),
}


def check_caller(access: Access, caller: Caller) -> None:
    """What can be said without an object: whether the caller could ever use such a route.

    Raises:
        Refusal: `not_allowed`, naming the scope that is missing.
    """
    if access is Access.PUBLIC:
        return
    if access is Access.METRICS:
        if not (caller.admin or HUB_METRICS_SCOPE in caller.scopes):
            raise _missing("admin")
        return
    if not caller.grants:
        raise _missing("read")
    if access is Access.READ:
        return
    right, scope = _NEEDS[access]
    enough = (
        caller.grants.everywhere(right)
        if access is Access.ADMIN
        else caller.grants.somewhere(right)
    )
    if not enough:
        raise _missing(scope)


def role(caller: Caller, owner: Owner, now: datetime) -> Role | None:
    """What the caller was invited to do with a reservation of `owner`."""
    if caller.kind != "user":
        return None
    found = sharing.standing(owner.invited, caller.name, now)
    return None if found is None else found.role


def may_see(caller: Caller, owner: Owner, now: datetime) -> bool:
    """Whether the caller may see a reservation of `owner`: by their scopes, or invited. A token
    that is narrowed to one server has nothing of its holder's invitations."""
    if caller.grants.may(Right.READ, owner):
        return True
    return role(caller, owner, now) is not None and caller.grants.may(Right.READ, caller.owner)


def interest(caller: Caller) -> Interest:
    """Whose things `may_see` can be true of: as theirs, or as what they are invited to."""
    grants = caller.grants
    if grants.everywhere(Right.READ) or grants.groups(Right.READ):
        return None
    on_servers = {user for user, _ in grants.servers(Right.READ)}
    return frozenset({caller.owner.user}) | grants.users(Right.READ) | on_servers


def _allowed(
    access: Access, caller: Caller, owner: Owner, named: str | None, now: datetime
) -> bool:
    grants, right = caller.grants, _NEEDS[access][0]
    if access is Access.RESERVATION_READ:
        return may_see(caller, owner, now)
    if access is Access.CONNECT:
        # Nobody comes in unseen: an admin who has to invites themself, and the owner reads it.
        mine = caller.kind == "user" and owner.user == caller.name
        enters = mine or role(caller, owner, now) == "use"
        return enters and grants.may(right, caller.owner)
    if access is Access.LEAVE and named == caller.name and role(caller, owner, now):
        return grants.may(right, owner) or grants.may(right, caller.owner)
    return grants.may(right, owner)


async def reservation_owner(
    ctx: Context, access: Access, caller: Caller, reservation_id: str, named: str | None = None
) -> Owner:
    """The owner of a reservation that the caller may use in this way.

    Args:
        named: the user in the path.

    Raises:
        Refusal: `not_found` for one that is not there or that the caller may not see,
            `not_allowed` for one that they may only see.
    """
    owner = await reservations.owner_of(ctx, reservation_id)
    right, scope = _NEEDS[access]
    now = ctx.clock.now()
    if owner is None:
        raise not_found("reservation")
    if _allowed(access, caller, owner, named, now):
        return owner
    if not may_see(caller, owner, now):
        raise not_found("reservation")
    if access is Access.CONNECT and caller.grants.may(right, caller.owner):
        raise Refusal(
            "not_allowed",
            "Only the owner and collaborators who use it may open this server. Ask the owner to "
            "invite you.",
        )
    if role(caller, owner, now) and not caller.grants.may(Right.READ, owner):
        raise Refusal("not_allowed", "Only the owner of this reservation may do this.")
    raise _missing(scope)


def same_person(access: Access, caller: Caller, user: str) -> Owner:
    """The user in the path, where the caller is that person or an admin.

    Raises:
        Refusal: `not_allowed`, whether the Hub has such a user or not.
    """
    right, scope = _NEEDS[access]
    if caller.admin:
        return Owner(user, ())
    if caller.kind != "user" or user != caller.name:
        raise Refusal("not_allowed", "You may not do this for that user.", field="user")
    if not caller.grants.may(right, caller.owner):
        raise _missing(scope)
    return caller.owner


async def person(
    people: People, access: Access, caller: Caller, user: str | None, *, named: str | None = None
) -> Owner:
    """Whose disks are meant, or whom a new reservation will belong to.

    Args:
        user: who was asked for; None means the caller.
        named: the disk in the path; what the caller may not see is then not there.

    Raises:
        Refusal: `not_found` or `not_allowed`, whether the Hub has such a user or not.
    """
    right, scope = _NEEDS[access]
    if user is None and caller.kind != "user":
        raise Refusal("invalid_input", "A service has to say for which user.", field="user")
    own = user is None or (caller.kind == "user" and user == caller.name)
    owner = caller.owner if own else Owner(str(user), ())
    grants = caller.grants
    if not own and grants.groups(right) | grants.groups(Right.DISK_READ):
        owner = Owner(owner.user, await people.groups(owner.user) or ())
    if grants.may(right, owner):
        return owner
    if named is not None and not grants.may(Right.DISK_READ, owner):
        raise not_found("disk")
    if own:
        raise _missing(scope)
    raise Refusal("not_allowed", "You may not do this for that user.", field="user")


#: Finds the groups of an owner for whom policy is to be applied.
GroupsOf = Callable[[str], Awaitable[tuple[str, ...]]]


def _missing(scope: str) -> Refusal:
    return Refusal(
        "not_allowed", f"Your token lacks the scope {PREFIX}{scope} for this.", accepted=None
    )
