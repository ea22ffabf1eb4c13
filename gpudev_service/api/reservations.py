"""Reservations: submit, look, extend, cancel, and what the Hub's spawner reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from gpudev_client import limits
from gpudev_client.models import (
    ExtensionOffer,
    ExtensionRequest,
    HistoryEntry,
    Page,
    Plan,
    Request,
    Reservation,
    ReservationRequest,
    ServerLaunch,
    ServerReport,
)
from gpudev_client.states import State
from gpudev_service.errors import Refusal, not_found
from gpudev_service.events import Owner
from gpudev_service.operations import extension, reservations, servers
from gpudev_service.operations.reservations import ReservationFilter

from .permissions import Right
from .route import Access, Call, NoQuery, PageQuery, Route

#: `?user=*`: of everybody whom the caller may see.
EVERYBODY = "*"


class ListQuery(PageQuery):
    """Whose reservations, in which states."""

    user: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="A Hub user, or `*` for everybody whom the caller may see; default: own, and "
        "what is shared with the caller.",
    )
    state: list[State] = Field(default=[], max_length=len(State), description="Repeatable.")
    gpu_type: str | None = Field(default=None, max_length=63)


class CancelQuery(Request):
    reason: (
        Annotated[str, StringConstraints(max_length=limits.NOTE_MAX, strip_whitespace=True)] | None
    ) = Field(default=None, description="For the history.")


async def listing(call: Call[ListQuery, None]) -> Page[Reservation]:
    return await reservations.listing(
        call.ctx, visible_part(call), limit=call.query.limit, cursor=call.query.cursor
    )


async def submit(call: Call[NoQuery, ReservationRequest]) -> Reservation:
    request, groups = await _admissible(call)
    if request.user is not None and request.server_name is not None:
        _heard(call, request.user, request.server_name)
    return await reservations.submit(call.ctx, call.actor, request, groups)


async def submitted(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Reservation:
    """The reservation that an interrupted `submit` has made."""
    for key in made.get("reservations", []):
        return await reservations.get(call.ctx, key)
    raise not_found("reservation")


async def preview(call: Call[NoQuery, ReservationRequest]) -> Plan:
    request, groups = await _admissible(call)
    return await reservations.preview(call.ctx, call.actor, request, groups)


async def show(call: Call[NoQuery, None]) -> Reservation:
    return await reservations.get(call.ctx, call.path["id"])


async def cancel(call: Call[CancelQuery, None]) -> Reservation:
    return await reservations.cancel(
        call.ctx, call.path["id"], call.actor, call.query.reason or None
    )


async def extension_offer(call: Call[NoQuery, None]) -> ExtensionOffer:
    return await extension.offer(call.ctx, call.path["id"])


async def extend(call: Call[NoQuery, ExtensionRequest]) -> Reservation:
    return await extension.extend(call.ctx, call.path["id"], call.actor, call.body.hours)


async def extended(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Reservation:
    return await reservations.get(call.ctx, call.path["id"])


async def history(call: Call[PageQuery, None]) -> Page[HistoryEntry]:
    return await reservations.history(
        call.ctx, call.path["id"], call.query.limit, call.query.cursor
    )


async def launch(call: Call[NoQuery, None]) -> ServerLaunch:
    made = await servers.launch(call.ctx, call.path["id"])
    _heard(call, made.reservation.user, made.reservation.server_name)
    return made


async def report(call: Call[NoQuery, ServerReport]) -> Reservation:
    after = await servers.report(call.ctx, call.path["id"], call.actor, call.body)
    _heard(call, after.user, after.server_name)
    return after


def _heard(call: Call[Any, Any], user: str, server_name: str) -> None:
    """Where the Hub's spawner calls, it is about to start this server, or does."""
    if call.caller.acts_for_others:
        call.ctx.starts.heard(user, server_name, call.ctx.clock.now())


async def _admissible(
    call: Call[NoQuery, ReservationRequest],
) -> tuple[ReservationRequest, tuple[str, ...]]:
    """The request with its owner written into it, and the owner's groups."""
    owner = call.owner or call.caller.owner
    request = call.body.model_copy(update={"user": owner.user})
    grants = call.caller.grants
    may_name_servers = grants.somewhere(Right.LAUNCH) and grants.may(Right.LAUNCH, owner)
    if request.server_name is not None and not may_name_servers:
        raise Refusal(
            "not_allowed",
            "The server's name is chosen by gpudev; only the Hub's spawner and admins name one.",
            field="server_name",
        )
    groups = request.owner_groups
    if groups is not None:
        if not call.caller.acts_for_others:
            raise Refusal(
                "not_allowed",
                "The Hub says who is in which group: leave it out.",
                field="owner_groups",
            )
        return request, tuple(sorted(set(groups)))
    if owner.user == call.caller.name and call.caller.kind == "user":
        return request, call.caller.groups
    return request, await call.service.people.groups_of_existing(owner.user)


