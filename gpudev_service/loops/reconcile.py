"""Finds what a crash, a kill or a person behind our back has left, and puts it right.

- a lease whose server is gone, though a job of it may live on: noted, and the owner has the grace
  time to start it again;
- a server or process without a lease: stopped (`NO_SERVER_WITHOUT_A_LEASE`);
- a server that runs and that the Hub has forgotten: started anew, unless it has work;
- rows of servers in the Hub that gpudev named and nobody uses: removed;
- shares that the Hub has lost: made again;
- long work on disks that was interrupted: taken up again;
- somebody who waits without a promised start: planned again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.limits import is_reservation_id
from gpudev_client.states import LIVE, WAITING, State
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.hub import HubAway, HubRefused, HubServer
from gpudev_service.operations import notices, planning, snapshots, views
from gpudev_service.operations.transitions import note
from gpudev_service.servers.base import Handle, ServersAway
from gpudev_service.store.models import HistoryRow, LeaseUnitRow, ReservationRow

from . import shares
from .failures import Failures

log = logging.getLogger(__name__)

#: Said where more than one thing has failed.
_SEVERAL = "several things could not be put right"
#: A server in the Hub is left alone for so long after its start: its report may be under way.
YOUNG = timedelta(seconds=20)
#: An unused row of a server that gpudev named is kept for so long: somebody may fill the form.
UNUSED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the machine said about a lease's server, by the handle that was known then: whether it
    serves, whether anything of it is there at all, and why it does not serve. What has outlived a
    server serves nobody."""

    handle: Handle | None
    serves: bool
    left: bool
    why: str | None = None


async def run(ctx: Context) -> datetime | None:
    """Looks at everything, one thing after the other. What fails is in no other's way, and is
    raised when all have been looked at. A Hub that is away is looked at the next time."""
    failures = Failures(_SEVERAL)
    # Read the leases first: a server that starts after that is then seen as running, and known to
    # the Hub.
    leases = {row.id: row for row in await _active(ctx)}
    parts = (partial(_processes, leases=leases), snapshots.resume, _unplanned)
    for part in (*parts, partial(_hub, leases=leases), shares.compare):
        with failures.apart():
            await part(ctx)
    failures.tell()
    return None


async def _processes(ctx: Context, leases: Mapping[str, Active]) -> None:
    try:
        await ctx.servers.give_up()
        running = await ctx.servers.running()
        changed = await _changed(ctx, leases.values(), running)
    except ServersAway as away:
        log.warning("servers could not be looked at: %s", away)
        return
    if changed:
        entries = await ctx.store.run(lambda session: _note(ctx, session, changed))
        await views.publish(ctx, entries)
    failures = Failures(_SEVERAL)
    for key in await _over(ctx, running - leases.keys()):
        log.warning("stopping what runs without a lease: %s", key)
        with failures.apart():
            await ctx.servers.stop(key, None, grace=2.0)
    failures.tell()


async def _changed(ctx: Context, leases: Iterable[Active], running: set[str]) -> dict[str, Seen]:
    """Whose server is another than is known: gone, or back."""
    changed = {}
    for row in leases:
        serves = row.id in running and not await ctx.servers.main_gone(row.id, row.server_handle)
        if serves == (row.server_lost_at is not None):
            why = None if serves else await ctx.servers.why_gone(row.id)
            left = row.id in running
            changed[row.id] = Seen(row.server_handle, serves=serves, left=left, why=why)
    return changed


async def _over(ctx: Context, keys: set[str]) -> list[str]:
    """Those of which nothing may run (any more): the reservation is over, or its GPUs are given
    back and only its snapshot is still being taken. Another service's ids are not ours to judge."""
    if not keys:
        return []
    row = ReservationRow
    held = exists().where(LeaseUnitRow.reservation_id == row.id)
    async with ctx.store.reading() as session:
        found = await session.scalars(
            select(row.id)
            .where(row.id.in_(keys), row.state.not_in(WAITING), ~held)
            .order_by(row.id)
        )
        return list(found)


async def _unplanned(ctx: Context) -> None:
    """Plans again where somebody waits without a promise. What nodes come or go is another loop's
    business (`fleet`)."""
    row = ReservationRow
    without = select(row.gpu_type).where(row.state.in_(WAITING), row.planned_start.is_(None))
    async with ctx.store.reading() as session:
        types = sorted(await session.scalars(without.distinct()))
    if types:
        await planning.plan_again(ctx, types)


