"""Disks: who has which, and what they are used for. Bytes are moved in `snapshots`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.ids import new_id
from gpudev_client.models import (
    Disk,
    DiskChange,
    DiskContents,
    DiskEntry,
    DiskRequest,
    Page,
    ReservationRequest,
)
from gpudev_client.states import LIVE
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.disks import base as backend
from gpudev_service.errors import Refusal, not_found
from gpudev_service.store.models import DiskRow, HistoryRow, ReservationRow, SnapshotRow

from . import cursors, fullness, places, sizes
from . import views as reservation_views

# --- for reservations -------------------------------------------------------------------------


async def check(
    ctx: Context,
    session: AsyncSession,
    user: str,
    request: ReservationRequest,
    groups: tuple[str, ...],
) -> DiskRow | None:
    """The disk that a request names, free to be used (`ONE_LIVE_PER_DISK`); None where it names
    none or a new one."""
    if request.disk is None:
        return None
    row = await find(session, user, request.disk)
    if row is None:
        if not request.create_disk:
            names = list(await session.scalars(_names(user)))
            raise Refusal(
                "invalid_input",
                f"You have no disk {request.disk!r}. "
                + (f"Your disks: {', '.join(names)}." if names else "You have none yet."),
                field="disk",
                accepted=names,
            )
        await _room_for_disk(ctx, session, user, groups)
        return None
    if row.busy:
        raise Refusal(
            "disk_busy", f"The disk {row.name!r} is {row.busy} at the moment.", field="disk"
        )
    holder = await _holder(session, row.id)
    if holder is not None:
        raise Refusal(
            "disk_in_use",
            f"The disk {row.name!r} is in use by your reservation {holder.name!r} "
            f"({holder.id}, {holder.state}). Choose another disk, or end that one first.",
            field="disk",
            accepted={"reservation": holder.id},
        )
    fullness.refuse_over(ctx, row, request.gpu_type)
    return row


async def claim(
    ctx: Context,
    session: AsyncSession,
    user: str,
    request: ReservationRequest,
    groups: tuple[str, ...],
    *,
    now: datetime,
    actor: Actor,
) -> str | None:
    """The id of the disk for a new reservation; a new disk's row is made in the same transaction
    and its directory before the server starts. The lock is the reservation's live state."""
    row = await check(ctx, session, user, request, groups)
    if request.disk is None:
        return None
    if row is None:
        row = _new(ctx, user, request.disk, groups, now)
        session.add(row)
        await _flush(
            session,
            Refusal(
                "disk_busy", f"The disk {row.name!r} is just being made. Try again.", field="disk"
            ),
        )
    row.last_used_at = now
    return row.id


async def ensure(ctx: Context, disk_id: str) -> None:
    """Makes the bytes of a disk that has only a row so far."""
    if await ctx.disks.exists(disk_id):
        return
    async with ctx.store.reading() as session:
        row = await session.get(DiskRow, disk_id)
    try:
        await ctx.disks.create(disk_id, None if row is None else row.size_gb)
    except backend.DiskExists:
        return
    except backend.DiskFull as error:
        raise Refusal("disk_full", "There is no room for another disk.", field="disk") from error


# --- for people -------------------------------------------------------------------------------


async def find(session: AsyncSession, user: str, name: str) -> DiskRow | None:
    """The user's disk of that name that is not deleted."""
    row: DiskRow | None = await session.scalar(
        select(DiskRow).where(
            DiskRow.user == user, DiskRow.name == name, DiskRow.deleted_at.is_(None)
        )
    )
    return row


async def require(session: AsyncSession, user: str, name: str) -> DiskRow:
    row = await find(session, user, name)
    if row is None:
        raise not_found("disk")
    return row


