"""Long work on disks: snapshots, clones, restorations.

Each is written down first (`taking`, `busy`), done in the background, and finished in a second
transaction. After a crash `resume` takes up what was written down: the backend makes disks and
snapshots appear whole or not at all, so repeating is always right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.ids import new_id
from gpudev_client.models import CloneRequest, Disk, Page, RestoreRequest, Snapshot
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.disks import base as backend
from gpudev_service.errors import Refusal, not_found
from gpudev_service.store.memory import CHANGES
from gpudev_service.store.models import DiskRow, ReservationRow, SnapshotRow

from . import cursors, disks, sizes

log = logging.getLogger(__name__)

#: How long the snapshot at a lease's end waits for another one of the same disk.
BUSY_LIMIT = timedelta(hours=1)
CLONING, RESTORING, PURGING = "being cloned", "being restored", "being removed"


async def listing(
    ctx: Context, user: str, name: str, limit: int, cursor: str | None
) -> Page[Snapshot]:
    """A disk's snapshots, newest first."""
    start = cursors.number(cursor) if cursor else 0
    async with ctx.store.reading() as session:
        disk = await disks.require(session, user, name)
        rows = list(
            await session.scalars(
                select(SnapshotRow)
                .where(SnapshotRow.disk_id == disk.id)
                .order_by(SnapshotRow.taken_at.desc(), SnapshotRow.id)
                .offset(start)
                .limit(limit + 1)
            )
        )
    items = [_view(ctx, row, disk.name) for row in rows[:limit]]
    following = cursors.of_number(start + limit) if len(rows) > limit else None
    return Page(items=items, next_cursor=following)


async def newest(ctx: Context, session: AsyncSession, disk: DiskRow, count: int) -> list[Snapshot]:
    """A disk's newest snapshots."""
    rows = await session.scalars(
        select(SnapshotRow)
        .where(SnapshotRow.disk_id == disk.id)
        .order_by(SnapshotRow.taken_at.desc(), SnapshotRow.id)
        .limit(count)
    )
    return [_view(ctx, row, disk.name) for row in rows]


async def take(ctx: Context, user: str, name: str, note: str | None, actor: Actor) -> Snapshot:
    """Begins a snapshot of a disk, used or not; the answer comes before its bytes are there."""
    await _can(ctx)

    async def work(session: AsyncSession) -> tuple[SnapshotRow, str]:
        disk = await disks.require(session, user, name)
        if disk.busy:
            raise Refusal("disk_busy", f"The disk {name!r} is {disk.busy} at the moment.")
        going = await session.scalar(
            select(SnapshotRow).where(SnapshotRow.disk_id == disk.id, SnapshotRow.state == "taking")
        )
        if going is not None:
            return going, disk.name
        return _begin(session, disk.id, "person", ctx.clock.now(), note=note), disk.name

    row, shown = await ctx.store.run(work)
    ctx.background.start(f"snapshot:{row.id}", _copy(ctx, row.disk_id, row.id))
    return _view(ctx, row, shown)


async def take_at_end(ctx: Context, disk_id: str, reservation_id: str) -> SnapshotRow:
    """The snapshot at a lease's end, waited for. Called again after a crash it goes on with the
    same one. A snapshot that failed is said so; the disk itself is untouched by that.

    Raises:
        DiskBusy: another snapshot of the disk is under way; to be called again. No longer than
            `BUSY_LIMIT`: then it counts as failed.
    """

    async def work(session: AsyncSession) -> SnapshotRow:
        row = await session.scalar(
            select(SnapshotRow).where(
                SnapshotRow.reservation_id == reservation_id, SnapshotRow.cause == "end"
            )
        )
        return row or _begin(
            session, disk_id, "end", ctx.clock.now(), reservation_id=reservation_id
        )

    row = await ctx.store.run(work)
    if row.state == "taking":
        await _copy(ctx, disk_id, row.id, wait_until=row.taken_at + BUSY_LIMIT)
    async with ctx.store.reading() as session:
        return await session.get_one(SnapshotRow, row.id)