async def _note(
    ctx: Context, session: AsyncSession, changed: Mapping[str, Seen]
) -> list[HistoryRow]:
    now = ctx.clock.now()
    entries = []
    for row in await session.scalars(
        select(ReservationRow).where(
            ReservationRow.id.in_(changed), ReservationRow.state == State.ACTIVE
        )
    ):
        seen = changed[row.id]
        # Somebody may have reported it, or started another one, meanwhile.
        if seen.serves != (row.server_lost_at is not None) or row.server_handle != seen.handle:
            continue
        if seen.serves:
            row.server_lost_at = None
            said, data = "The server runs again.", None
        else:
            row.server_lost_at = now
            grace = words.duration(ctx.settings.times.crash_grace)
            why = seen.why or "The server has ended unexpectedly."
            said, data = _lost(grace, left=seen.left, why=why), notices.lost(why)
        entries.append(note(session, row, "server", said, actor=SERVICE.name, now=now, data=data))
    return entries


def _lost(grace: str, *, left: bool, why: str) -> str:
    said = f"{why} Your GPUs are kept for {grace}: start it again from the Hub's home page."
    if left:
        said += (
            " Something that it had started (a program, a kernel) still runs: it ends when the "
            "server starts again, and at the latest when that time is over."
        )
    return said


async def _hub(ctx: Context, leases: Mapping[str, Active]) -> None:
    try:
        servers = await ctx.hub.servers()
    except HubAway as error:
        ctx.contact.lost()
        log.warning("the Hub could not be compared: %s", error)
    except HubRefused as refusal:
        log.warning("the Hub could not be compared: %s", refusal.status)
    else:
        ctx.contact.answered(ctx.clock.now())
        await _hub_servers(ctx, servers)
        await _forgotten(ctx, leases.values(), servers)


async def _hub_servers(ctx: Context, servers: list[HubServer]) -> None:
    """Compares until the Hub goes away; the next run begins anew."""
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
        try:
            if server.ready and not young:
                log.warning("stopping a server without a lease: %s/%s", server.user, server.name)
                remove = is_reservation_id(server.name)
                await ctx.hub.stop(server.user, server.name, remove=remove)
            elif _unused(server, now):
                await ctx.hub.remove(server.user, server.name)
        except HubRefused as refusal:
            # Somebody may just have started it.
            level = logging.INFO if refusal.status == httpx.codes.CONFLICT else logging.WARNING
            log.log(level, "not ended: %s/%s: %s", server.user, server.name, refusal.status)
        except HubAway as error:
            log.warning("could not stop %s/%s: %s", server.user, server.name, error)
            return


@dataclass(frozen=True, slots=True)
class Active:
    """What is looked at of a lease whose server should run. Whole rows of thousands of leases would
    cost more than everything else that the service does at rest."""

    id: str
    user: str
    server_name: str
    server_handle: dict[str, Any] | None
    server_lost_at: datetime | None


async def _active(ctx: Context) -> list[Active]:
    row = ReservationRow
    query = select(row.id, row.user, row.server_name, row.server_handle, row.server_lost_at)
    async with ctx.store.reading() as session:
        found = await session.execute(query.where(row.state == State.ACTIVE))
        return [Active(*values) for values in found]


async def _still_active(ctx: Context, key: str) -> bool:
    async with ctx.store.reading() as session:
        row = await session.get(ReservationRow, key)
        return row is not None and row.state == State.ACTIVE


async def _forgotten(ctx: Context, leases: Iterable[Active], servers: list[HubServer]) -> None:
    """Starts servers again that run while the Hub does not know of them.

    A Hub that is killed between a server's start and writing it down cannot find it again, so that
    nobody could open it. The new start ends what is left of the old one, so one in which anything
    runs is left to its owner.
    """
    known = {(server.user, server.name): server for server in servers}
    for row in leases:
        server = known.get((row.user, row.server_name))
        if server is not None and (server.ready or server.pending):
            continue
        if not await ctx.servers.is_idle(row.id, row.server_handle):
            continue
        if not await _still_active(ctx, row.id):
            continue
        log.warning("the Hub has forgotten the server of %s; starting it again", row.id)
        try:
            await ctx.hub.start(row.user, row.server_name, row.id)
        except (HubAway, HubRefused) as error:
            log.warning("could not start %s again: %s", row.id, error)


def _unused(server: HubServer, now: datetime) -> bool:
    """A row that gpudev named, at rest for long. One that never ran has no activity at all; the Hub
    gives it none, so it goes when it is seen: the form posts to the same name again."""
    if not is_reservation_id(server.name) or server.ready or server.pending:
        return False
    return server.last_activity is None or now - server.last_activity > UNUSED
