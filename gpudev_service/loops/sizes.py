"""Sizes of the disks that are in use: measured now and then, and told where they near the limit."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import or_, select

from gpudev_client.states import State
from gpudev_service.context import Context
from gpudev_service.disks import base as backend
from gpudev_service.operations import disks, servers
from gpudev_service.store.models import DiskRow, ReservationRow

log = logging.getLogger(__name__)

_KEY = "sizes"


async def run(ctx: Context) -> datetime | None:
    """Measures the disks of running leases that were not measured since the lease's start, or for
    `times.measure`. In the background and one after the other: a large tree takes its time."""
    if ctx.disks.takes_sizes:
        return None  # nobody can look at a volume that is in use, and it refuses what does not fit
    if ctx.settings.disk_limit_gb is None or ctx.background.running(_KEY):
        return None
    since = ctx.clock.now() - timedelta(seconds=ctx.settings.times.measure)
    disk, lease = DiskRow, ReservationRow
    due = (
        select(disk.id)
        .join(lease, lease.disk_id == disk.id)
        .where(
            lease.state == State.ACTIVE,
            or_(
                disk.size_measured_at.is_(None),
                disk.size_measured_at <= since,
                disk.size_measured_at <= lease.active_at,
            ),
        )
        .order_by(disk.size_measured_at, disk.id)
    )
    async with ctx.store.reading() as session:
        ids = list(await session.scalars(due))
    if ids:
        ctx.background.start(_KEY, _measure(ctx, ids))
    return None


async def _measure(ctx: Context, ids: list[str]) -> None:
    for disk_id in ids:
        try:
            entries = await disks.measure(ctx, disk_id)
        except backend.DiskError as error:
            log.warning("disk %s could not be measured: %s", disk_id, type(error).__name__)
            continue
        servers.tell(ctx, [entry for entry in entries if entry.kind == "warning"])