async def clone(
    ctx: Context,
    user: str,
    name: str,
    request: CloneRequest,
    groups: tuple[str, ...],
    actor: Actor,
) -> Disk:
    """Begins a new disk from another one, or from one of its snapshots."""
    await _can(ctx)
    async with ctx.store.reading() as session:
        source = await disks.require(session, user, name)
        chosen = await _choose(session, source.id, request.snapshot, request.at)
    # Begun without a pause after the commit: `resume` takes what nobody works on for interrupted.
    target = await disks.create_row(
        ctx, user, request.name, groups, busy=CLONING, size_gb=sizes.of(ctx, source)
    )
    ctx.background.start(f"disk:{target}", _clone(ctx, source.id, target, chosen))
    return await disks.get(ctx, user, request.name)


async def restore(
    ctx: Context,
    user: str,
    name: str,
    request: RestoreRequest,
    groups: tuple[str, ...],
    actor: Actor,
) -> Disk:
    """Undoes a deletion, or puts a disk back to a snapshot (after a snapshot of its present)."""
    if request.snapshot is None and request.at is None:
        return await disks.undelete(ctx, user, name, groups, actor)
    await _can(ctx)

    async def work(session: AsyncSession) -> tuple[str, str]:
        row = await disks.require(session, user, name)
        await disks.idle(session, row)
        chosen = await _choose(session, row.id, request.snapshot, request.at)
        if chosen is None:
            raise not_found("snapshot")
        row.busy = RESTORING
        return row.id, chosen

    disk_id, chosen = await ctx.store.run(work)
    ctx.background.start(f"disk:{disk_id}", _restore(ctx, disk_id, chosen))
    return await disks.get(ctx, user, name)


async def _can(ctx: Context) -> None:
    """Refuses what needs snapshots where disks have none."""
    try:
        await ctx.disks.require_snapshots()
    except backend.NoSnapshots as error:
        raise Refusal(
            "impossible",
            f"{error} So no disk is snapshotted, cloned or put back here. Copy what you want to "
            "keep to another place while a server has the disk, over SSH for example.",
        ) from error


async def resume(ctx: Context) -> None:
    """Takes up what a crash has interrupted. A restoration that had not been decided is given up:
    the backend left the disk as it was; the person sees it and can ask again.

    Raises:
        DiskError: disks that nobody works on could not be looked at; to be called again.
    """
    async with ctx.store.reading() as session:
        taking = list(
            await session.scalars(
                select(SnapshotRow).where(SnapshotRow.state == "taking", SnapshotRow.cause != "end")
            )
        )
        busy = list(await session.scalars(select(DiskRow).where(DiskRow.busy.is_not(None))))
    interrupted = [row for row in taking if not ctx.background.running(f"snapshot:{row.id}")]
    idle = [disk for disk in busy if not ctx.background.running(f"disk:{disk.id}")]
    failures: list[backend.DiskError] = []
    if interrupted or idle:
        try:
            await ctx.disks.clean_up()
        except backend.DiskError as error:
            failures.append(error)
    for row in interrupted:
        ctx.background.start(f"snapshot:{row.id}", _copy(ctx, row.disk_id, row.id))
    for disk in idle:
        if disk.busy == PURGING:
            continue  # the retention loop purges it again
        try:
            there = await ctx.disks.exists(disk.id)
        except backend.DiskError as error:
            failures.append(error)
        else:
            await _give_up(ctx, disk.id, drop=not there)
    if failures:
        raise failures[0]


async def _give_up(ctx: Context, disk_id: str, *, drop: bool) -> None:
    """Settles a disk that still nobody works on; inside the transaction, since the work may have
    been written down after `resume` looked, and is begun as soon as that is committed."""

    async def work(session: AsyncSession) -> None:
        if not ctx.background.running(f"disk:{disk_id}"):
            await _settled(session, disk_id, drop=drop)

    await ctx.store.run(work)


