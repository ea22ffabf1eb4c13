"""Leases whose node has gone, was closed, or has lost GPUs before their server could start: placed
again at once, or waiting again in the place in the queue that they had."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import Reservation
from gpudev_client.states import State
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.fleet import FleetAway
from gpudev_service.servers import ServersAway
from gpudev_service.settings import STOP_POLITELY
from gpudev_service.store.memory import CHANGES
from gpudev_service.store.models import LeaseUnitRow, PlacementRow, ReservationRow

from . import holding, planning, views
from .rows import load
from .transitions import Entry, transition

#: How often a lease is placed again in a row; beyond that the fleet is in turmoil, and it waits.
ATTEMPTS = 3


async def startable(ctx: Context, view: Reservation) -> Reservation:
    """The reservation with a placement on which a server can be started now.

    Raises:
        Refusal: `planned_again` where it waits again; `wrong_state` where its server runs no more
            and its node has gone; `unavailable` where the fleet cannot be asked, or something of
            an earlier start has still to end.
    """
    for _ in range(ATTEMPTS):
        refused = await _refusals(ctx, view)
        if not refused:
            return view
        node, why = next(iter(refused.items()))
        if view.state is not State.PREPARING:
            raise Refusal(
                "wrong_state",
                f"Your server cannot be started again on {node}. {why} Cancel this reservation, "
                "and reserve again with the same disk.",
            )
        await _end_what_is_left(ctx, view.id)
        view = await _again(ctx, view.id, refused)
        if view.state is not State.PREPARING:
            break
    raise Refusal(
        "planned_again",
        "The node for your server cannot take it any more. Your place in the queue is kept.",
    )


async def _end_what_is_left(ctx: Context, reservation_id: str) -> None:
    """A start of before may have left a server behind: it ends before its GPUs are others'."""
    async with ctx.store.reading() as session:
        handle = (await load(session, reservation_id)).server_handle
    try:
        if not await ctx.servers.alive(reservation_id, handle):
            return
        gone = await ctx.servers.stop(reservation_id, handle, STOP_POLITELY)
    except ServersAway as away:
        raise Refusal(
            "unavailable", f"Nothing can be started at the moment: {away}. It is tried again."
        ) from away
    if not gone:
        raise Refusal(
            "unavailable", "What an earlier start has left has not ended yet. It is tried again."
        )


async def _refusals(ctx: Context, view: Reservation) -> Mapping[str, str]:
    needed = await _needed(ctx, view)
    try:
        return await ctx.fleet.refusals(needed)
    except FleetAway as away:
        raise Refusal(
            "unavailable", f"Nothing can be started at the moment: {away}. It is tried again."
        ) from away


async def _needed(ctx: Context, view: Reservation) -> dict[str, int]:
    """The units that each of the reservation's nodes has to have for its server to find its own:
    together with those of the leases that come before it there. Where a node has lost some, it is
    thus the last who have to go, whoever asks first."""
    needed = {place.node: 0 for place in view.placement}
    unit, row = LeaseUnitRow, ReservationRow
    query = (
        select(unit.node, row).join(row, row.id == unit.reservation_id).where(unit.node.in_(needed))
    )
    async with ctx.store.reading() as session:
        held = [(node, lease) for node, lease in await session.execute(query)]
    own = next((_turn(lease) for _, lease in held if lease.id == view.id), None)
    for node, lease in held:
        if own is not None and _turn(lease) <= own:
            needed[node] += 1
    return needed


def _turn(lease: ReservationRow) -> tuple[bool, datetime | None, str]:
    """Whose server has been started has its GPUs already; then by the leases' beginnings."""
    waits = State(lease.state) is State.PREPARING and lease.server_handle is None
    return waits, lease.starts_at, lease.id


async def _again(ctx: Context, reservation_id: str, refused: Mapping[str, str]) -> Reservation:
    """Gives the units back and plans anew, in one transaction. Who was to start now keeps that as
    the promise, so nobody who came later is before them."""

    async def work(session: AsyncSession) -> tuple[Reservation, list[Entry]]:
        now = ctx.clock.now()
        row = await load(session, reservation_id)
        view = await views.reservation(ctx, session, row)
        nodes = [place.node for place in view.placement]
        lost = [node for node in nodes if node in refused]
        if State(row.state) is not State.PREPARING or not lost:
            return view, []  # somebody else has done it meanwhile
        types = await holding.gpu_types(ctx, session, row.id) | {row.gpu_type}
        mine = {CHANGES: [(gpu_type, row.id) for gpu_type in sorted(types)]}
        for table in (LeaseUnitRow, PlacementRow):
            gone = delete(table).where(table.reservation_id == row.id)
            await session.execute(gone, execution_options=mine)
        reason = (
            f"{lost[0]} cannot take your server. {refused[lost[0]]} It is planned again; your "
            "place in the queue is kept."
        )
        entry = transition(session, row, State.QUEUED, reason=reason, actor=SERVICE.name, now=now)
        row.planned_start, row.planned_nodes, row.server_handle = now, nodes, None
        await session.flush()
        outcome = await planning.replan(ctx, session, now, sorted(types))
        await session.flush()
        return await views.reservation(ctx, session, row), [entry, *outcome.entries]

    view, entries = await ctx.store.run(work)
    await views.publish(ctx, entries)
    return view
