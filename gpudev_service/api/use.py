"""Whether a lease is used: what its server sees, and the person's "keep it"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpudev_client.models import ActivityReport, Reservation
from gpudev_service.operations import idle, reservations

from .route import Access, Call, NoQuery, Route


async def report(call: Call[NoQuery, ActivityReport]) -> Reservation:
    await idle.record(call.ctx, call.path["id"], call.body)
    return await reservations.get(call.ctx, call.path["id"])


async def keep(call: Call[NoQuery, None]) -> Reservation:
    await idle.keep(call.ctx, call.path["id"], call.actor)
    return await reservations.get(call.ctx, call.path["id"])


async def kept(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Reservation:
    return await reservations.get(call.ctx, call.path["id"])


ROUTES = (
    Route(
        "report_activity",
        "PUT",
        "/reservations/{id}/activity",
        Access.LAB,
        report,
        "What goes on in the server; the answer's `idle` is the verdict.",
        body=ActivityReport,
        answer=Reservation,
    ),
    Route(
        "keep_reservation",
        "POST",
        "/reservations/{id}/keep",
        Access.RESERVATION_WRITE,
        keep,
        "Keep a lease that looks idle, within the limits of policy.",
        answer=Reservation,
        recall=kept,
        errors=("wrong_state", "policy_limit"),
    ),
)
