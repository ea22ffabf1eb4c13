"""Finds what a crash, a kill or a person behind our back has left, and puts it right.

- a lease whose server is gone: noted, and the owner has the grace time to start it again;
- a server or process without a lease: stopped;
- rows of servers in the Hub that gpudev named and nobody uses: removed;
- long work on disks that was interrupted: taken up again;
- somebody who waits without a promised start: planned again.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.limits import is_reservation_id
from gpudev_client.states import LEASED, LIVE, WAITING, State
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.hub import HubAway, HubRefused, HubServer
from gpudev_service.operations import planning, snapshots, views
from gpudev_service.operations.transitions import note
from gpudev_service.store.models import HistoryRow, ReservationRow

log = logging.getLogger(__name__)

#: A server in the Hub is left alone for so long after its start: its report may be under way.
YOUNG = timedelta(seconds=20)
#: An unused row of a server that gpudev named is kept for so long: somebody may fill the form.
UNUSED = timedelta(hours=1)


async def run(ctx: Context) -> datetime | None:
    """Looks at processes, then at the Hub; a Hub that is away is looked at the next time."""
    await snapshots.resume(ctx)
    await _processes(ctx)
    await _unplanned(ctx)
    try:
        servers = await ctx.hub.servers()
    except (HubAway, HubRefused) as error:
        log.warning("the Hub could not be compared: %s", error)
        return None
    await _hub_servers(ctx, servers)
    return None


async def _processes(ctx: Context) -> None:
    # Read the leases first: a server that starts in between is then seen as running.
    async with ctx.store.reading() as session:
        leases = {
            row.id: row
            for row in await session.scalars(
                select(ReservationRow).where(ReservationRow.state.in_(LEASED))
            )
        }
    running = await ctx.servers.running()
    changed = [
        row.id
        for row in leases.values()
        if row.state == State.ACTIVE and (row.id in running) == (row.server_lost_at is not None)
    ]
    if changed:
        entries = await ctx.store.run(lambda session: _note(ctx, session, changed, running))
        await views.publish(ctx, entries)
    for key in running - leases.keys():
        if await _is_over(ctx, key):
            log.warning("stopping what runs without a lease: %s", key)
            await ctx.servers.stop(key, None, grace=2.0)


async def _unplanned(ctx: Context) -> None:
    """Plans again where somebody waits without a promise: nodes may have come back."""
    async with ctx.store.reading() as session:
        types = list(
            await session.scalars(
                select(ReservationRow.gpu_type)
                .where(ReservationRow.state.in_(WAITING), ReservationRow.planned_start.is_(None))
                .distinct()
            )
        )
    if types:
        outcome = await ctx.store.run(
            lambda session: planning.replan(ctx, session, ctx.clock.now(), types)
        )
        await views.publish(ctx, outcome.entries)


async def _is_over(ctx: Context, key: str) -> bool:
    """Whether nothing of this reservation may run; another service's ids are not ours to judge."""
    async with ctx.store.reading() as session:
        row = await session.get(ReservationRow, key)
        return row is not None and row.state not in LIVE


async def _note(
    ctx: Context, session: AsyncSession, changed: list[str], running: set[str]
) -> list[HistoryRow]:
    now = ctx.clock.now()
    entries = []
    for row in await session.scalars(
        select(ReservationRow).where(
            ReservationRow.id.in_(changed), ReservationRow.state == State.ACTIVE
        )
    ):
        if row.id in running:
            row.server_lost_at = None
            said = "The server runs again."
        else:
            row.server_lost_at = now
            grace = words.duration(ctx.settings.times.crash_grace)
            said = (
                "The server has ended unexpectedly. Your GPUs are kept for "
                f"{grace}: start it again from the Hub's home page."
            )
        entries.append(note(session, row, "server", said, actor=SERVICE.name, now=now))
    return entries


async def _hub_servers(ctx: Context, servers: list[HubServer]) -> None:
    now = ctx.clock.now()
    async with ctx.store.reading() as session:
        live = {
            (user, name)
            for user, name in await session.execute(
                select(ReservationRow.user, ReservationRow.server_name).where(
                    ReservationRow.state.in_(LIVE)
                )
            )
        }
    for server in servers:
        if (server.user, server.name) in live:
            continue
        young = server.started_at is not None and now - server.started_at < YOUNG
        if server.ready and not young:
            log.warning("stopping a server without a lease: %s/%s", server.user, server.name)
            await _stop(ctx, server, remove=is_reservation_id(server.name))
        elif _unused(server, now):
            await _stop(ctx, server, remove=True)


def _unused(server: HubServer, now: datetime) -> bool:
    """A row that gpudev named, at rest for long. One that never ran has no activity at all; the Hub
    gives it none, so it goes when it is seen: the form posts to the same name again."""
    if not is_reservation_id(server.name) or server.ready or server.pending:
        return False
    return server.last_activity is None or now - server.last_activity > UNUSED


async def _stop(ctx: Context, server: HubServer, *, remove: bool) -> None:
    try:
        await ctx.hub.stop(server.user, server.name, remove=remove)
    except (HubAway, HubRefused) as error:
        log.warning("could not stop %s/%s: %s", server.user, server.name, error)