async def listing(
    ctx: Context,
    users: frozenset[str] | None,
    *,
    deleted: bool,
    limit: int,
    cursor: str | None,
) -> Page[Disk]:
    """Disks by name; `users=None` means everybody's. Deleted ones only if asked for."""
    query = select(DiskRow).order_by(DiskRow.user, DiskRow.name, DiskRow.id).limit(limit + 1)
    if users is not None:
        query = query.where(DiskRow.user.in_(users))
    if not deleted:
        query = query.where(DiskRow.deleted_at.is_(None))
    if cursor:
        query = query.offset(cursors.number(cursor))
    async with ctx.store.reading() as session:
        rows = list(await session.scalars(query))
        items = await views(ctx, session, rows[:limit])
    start = cursors.number(cursor) if cursor else 0
    more = len(rows) > limit
    return Page(items=items, next_cursor=cursors.of_number(start + limit) if more else None)


async def get(ctx: Context, user: str, name: str) -> Disk:
    async with ctx.store.reading() as session:
        row = await require(session, user, name)
        return (await views(ctx, session, [row]))[0]


async def create(
    ctx: Context, user: str, request: DiskRequest, groups: tuple[str, ...], actor: Actor
) -> Disk:
    """A new, empty disk."""
    sizes.check(ctx, request.size_gb, groups)
    made = await create_row(ctx, user, request.name, groups, busy=None, size_gb=request.size_gb)
    await ensure(ctx, made)
    return await get(ctx, user, request.name)


async def create_row(
    ctx: Context,
    user: str,
    name: str,
    groups: tuple[str, ...],
    *,
    busy: str | None,
    size_gb: int | None = None,
) -> str:
    """Writes a disk down and returns its id; `busy` while its bytes are still to come."""

    async def work(session: AsyncSession) -> str:
        await _name_free(session, user, name)
        await _room_for_disk(ctx, session, user, groups)
        row = _new(ctx, user, name, groups, ctx.clock.now(), size_gb)
        row.busy = busy
        session.add(row)
        await _flush(session, _taken(name))
        return row.id

    return await ctx.store.run(work)


async def change(
    ctx: Context, user: str, name: str, request: DiskChange, groups: tuple[str, ...], actor: Actor
) -> Disk:
    """Renames a disk, makes it larger, or both."""
    if request.size_gb is not None:
        await _grow(ctx, user, name, request.size_gb, groups)
    if request.name is not None:
        return await rename(ctx, user, name, request.name, actor)
    return await get(ctx, user, name)


async def _grow(ctx: Context, user: str, name: str, size_gb: int, groups: tuple[str, ...]) -> None:
    """First the volume, then the row: repeated after a crash in between it does the same."""
    sizes.check(ctx, size_gb, groups)
    async with ctx.store.reading() as session:
        row = await require(session, user, name)
    if row.busy:
        raise Refusal("disk_busy", f"The disk {name!r} is {row.busy} at the moment.")
    sizes.refuse_smaller(ctx, row, size_gb)
    await ensure(ctx, row.id)
    try:
        await ctx.disks.resize(row.id, size_gb)
    except (backend.DiskFull, backend.DiskBusy):
        raise  # not what was asked for is wrong, but the moment
    except backend.DiskError as error:
        raise Refusal("invalid_input", str(error), field="size_gb") from error

    async def work(session: AsyncSession) -> None:
        now = await require(session, user, name)
        now.size_gb = size_gb

    await ctx.store.run(work)


async def rename(ctx: Context, user: str, name: str, to: str, actor: Actor) -> Disk:
    """Renames a disk; nothing about its bytes, snapshots or a running server changes."""

    async def work(session: AsyncSession) -> None:
        row = await require(session, user, name)
        if to != name:
            await _name_free(session, user, to)
            row.name = to
            await _flush(session, _taken(to))

    await ctx.store.run(work)
    return await get(ctx, user, to)


async def delete(ctx: Context, user: str, name: str, groups: tuple[str, ...], actor: Actor) -> Disk:
    """Marks a disk as deleted; its bytes go when the retention time of the policy is over."""

    async def work(session: AsyncSession) -> Disk:
        row = await require(session, user, name)
        await idle(session, row)
        now = ctx.clock.now()
        days = ctx.settings.policy.of(groups or tuple(row.groups)).disk_retention_days
        row.deleted_at, row.purge_after = now, now + timedelta(days=days)
        await session.flush()
        return (await views(ctx, session, [row]))[0]

    return await ctx.store.run(work)


