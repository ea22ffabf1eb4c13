"""What follows from the size of a disk. A directory cannot refuse a write, so the limit is soft:
the people of a running lease are told, and no GPUs are given to a disk that is over its limit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.states import State
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.settings import GpuTypeSpec
from gpudev_service.store.models import DiskRow, HistoryRow, ReservationRow

from . import sizes
from .transitions import note

GB = 10**9
#: Percent of the limit at which the people of a running lease are told.
LEVELS = (90, 100)


def limit_bytes(ctx: Context, row: DiskRow) -> int | None:
    """How large a disk may become: its own size, or what the configuration says at this moment."""
    limit = sizes.of(ctx, row) or ctx.settings.disk_limit_gb
    return None if limit is None else limit * GB


def is_over(size: int | None, limit: int | None) -> bool:
    return size is not None and limit is not None and size > limit


def refuse_over(ctx: Context, row: DiskRow, gpu_type: str) -> None:
    """Refuses GPUs to a disk over its limit, where there is another way to clear it up: a type
    without GPUs. Without such a type its owner could not delete a file any more."""
    if ctx.disks.takes_sizes:
        return  # a volume refuses what does not fit
    limit = limit_bytes(ctx, row)
    types = ctx.fleet.types()
    ways = _without_gpus(types)
    if not is_over(row.size_bytes, limit) or gpu_type in ways or not ways:
        return
    raise Refusal(
        "quota",
        f"The disk {row.name!r} has {words.size(row.size_bytes)}, and {words.size(limit)} is the "
        f"limit. Reserve {' or '.join(ways)} with it and delete files, choose another disk, or ask "
        "your operators to raise the limit.",
        field="disk",
        accepted={"max_bytes": limit, "gpu_types": ways},
    )


def _without_gpus(types: Mapping[str, GpuTypeSpec]) -> list[str]:
    return [name for name, spec in types.items() if not spec.gpus_per_node and not spec.maintenance]


async def measured(
    ctx: Context, session: AsyncSession, disk: DiskRow, now: datetime
) -> list[HistoryRow]:
    """What the disk's new size means to the lease that runs on it: an entry in its history where
    the size has passed a level since the entry before, up or down."""
    limit = limit_bytes(ctx, disk)
    if limit is None or disk.size_bytes is None:
        return []
    lease = await session.scalar(
        select(ReservationRow).where(
            ReservationRow.disk_id == disk.id, ReservationRow.state == State.ACTIVE
        )
    )
    if lease is None:
        return []
    level = max((at for at in LEVELS if disk.size_bytes * 100 > limit * at), default=0)
    before = await _level(session, lease)
    if level == before:
        return []
    kind = "warning" if level > before else "note"
    data = {
        "disk": disk.name,
        "percent": level,
        "size_bytes": disk.size_bytes,
        "limit_bytes": limit,
    }
    reason = _words(disk.name, disk.size_bytes, limit, level)
    return [note(session, lease, kind, reason, actor=SERVICE.name, now=now, data=data)]


async def _level(session: AsyncSession, lease: ReservationRow) -> int:
    """The level that the lease's history names last."""
    entries = await session.scalars(
        select(HistoryRow)
        .where(HistoryRow.reservation_id == lease.id, HistoryRow.kind.in_(("warning", "note")))
        .order_by(HistoryRow.id.desc())
    )
    return next((int(entry.data["percent"]) for entry in entries if "percent" in entry.data), 0)


def _words(name: str, size: int, limit: int, level: int) -> str:
    share = f"{words.size(size)} of {words.size(limit)}"
    if level >= LEVELS[-1]:
        return (
            f"Your disk {name!r} is over its limit: {share}. Delete files: as long as it is, no "
            "further lease on GPUs can begin with it."
        )
    if level:
        return f"Your disk {name!r} is nearly full: {share}. Delete files that you do not need."
    return f"Your disk {name!r} has room again: {share}."
