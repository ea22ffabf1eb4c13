"""Sizes of disks that have one: what may be asked for. A directory has none; its limit is the
operator's, for all disks alike."""

from __future__ import annotations

import logging

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.context import Context
from gpudev_service.disks import base as backend
from gpudev_service.errors import Refusal
from gpudev_service.store.models import DiskRow

log = logging.getLogger(__name__)


def of(ctx: Context, row: DiskRow) -> int | None:
    """A disk's own size in GB; None where disks have none. What a disk is made with is kept in its
    row; where an earlier version has not done that, `learn` does."""
    return of_new(ctx, row.size_gb)


def of_new(ctx: Context, asked: int | None) -> int | None:
    """What a disk is made with for which somebody asks this size, or none; None where disks have no
    sizes."""
    if not ctx.disks.takes_sizes:
        return None
    return asked or ctx.settings.kubernetes.disk_size_gb


async def learn(ctx: Context, disk_id: str) -> None:
    """Keeps in a disk's row the size that it has."""
    try:
        size = await ctx.disks.size_gb(disk_id)
    except backend.DiskNotFound:
        return  # it has only a row so far, and is made as that says
    except backend.DiskError as error:
        log.warning("the size of disk %s could not be found out: %s", disk_id, error)
        return

    async def work(session: AsyncSession) -> None:
        row = await session.get(DiskRow, disk_id)
        if row is not None and size is not None:
            row.size_gb = max(size, row.size_gb or 0)  # it may have grown since

    if size is not None:
        await ctx.store.run(work)


def check(ctx: Context, size_gb: int | None, groups: tuple[str, ...]) -> None:
    """Refuses a size that may not be asked for."""
    if size_gb is None:
        return
    if not ctx.disks.takes_sizes:
        limit = ctx.settings.disk_limit_gb
        same = "no limit" if limit is None else f"the same limit, {limit} GB"
        raise Refusal(
            "invalid_input",
            f"Disks have no sizes of their own here: all have {same}. Leave the size out.",
            field="size_gb",
        )
    most = ctx.settings.policy.of(groups).max_disk_gb
    if most is not None and size_gb > most:
        raise Refusal(
            "policy_limit",
            f"You asked for a disk of {size_gb} GB, and {most} GB is your limit.",
            field="size_gb",
            accepted={"min": 1, "max": most},
        )


def refuse_smaller(ctx: Context, row: DiskRow, size_gb: int) -> None:
    now = of(ctx, row)
    if now is not None and size_gb < now:
        raise Refusal(
            "invalid_input",
            f"The disk {row.name!r} has {now} GB, and a disk cannot be made smaller.",
            field="size_gb",
            accepted={"min": now},
        )