def visible_part(call: Call[ListQuery, None]) -> ReservationFilter:
    """What `?user=` means for this caller. Somebody whose reservations the caller could not see
    under any circumstances is refused; else what is not visible is simply not in the list."""
    grants, caller, query = call.caller.grants, call.caller, call.query
    part = ReservationFilter(
        users=None if grants.everywhere(Right.READ) else grants.users(Right.READ),
        groups=grants.groups(Right.READ),
        servers=grants.servers(Right.READ),
        states=frozenset(query.state),
        gpu_type=query.gpu_type,
    )
    if (
        caller.kind == "user"
        and query.user in {None, EVERYBODY}
        and grants.may(Right.READ, caller.owner)
    ):
        part = replace(part, invited=caller.name)
    if query.user == EVERYBODY or (query.user is None and caller.kind != "user"):
        return part
    wanted = caller.name if query.user is None else query.user
    reachable = (
        grants.may(Right.READ, Owner(wanted, ()))
        or bool(part.groups)
        or any(owner == wanted for owner, _ in part.servers)
    )
    if not reachable:
        raise Refusal("not_allowed", "You may not see that user's reservations.", field="user")
    return replace(part, of=wanted)


_LIMITS = ("policy_limit", "quota", "maintenance", "impossible")
_DISK = ("disk_in_use", "disk_busy", "disk_full")

ROUTES = (
    Route(
        "list_reservations",
        "GET",
        "/reservations",
        Access.READ,
        listing,
        "Reservations that the caller may see, newest first.",
        query=ListQuery,
        answer=Page[Reservation],
    ),
    Route(
        "submit_reservation",
        "POST",
        "/reservations",
        Access.CREATE,
        submit,
        "Reserve GPUs: starts at once where there is room, else waits with a promised start.",
        body=ReservationRequest,
        answer=Reservation,
        status=201,
        recall=submitted,
        errors=(*_LIMITS, *_DISK, "server_in_use"),
    ),
    Route(
        "plan_reservation",
        "POST",
        "/plan",
        Access.CREATE,
        preview,
        "When a request would start if it were submitted now. Nothing is stored.",
        body=ReservationRequest,
        answer=Plan,
        errors=(*_LIMITS, *_DISK, "server_in_use"),
    ),
    Route(
        "show_reservation",
        "GET",
        "/reservations/{id}",
        Access.RESERVATION_READ,
        show,
        "One reservation, with how far it could be extended now.",
        answer=Reservation,
    ),
    Route(
        "cancel_reservation",
        "DELETE",
        "/reservations/{id}",
        Access.RESERVATION_WRITE,
        cancel,
        "End a reservation; one that is over already is left as it is.",
        query=CancelQuery,
        answer=Reservation,
        errors=("wrong_state",),
    ),
    Route(
        "offer_extension",
        "GET",
        "/reservations/{id}/extension",
        Access.RESERVATION_READ,
        extension_offer,
        "How far the lease could be extended now.",
        answer=ExtensionOffer,
    ),
    Route(
        "extend_reservation",
        "POST",
        "/reservations/{id}/extension",
        Access.RESERVATION_WRITE,
        extend,
        "Extend a running lease, as far as nobody's promised start moves.",
        body=ExtensionRequest,
        answer=Reservation,
        recall=extended,
        errors=("extension_limited", "wrong_state"),
    ),
    Route(
        "reservation_history",
        "GET",
        "/reservations/{id}/history",
        Access.RESERVATION_READ,
        history,
        "What happened to a reservation and why, oldest first.",
        query=PageQuery,
        answer=Page[HistoryEntry],
    ),
    Route(
        "launch_server",
        "GET",
        "/reservations/{id}/launch",
        Access.SPAWNER,
        launch,
        "Environment and home of the server, for the Hub's spawner.",
        answer=ServerLaunch,
        errors=("wrong_state", "planned_again", "disk_full", "unavailable"),
    ),
    Route(
        "report_server",
        "PUT",
        "/reservations/{id}/server",
        Access.SPAWNER,
        report,
        "What the Hub's spawner has seen of the server.",
        body=ServerReport,
        answer=Reservation,
        errors=("wrong_state",),
    ),
)