async def purge(ctx: Context, disk_id: str) -> bool:
    """Removes a deleted disk for good, first the bytes, then the rows. False where it was restored
    meanwhile, or is still needed. Called again, also after a crash, it goes on."""

    async def mark(session: AsyncSession) -> bool:
        row = await session.get(DiskRow, disk_id)
        if row is None or row.purge_after is None or row.purge_after > ctx.clock.now():
            return False
        row.busy = PURGING
        return True

    if not await ctx.store.run(mark):
        return False
    try:
        await ctx.disks.purge(disk_id)
    except backend.DiskNotFound:
        log.info("disk %s had no bytes", disk_id)
    except backend.DiskBusy as error:
        log.warning("disk %s stays for now: %s", disk_id, error)
        return False
    await _settle(ctx, disk_id, drop=True)
    return True


# --- the work itself --------------------------------------------------------------------------


async def _copy(
    ctx: Context, disk_id: str, snapshot_id: str, *, wait_until: datetime | None = None
) -> None:
    """Takes the bytes of a snapshot that is written down as `taking`.

    Raises:
        DiskBusy: before `wait_until`; the row stays as it is.
    """
    info: backend.SnapshotInfo | None = None
    note = None
    try:
        await disks.ensure(ctx, disk_id)
        info = await _bytes(ctx, disk_id, snapshot_id)
    except backend.DiskBusy as error:
        if wait_until is not None and ctx.clock.now() < wait_until:
            raise
        note = str(error)
    except (backend.DiskError, Refusal) as error:
        note = str(error) or "The snapshot could not be taken."
        log.warning("snapshot %s failed: %s: %s", snapshot_id, type(error).__name__, error)
    except OSError:
        note = "The snapshot could not be taken."
        log.exception("snapshot %s failed", snapshot_id)
    finally:
        ctx.background.progress.pop(snapshot_id, None)

    async def finish(session: AsyncSession) -> None:
        row = await session.get(SnapshotRow, snapshot_id)
        if row is None or row.state != "taking":
            return
        if info is None:
            row.state, row.note = "failed", note
            return
        row.state = "ready"
        row.size_bytes, row.new_bytes, row.files = info.size_bytes, info.new_bytes, info.files

    await ctx.store.run(finish)
    if info is not None and info.files is None:
        ctx.background.start(f"index:{snapshot_id}", index(ctx, disk_id, snapshot_id))


async def index(ctx: Context, disk_id: str, snapshot_id: str) -> None:
    """Has the files of a snapshot listed that cannot be looked at; beside everything else, since it
    takes its time. One that fails is tried again by the retention loop."""
    try:
        info = await ctx.disks.index(disk_id, snapshot_id)
    except backend.DiskError as error:
        log.warning("snapshot %s could not be listed: %s", snapshot_id, error)
        return
    if info is None:
        return

    async def finish(session: AsyncSession) -> None:
        row = await session.get(SnapshotRow, snapshot_id)
        if row is not None:
            row.size_bytes, row.new_bytes, row.files = info.size_bytes, info.new_bytes, info.files

    await ctx.store.run(finish)
    await disks.measure(ctx, disk_id)


async def _bytes(ctx: Context, disk_id: str, snapshot_id: str) -> backend.SnapshotInfo:
    """The snapshot itself; one that a crash left complete is taken as it is."""
    try:
        return await ctx.disks.snapshot(disk_id, snapshot_id, _progress(ctx, snapshot_id))
    except backend.SnapshotExists:
        for info in await ctx.disks.snapshots(disk_id):
            if info.id == snapshot_id:
                return info
        raise


async def _clone(ctx: Context, source: str, target: str, snapshot_id: str | None) -> None:
    try:
        await disks.ensure(ctx, source)
        await ctx.disks.clone(source, target, snapshot_id, _progress(ctx, target))
    except backend.DiskExists:
        log.info("disk %s was already complete", target)
    except (backend.DiskError, Refusal) as error:
        log.warning("cloning to %s failed: %s: %s", target, type(error).__name__, error)
        try:
            there = await ctx.disks.exists(target)
        except backend.DiskError:
            return  # whether it is there nobody knows: `resume` finds out
        await _settle(ctx, target, drop=not there)
        return
    finally:
        ctx.background.progress.pop(target, None)
    # The source may have grown since the new disk was written down.
    await sizes.learn(ctx, target)
    await _settle(ctx, target, drop=False)
    await disks.measure(ctx, target)


