"""Inside the lease: the way in by SSH, and what a reservation's own server asks and says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin

from gpudev_client.models import (
    ClosingReport,
    LabView,
    Reservation,
    Snapshot,
    SnapshotRequest,
    SshAccess,
    SshHostReport,
    TicketHolder,
    TicketRequest,
)
from gpudev_service.errors import not_found
from gpudev_service.operations import lab, reservations

from . import tickets
from .route import Access, Call, NoQuery, Route


async def view(call: Call[NoQuery, None]) -> LabView:
    return await lab.view(call.ctx, call.path["id"])


async def connect(call: Call[NoQuery, None]) -> SshAccess:
    """A ticket is made only where it opens something."""
    key, user = call.path["id"], call.caller.name
    until = call.ctx.clock.now() + timedelta(seconds=tickets.LIFE)
    answer = await lab.way_in(call.ctx, key, user, until)
    # Where no public address is configured, the one by which the caller has come.
    url = urljoin(call.origin, answer.url)
    return answer.model_copy(update={"ticket": call.service.tickets.issue(key, user), "url": url})


async def redeem(call: Call[NoQuery, TicketRequest]) -> TicketHolder:
    key = call.path["id"]
    user = call.service.tickets.redeem(key, call.body.ticket)
    if user is None:
        raise not_found("ticket")
    return await lab.holder(call.ctx, key, user)


async def publish_host(call: Call[NoQuery, SshHostReport]) -> Reservation:
    return await lab.publish_host(call.ctx, call.path["id"], call.body)


async def closing(call: Call[NoQuery, ClosingReport]) -> Reservation:
    return await lab.closing(call.ctx, call.path["id"], call.body)


async def closed(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Reservation:
    return await reservations.get(call.ctx, call.path["id"])


async def snapshot(call: Call[NoQuery, SnapshotRequest]) -> Snapshot:
    return await lab.snapshot(call.ctx, call.path["id"], call.body.note, call.actor)


async def taken(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Snapshot:
    """The snapshot that an interrupted call has begun; the loops go on with it."""
    found = await lab.view(call.ctx, call.path["id"])
    for one in found.snapshots:
        if one.id in made.get("snapshots", []):
            return one
    raise not_found("snapshot")


ROUTES = (
    Route(
        "enter_by_ssh",
        "POST",
        "/reservations/{id}/ssh",
        Access.CONNECT,
        connect,
        "The way into the server by SSH, for one connection: owner and collaborators who use it.",
        answer=SshAccess,
        errors=("wrong_state", "server_not_ready", "no_ssh_keys", "no_ssh"),
        secret=True,
    ),
    Route(
        "snapshot_reservation",
        "POST",
        "/reservations/{id}/snapshot",
        Access.RESERVATION_WRITE,
        snapshot,
        "Begin a snapshot of the lease's disk, in use as it is.",
        body=SnapshotRequest,
        answer=Snapshot,
        status=202,
        errors=("wrong_state", "disk_busy", "disk_full"),
        recall=taken,
    ),
    Route(
        "lab",
        "GET",
        "/reservations/{id}/lab",
        Access.LAB,
        view,
        "What a reservation's own server has to know: the lease, who may come in, its disk.",
        answer=LabView,
    ),
    Route(
        "redeem_ssh_ticket",
        "POST",
        "/reservations/{id}/ssh-tickets",
        Access.LAB,
        redeem,
        "Whose ticket it is that somebody shows to the server; each ticket once.",
        body=TicketRequest,
        answer=TicketHolder,
        errors=("not_found",),
        secret=True,
    ),
    Route(
        "publish_ssh_host",
        "PUT",
        "/reservations/{id}/ssh-host",
        Access.LAB,
        publish_host,
        "The server's public host keys and the account to log in with, or why there is no SSH.",
        body=SshHostReport,
        answer=Reservation,
        errors=("wrong_state",),
    ),
    Route(
        "report_closing",
        "POST",
        "/reservations/{id}/closing",
        Access.LAB,
        closing,
        "What the server did before its end. An end that waits for it goes on.",
        body=ClosingReport,
        answer=Reservation,
        recall=closed,
        errors=("wrong_state",),
    ),
)
