"""What is kept for a time goes when its time is over: deleted disks, old snapshots, old keys,
reservations that ended long ago."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import UpdateBase, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import FINAL
from gpudev_service.context import Context
from gpudev_service.disks import base as backend
from gpudev_service.disks.retention import RetentionPolicy, SnapshotRecord, to_delete
from gpudev_service.kube import KubeAway, KubeRefused
from gpudev_service.operations import doubts, servers, sizes, snapshots
from gpudev_service.store.memory import CHANGES
from gpudev_service.store.models import (
    Base,
    DiskRow,
    IdempotencyRow,
    ReservationRow,
    SnapshotRow,
)

from .failures import Failures

log = logging.getLogger(__name__)

#: How long the answer to an Idempotency-Key is remembered, at least.
KEYS_KEPT = timedelta(hours=24)
#: How many ended reservations go in one transaction, and how many transactions one run makes: the
#: next run goes on. Somebody who reserves waits for one transaction at most.
BATCH, BATCHES = 100, 50
#: The same of keys; a row of theirs is gone faster.
KEYS_BATCH, KEYS_BATCHES = 1000, 1000


async def run(ctx: Context) -> datetime | None:
    """Purges what is due, one disk after the other, and what killed processes left behind. A disk
    that cannot be worked on is in no other's way; what failed is raised at the end. While the time
    of day is in doubt, nothing goes that a date decides about."""
    failures = Failures("several disks could not be worked on")
    now, doubt = ctx.clock.now(), doubts.about_removing(ctx)
    if doubt is not None:
        log.info("nothing is removed for good now: %s", doubt.why)
    async with ctx.store.reading() as session:
        disks = list(await session.scalars(select(DiskRow).order_by(DiskRow.id)))
    for disk in disks:
        with failures.apart():
            await _disk(ctx, disk, now, removes=doubt is None)
    if doubt is None:
        await _forget_keys(ctx, now)
        await _forget_reservations(ctx, now)
    await _scratch(ctx)
    await _folders(ctx)
    with failures.apart():
        await ctx.disks.clean_up()
    failures.tell()
    return None if doubt is None else doubt.until


async def _disk(ctx: Context, disk: DiskRow, now: datetime, *, removes: bool) -> None:
    if disk.size_gb is None and ctx.disks.takes_sizes:
        await sizes.learn(ctx, disk.id)  # made by a version that did not write it down
    if disk.purge_after is None:
        await _snapshots(ctx, disk, now, removes=removes)
    elif removes and disk.purge_after <= now:
        await snapshots.purge(ctx, disk.id)


async def _scratch(ctx: Context) -> None:
    """Removes homes of servers without a disk whose reservation is over: a server that was just
    being started, or a crash, may have left one."""
    top = servers.scratch(ctx, "")
    names = await asyncio.to_thread(_names, top)
    if not names:
        return
    async with ctx.store.reading() as session:
        over = list(
            await session.scalars(
                select(ReservationRow.id).where(
                    ReservationRow.id.in_(names), ReservationRow.state.in_(FINAL)
                )
            )
        )
    for key in over:
        await asyncio.to_thread(shutil.rmtree, servers.scratch(ctx, key), ignore_errors=True)


async def _folders(ctx: Context) -> None:
    """Removes folders that the nodes of a lease shared and that its end could not remove."""
    if ctx.shared is None:
        return
    try:
        there = await ctx.shared.reservations()
        async with ctx.store.reading() as session:
            row = ReservationRow
            over = await session.scalars(
                select(row.id).where(row.id.in_(there), row.state.in_(FINAL)).order_by(row.id)
            )
        for key in over:
            await ctx.shared.remove(key)
    except (KubeAway, KubeRefused) as error:
        log.warning("shared folders could not be tidied: %s", error)


def _names(top: Path) -> list[str]:
    return sorted(path.name for path in top.iterdir()) if top.is_dir() else []


async def _snapshots(ctx: Context, disk: DiskRow, now: datetime, *, removes: bool) -> None:
    """Removes the snapshots that policy no longer keeps; the newest always stays. Where its files
    could not be listed when it was taken, that is tried again."""
    policy = ctx.settings.policy.of(disk.groups)
    async with ctx.store.reading() as session:
        found = list(
            await session.scalars(
                select(SnapshotRow).where(
                    SnapshotRow.disk_id == disk.id, SnapshotRow.state == "ready"
                )
            )
        )
    records = [SnapshotRecord(id=row.id, taken_at=row.taken_at) for row in found]
    keep = RetentionPolicy(policy.snapshots_kept, policy.disk_retention_days)
    gone = to_delete(records, keep, now) if removes else []
    for key in gone:
        await _remove(ctx, disk.id, key)
    left = [row for row in found if row.id not in gone]
    newest = max(left, key=lambda row: (row.taken_at, row.id), default=None)
    if newest is not None and newest.files is None:
        key = f"index:{newest.id}"
        ctx.background.start(key, snapshots.index(ctx, disk.id, newest.id))


async def _remove(ctx: Context, disk_id: str, snapshot_id: str) -> None:
    try:
        await ctx.disks.delete_snapshot(disk_id, snapshot_id)
    except (backend.SnapshotNotFound, backend.DiskNotFound):
        log.info("snapshot %s had no bytes", snapshot_id)
    except backend.DiskBusy:
        return  # somebody reads it; the next run tries again

    async def work(session: AsyncSession) -> None:
        row = await session.get(SnapshotRow, snapshot_id)
        if row is not None:
            await session.delete(row)

    await ctx.store.run(work)


async def _forget_keys(ctx: Context, now: datetime) -> None:
    row = IdempotencyRow
    old = select(row.caller, row.key).where(row.created_at < now - KEYS_KEPT).limit(KEYS_BATCH)
    gone = delete(row).where(tuple_(row.caller, row.key).in_(old)).returning(row.key)

    async def work(session: AsyncSession) -> int:
        return len((await session.scalars(gone)).all())

    for _ in range(KEYS_BATCHES):
        if await ctx.store.run(work) < KEYS_BATCH:
            return


async def _forget_reservations(ctx: Context, now: datetime) -> None:
    """Removes reservations that ended too long ago, the oldest first, with all that belongs to
    them. Ids of events are never given again: who comes back misses only what is gone."""
    days = ctx.settings.history_days
    if days is None:
        return
    row = ReservationRow
    old = (
        select(row.id)
        .where(row.ended_at < now - timedelta(days=days), row.state.in_(FINAL))
        .order_by(row.ended_at)
        .limit(BATCH)
    )
    for _ in range(BATCHES):
        async with ctx.store.reading() as session:
            ids = list(await session.scalars(old))
        if ids:
            await ctx.store.run(partial(_forget, ids))
            log.info("%d reservations that ended %d days ago are forgotten", len(ids), days)
        if len(ids) < BATCH:
            return


async def _forget(ids: list[str], session: AsyncSession) -> None:
    """Removes what refers to the reservations, then them; what is more than theirs (the snapshot
    of a disk) only forgets where it came from. A final state is never left, so `ids` stay right,
    and no plan has any of them."""
    for table, column in _REFERRING:
        theirs = column.in_(ids)
        if column.nullable:
            statement: UpdateBase = update(table).where(theirs).values({column: None})
        else:
            statement = delete(table).where(theirs)
        await session.execute(statement, execution_options=_NO_PLAN)
    mine = delete(ReservationRow).where(ReservationRow.id.in_(ids))
    await session.execute(mine, execution_options=_NO_PLAN)


_NO_PLAN: Mapping[str, Any] = MappingProxyType({CHANGES: ()})

#: Every column that refers to a reservation, with its table.
_REFERRING = tuple(
    (table, key.parent)
    for table in Base.metadata.sorted_tables
    for key in table.foreign_keys
    if key.column is ReservationRow.__table__.c.id
)