async def undelete(
    ctx: Context, user: str, name: str, groups: tuple[str, ...], actor: Actor
) -> Disk:
    """Brings back the disk of that name that was deleted last, within its retention time."""

    async def work(session: AsyncSession) -> None:
        row = await session.scalar(
            select(DiskRow)
            .where(DiskRow.user == user, DiskRow.name == name, DiskRow.deleted_at.is_not(None))
            .order_by(DiskRow.deleted_at.desc())
            .limit(1)
        )
        if row is None:
            raise not_found("deleted disk")
        if row.busy:
            raise Refusal("gone", f"The disk {name!r} is being removed for good.")
        await _name_free(session, user, name)
        await _room_for_disk(ctx, session, user, groups)
        row.deleted_at = row.purge_after = None
        await _flush(session, _taken(name))

    await ctx.store.run(work)
    return await get(ctx, user, name)


async def contents(
    ctx: Context,
    user: str,
    name: str,
    *,
    snapshot: str | None,
    path: str,
    limit: int,
    cursor: str | None,
) -> DiskContents:
    """One directory of a disk, or of one of its snapshots (`latest` is the newest)."""
    async with ctx.store.reading() as session:
        row = await require(session, user, name)
        chosen = await _snapshot_id(session, row.id, snapshot) if snapshot else None
    await ensure(ctx, row.id)
    try:
        found = await ctx.disks.contents(row.id, chosen, path, limit=limit, cursor=cursor)
    except backend.ContentsUnknown as error:
        raise Refusal("not_listed", str(error)) from error
    except backend.PathNotFound as error:
        raise Refusal(
            "not_found", "There is no such directory on the disk.", field="path"
        ) from error
    except backend.PathError as error:
        raise Refusal("invalid_input", str(error), field="path") from error
    except backend.InvalidCursor as error:
        raise Refusal("invalid_input", str(error), field="cursor") from error
    except (backend.SnapshotNotFound, backend.DiskNotFound) as error:
        raise not_found("snapshot") from error
    items = [
        DiskEntry(name=e.name, kind=e.kind, size_bytes=e.size_bytes, modified_at=e.modified_at)
        for e in found.entries
    ]
    return DiskContents(items=items, next_cursor=found.following, as_of=found.as_of)


async def measure(ctx: Context, disk_id: str) -> list[HistoryRow]:
    """Takes the disk's size anew and stores it; what that means to the lease that runs on the disk
    is added to its history, and returned."""
    await places.locate(ctx, disk_id)
    try:
        usage = await ctx.disks.usage(disk_id)
    except (backend.DiskNotFound, backend.ContentsUnknown):
        return []  # it has only a row so far, or nobody can look at what is on it

    async def work(session: AsyncSession) -> list[HistoryRow]:
        row = await session.get(DiskRow, disk_id)
        if row is None:
            return []
        now = ctx.clock.now()
        row.size_bytes, row.size_measured_at = usage.allocated_bytes, now
        return await fullness.measured(ctx, session, row, now)

    entries = await ctx.store.run(work)
    await reservation_views.publish(ctx, entries)
    return entries


# --- shared -----------------------------------------------------------------------------------


