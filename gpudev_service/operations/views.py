"""Rows turned into what the API answers, and published as events after a commit."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from urllib.parse import quote

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import (
    Collaborator,
    Event,
    HistoryEntry,
    NodePlacement,
    Reservation,
)
from gpudev_client.states import FINAL, WAITING, State
from gpudev_service.context import Context
from gpudev_service.events import Invitation, Owner
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import (
    CollaboratorRow,
    DiskRow,
    HistoryRow,
    PlacementRow,
    ReservationRow,
    SshHostRow,
)

from . import limited
from .positions import positions
from .rows import concerns
from .transitions import Entry

log = logging.getLogger(__name__)

#: How many moved promises are read for one look at the database: nobody else is served meanwhile.
_AT_ONCE = 100

#: Reservations as they are after a commit, with whose they are.
Known = Mapping[str, tuple[Owner, Reservation]]


def owner(row: ReservationRow) -> Owner:
    """Whose a reservation is; without collaborators, for what only owners are shown. One that is
    over has no server: a server's own token, which the Hub takes back a moment later, has no more
    rights on it."""
    server = None if State(row.state) in FINAL else row.server_name
    return Owner(row.user, tuple(row.groups), server)


async def owners(session: AsyncSession, rows: Sequence[ReservationRow]) -> dict[str, Owner]:
    """Owners with those whom they have invited, by reservation."""
    return _owners(rows, await standing_rows(session, [row.id for row in rows]))


def _owners(
    rows: Sequence[ReservationRow], standing: Iterable[CollaboratorRow]
) -> dict[str, Owner]:
    invited: dict[str, list[Invitation]] = {}
    for found in standing:
        one = Invitation(found.user, found.role, found.until)  # type: ignore[arg-type]  # checked
        invited.setdefault(found.reservation_id, []).append(one)
    return {row.id: replace(owner(row), invited=tuple(invited.get(row.id, ()))) for row in rows}


async def standing_rows(session: AsyncSession, ids: Sequence[str]) -> list[CollaboratorRow]:
    """Those who are invited, longest first; the end of an invitation may have come."""
    if not ids:
        return []
    row = CollaboratorRow
    query = select(row).where(row.reservation_id.in_(ids), row.removed_at.is_(None))
    return list(await session.scalars(query.order_by(row.since, row.user)))


def history_entry(row: HistoryRow) -> HistoryEntry:
    return HistoryEntry(
        at=row.at,
        kind=row.kind,
        state=State(row.state),
        reason=row.reason,
        actor=row.actor,
        data=row.data,
    )


def event(row: Entry, view: Reservation) -> Event:
    """A line of history as streams send it; one that is not stored has no id."""
    return Event(id=row.id or 0, kind=row.kind, at=row.at, message=row.reason, reservation=view)


async def reservation(ctx: Context, session: AsyncSession, row: ReservationRow) -> Reservation:
    """One reservation's view."""
    return (await reservations(ctx, session, [row]))[0]


async def reservations(
    ctx: Context, session: AsyncSession, rows: Sequence[ReservationRow]
) -> list[Reservation]:
    """Views of `rows`, in their order, by a constant number of queries."""
    return await _views(ctx, session, rows, await standing_rows(session, [r.id for r in rows]))


async def made(
    ctx: Context, session: AsyncSession, rows: Sequence[ReservationRow]
) -> list[Reservation]:
    """Views of reservations that have just been made: nobody is invited yet."""
    return await _views(ctx, session, rows, ())


async def owned(ctx: Context, session: AsyncSession, rows: Sequence[ReservationRow]) -> Known:
    """Views of `rows` with whose they are."""
    standing = await standing_rows(session, [row.id for row in rows])
    whose = _owners(rows, standing)
    return {view.id: (whose[view.id], view) for view in await _views(ctx, session, rows, standing)}


async def _views(
    ctx: Context,
    session: AsyncSession,
    rows: Sequence[ReservationRow],
    standing: Iterable[CollaboratorRow],
) -> list[Reservation]:
    disks = await _disk_names(session, {r.disk_id for r in rows if r.disk_id})
    # Who waits has neither.
    begun = [row.id for row in rows if State(row.state) not in WAITING]
    places, reached = await _placements(session, begun), await _by_ssh(session, begun)
    places_in_line = await positions(ctx, session, rows)
    limits = await limited.told(ctx, session, rows)
    invited: dict[str, list[CollaboratorRow]] = {}
    for found in standing:
        invited.setdefault(found.reservation_id, []).append(found)
    simulated = frozenset(node.name for node in ctx.fleet.nodes() if node.simulated)
    return [
        _view(
            ctx,
            row,
            disks.get(row.disk_id or ""),
            places.get(row.id, []),
            places_in_line.get(row.id),
            simulated,
        ).model_copy(
            update={
                "collaborators": _collaborators(row, invited.get(row.id, []), ctx.clock.now()),
                "limited_by": limits.get(row.id),
                "ssh_host": ssh_host(row.id) if row.id in reached else None,
            }
        )
        for row in rows
    ]


def ssh_host(reservation_id: str) -> str:
    """The name by which SSH clients know a reservation's server."""
    return f"gpudev-{reservation_id}"