async def _restore(ctx: Context, disk_id: str, snapshot_id: str) -> None:
    """A safety snapshot, then the swap; without the first there is no second. Its note tells of a
    swap that went wrong."""

    async def begin(session: AsyncSession) -> SnapshotRow:
        return _begin(session, disk_id, "safety", ctx.clock.now(), note="Before a restoration.")

    try:
        safety = await ctx.store.run(begin)
        await _copy(ctx, disk_id, safety.id)
        async with ctx.store.reading() as session:
            taken = await session.get_one(SnapshotRow, safety.id)
        if taken.state == "ready":
            await _swap(ctx, disk_id, snapshot_id, safety.id)
    finally:
        ctx.background.progress.pop(disk_id, None)
        await _settle(ctx, disk_id, drop=False)


async def _swap(ctx: Context, disk_id: str, snapshot_id: str, safety: str) -> None:
    try:
        await ctx.disks.restore(disk_id, snapshot_id, _progress(ctx, disk_id))
        return
    except backend.DiskError as error:
        log.warning("restoring %s failed: %s: %s", disk_id, type(error).__name__, error)
        note = f"Before a restoration that went wrong: {error}"

    async def work(session: AsyncSession) -> None:
        row = await session.get(SnapshotRow, safety)
        if row is not None:
            row.note = note

    await ctx.store.run(work)


async def _settle(ctx: Context, disk_id: str, *, drop: bool) -> None:
    """Ends a disk's `busy`; `drop` removes the rows of one that is not (or no longer) there."""

    await ctx.store.run(lambda session: _settled(session, disk_id, drop=drop))


async def _settled(session: AsyncSession, disk_id: str, *, drop: bool) -> None:
    row = await session.get(DiskRow, disk_id)
    if row is None:
        return
    row.busy = None
    if drop:
        await _forget(session, row)


async def _forget(session: AsyncSession, row: DiskRow) -> None:
    """Removes the rows of a disk whose bytes are gone; reservations keep their own history. One
    that waits or holds GPUs has never a disk that is not there, so no plan has any of them."""
    await session.execute(
        update(ReservationRow).where(ReservationRow.disk_id == row.id).values(disk_id=None),
        execution_options={CHANGES: ()},
    )
    await session.execute(delete(SnapshotRow).where(SnapshotRow.disk_id == row.id))
    await session.delete(row)


def _begin(
    session: AsyncSession,
    disk_id: str,
    cause: str,
    now: datetime,
    *,
    note: str | None = None,
    reservation_id: str | None = None,
) -> SnapshotRow:
    row = SnapshotRow(
        id=new_id(),
        disk_id=disk_id,
        reservation_id=reservation_id,
        taken_at=now,
        cause=cause,
        state="taking",
        note=note,
    )
    session.add(row)
    return row


async def _choose(
    session: AsyncSession, disk_id: str, wanted: str | None, at: datetime | None
) -> str | None:
    """The ready snapshot of that id, or the newest at or before `at`; None where neither is
    given."""
    if wanted is None and at is None:
        return None
    query = select(SnapshotRow.id).where(
        SnapshotRow.disk_id == disk_id, SnapshotRow.state == "ready"
    )
    if wanted is not None and wanted != "latest":
        query = query.where(SnapshotRow.id == wanted)
    if at is not None:
        query = query.where(SnapshotRow.taken_at <= at)
    found: str | None = await session.scalar(query.order_by(SnapshotRow.taken_at.desc()).limit(1))
    if found is None:
        raise not_found("snapshot")
    return found


def _progress(ctx: Context, key: str) -> Callable[[int, int], None]:
    def report(files: int, size: int) -> None:
        ctx.background.progress[key] = f"{files} files, {size / 1e6:.1f} MB copied"

    return report


def _view(ctx: Context, row: SnapshotRow, disk: str) -> Snapshot:
    return Snapshot(
        id=row.id,
        disk=disk,
        taken_at=row.taken_at,
        cause=row.cause,
        state=row.state,  # type: ignore[arg-type]  # a constraint allows only these three
        size_bytes=row.size_bytes,
        new_bytes=row.new_bytes,
        files=row.files,
        progress=ctx.background.progress.get(row.id),
        note=row.note,
    )