async def views(ctx: Context, session: AsyncSession, rows: Sequence[DiskRow]) -> list[Disk]:
    """API views of `rows`, in a constant number of queries."""
    ids = [row.id for row in rows]
    users = await session.execute(
        select(ReservationRow.disk_id, ReservationRow.id).where(
            ReservationRow.disk_id.in_(ids), ReservationRow.state.in_(LIVE)
        )
    )
    holders = {row.disk_id: row.id for row in users}
    counted = await session.execute(
        select(SnapshotRow.disk_id, func.count(), func.max(SnapshotRow.taken_at))
        .where(SnapshotRow.disk_id.in_(ids), SnapshotRow.state == "ready")
        .group_by(SnapshotRow.disk_id)
    )
    snapshots = {disk: (count, newest) for disk, count, newest in counted}
    limits = {row.id: fullness.limit_bytes(ctx, row) for row in rows}
    return [
        Disk(
            name=row.name,
            user=row.user,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            size_bytes=row.size_bytes,
            size_measured_at=row.size_measured_at,
            limit_bytes=limits[row.id],
            over_limit=fullness.is_over(row.size_bytes, limits[row.id]),
            size_gb=sizes.of(ctx, row),
            zones=sorted((row.reach or {}).get("zones") or []),
            in_use_by=holders.get(row.id),
            snapshots=snapshots.get(row.id, (0, None))[0],
            last_snapshot_at=snapshots.get(row.id, (0, None))[1],
            deleted_at=row.deleted_at,
            purged_after=row.purge_after,
            busy=ctx.background.progress.get(row.id, row.busy) if row.busy else None,
        )
        for row in rows
    ]


async def idle(session: AsyncSession, row: DiskRow) -> None:
    """Refuses while a live reservation or other work has the disk."""
    if row.busy:
        raise Refusal("disk_busy", f"The disk {row.name!r} is {row.busy} at the moment.")
    holder = await _holder(session, row.id)
    if holder is not None:
        raise Refusal(
            "disk_in_use",
            f"The disk {row.name!r} is in use by the reservation {holder.name!r} ({holder.id}). "
            "End that one first.",
            accepted={"reservation": holder.id},
        )


async def _holder(session: AsyncSession, disk_id: str) -> ReservationRow | None:
    row: ReservationRow | None = await session.scalar(
        select(ReservationRow).where(
            ReservationRow.disk_id == disk_id, ReservationRow.state.in_(LIVE)
        )
    )
    return row


async def _name_free(session: AsyncSession, user: str, name: str) -> None:
    if await find(session, user, name) is not None:
        raise _taken(name)


async def _room_for_disk(
    ctx: Context, session: AsyncSession, user: str, groups: tuple[str, ...]
) -> None:
    most = ctx.settings.policy.of(groups).max_disks
    if most is None:
        return
    have = await session.scalar(
        select(func.count())
        .select_from(DiskRow)
        .where(DiskRow.user == user, DiskRow.deleted_at.is_(None))
    )
    if (have or 0) >= most:
        raise Refusal(
            "quota",
            f"You have {have} disks, and {most} is your limit. Delete one, or use one you have.",
            field="disk",
            accepted={"disks": most},
        )


def _names(user: str) -> Select[Any]:
    return (
        select(DiskRow.name)
        .where(DiskRow.user == user, DiskRow.deleted_at.is_(None))
        .order_by(DiskRow.name)
        .limit(20)
    )


def _new(
    ctx: Context,
    user: str,
    name: str,
    groups: tuple[str, ...],
    now: datetime,
    size_gb: int | None = None,
) -> DiskRow:
    return DiskRow(
        id=new_id(),
        name=name,
        user=user,
        groups=list(groups),
        created_at=now,
        # Another default of tomorrow does not change what this disk has.
        size_gb=sizes.of_new(ctx, size_gb),
    )


def _taken(name: str) -> Refusal:
    return Refusal("name_taken", f"You already have a disk {name!r}.", field="name")


async def _flush(session: AsyncSession, taken: Refusal) -> None:
    """Writes a disk's new name; what the constraint refuses was a race that somebody has won."""
    try:
        await session.flush()
    except IntegrityError as error:
        raise taken from error


async def _snapshot_id(session: AsyncSession, disk_id: str, wanted: str) -> str:
    """The id of a ready snapshot: by its id, or `latest`."""
    query = select(SnapshotRow.id).where(
        SnapshotRow.disk_id == disk_id, SnapshotRow.state == "ready"
    )
    if wanted == "latest":
        query = query.order_by(SnapshotRow.taken_at.desc()).limit(1)
    else:
        query = query.where(SnapshotRow.id == wanted)
    found: str | None = await session.scalar(query)
    if found is None:
        raise not_found("snapshot")
    return found