def _collaborators(
    row: ReservationRow, invited: Iterable[CollaboratorRow], now: datetime
) -> list[Collaborator]:
    """Those whose invitation lasts; it never does longer than the lease."""
    return [
        Collaborator(
            user=one.user,
            role=one.role,  # type: ignore[arg-type]  # a constraint allows only these two
            since=one.since,
            until=_earlier(one.until, row.expires_at),
            invited_by=one.invited_by,
        )
        for one in invited
        if one.until is None or now < one.until
    ]


def _earlier(until: datetime | None, expires_at: datetime | None) -> datetime | None:
    return min(until, expires_at) if until and expires_at else until


async def _by_ssh(session: AsyncSession, ids: list[str]) -> set[str]:
    """Those whose servers have published their host keys."""
    if not ids:
        return set()
    row = SshHostRow
    return set(await session.scalars(select(row.reservation_id).where(row.reservation_id.in_(ids))))


def _view(
    ctx: Context,
    row: ReservationRow,
    disk: str | None,
    places: list[NodePlacement],
    position: int | None,
    simulated: frozenset[str],
) -> Reservation:
    state = State(row.state)
    grace = timedelta(seconds=ctx.settings.times.crash_grace)
    restart_until = None
    if row.server_lost_at and row.expires_at and state is State.ACTIVE:
        restart_until = min(row.server_lost_at + grace, row.expires_at)
    where = places or [NodePlacement(node=n, units=[], gpu_ids=[]) for n in row.planned_nodes or []]
    return Reservation(
        id=row.id,
        name=row.name,
        user=row.user,
        server_name=row.server_name,
        gpu_type=row.gpu_type,
        gpus=row.gpus,
        nodes=row.nodes,
        hours=row.hours,
        disk=disk,
        state=state,
        reason=row.reason,
        submitted_at=row.submitted_at,
        booked_for=row.booked_for,
        position=position,
        promised_start=row.planned_start if state in WAITING else None,
        first_promised_start=row.first_promise,
        starts_at=row.starts_at,
        active_at=row.active_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        server_lost_at=row.server_lost_at,
        image=row.image,
        node_labels=row.node_labels or {},
        restart_until=restart_until,
        placement=places,
        extended_hours=row.extension_s / 3600,
        url=_url(ctx, row),
        simulated=any(place.node in simulated for place in where),
    )


def _url(ctx: Context, row: ReservationRow) -> str:
    base = ctx.settings.public_url.rstrip("/")
    user, name = quote(row.user, safe=""), quote(row.server_name, safe="")
    return f"{base}/user/{user}/{name}/lab" if name else f"{base}/user/{user}/lab"


async def _disk_names(session: AsyncSession, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    found = await session.execute(select(DiskRow.id, DiskRow.name).where(DiskRow.id.in_(ids)))
    return {row.id: row.name for row in found}


async def _placements(session: AsyncSession, ids: list[str]) -> dict[str, list[NodePlacement]]:
    if not ids:
        return {}
    found = await session.scalars(
        select(PlacementRow)
        .where(PlacementRow.reservation_id.in_(ids))
        .order_by(PlacementRow.reservation_id, PlacementRow.rank)
    )
    places: dict[str, list[NodePlacement]] = {}
    for row in found:
        places.setdefault(row.reservation_id, []).append(
            NodePlacement(node=row.node, units=row.units, gpu_ids=row.gpu_ids)
        )
    return places


async def publish(
    ctx: Context, entries: Iterable[Entry], known: Known = MappingProxyType({})
) -> None:
    """Tells listeners about committed history entries, each with the present state, and wakes the
    loops. Only what somebody may be listening to is read, and nothing where it is `known` from the
    transaction that has just been committed.

    What is committed stands, also when the database goes away before it can be told: listeners
    are then sent to read the present state anew.
    """
    waiting = list(entries)
    if not waiting:
        return
    ctx.wake.set()
    if not ctx.events.listeners:
        return
    # Somebody acts upon what happened; the many promises that moved with it come after.
    happened = [number for number, entry in enumerate(waiting, 1) if entry.kind != "promise"]
    first = happened[-1] if happened else 0
    moved = range(first, len(waiting), _AT_ONCE)
    try:
        for part in (waiting[:first], *(waiting[at : at + _AT_ONCE] for at in moved)):
            for whose, event in await _told(ctx, part, known):
                ctx.events.publish(whose, event)
    except StoreUnavailable:
        log.warning("%d events could not be told; listeners read anew", len(waiting))
        ctx.events.lose()


async def _told(ctx: Context, entries: Sequence[Entry], known: Known) -> list[tuple[Owner, Event]]:
    ids = {entry.reservation_id for entry in entries}
    found = known if ids <= known.keys() else await _wanted(ctx, ids)
    return [
        (found[entry.reservation_id][0], event(entry, found[entry.reservation_id][1]))
        for entry in entries
        if entry.reservation_id in found
    ]


async def _wanted(ctx: Context, ids: Collection[str]) -> Known:
    """Those among `ids` that somebody may be listening to."""
    wanted = ctx.events.wanted
    named = wanted.reservations.intersection(ids)
    query = select(ReservationRow).where(ReservationRow.id.in_(ids))
    if wanted.users is not None:
        if not (wanted.users or named):
            return {}
        query = query.where(or_(ReservationRow.id.in_(named), concerns(wanted.users)))
    async with ctx.store.reading() as session:
        return await owned(ctx, session, list(await session.scalars(query)))
