"""Where a disk can be used: its storage decides that with its first use; planning has to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import WAITING
from gpudev_service.context import Context
from gpudev_service.disks import base as backend
from gpudev_service.disks.reach import Reach
from gpudev_service.settings import NodeSpec
from gpudev_service.store.models import DiskRow, ReservationRow


async def locate(ctx: Context, disk_id: str) -> None:
    """Stores where a disk can be used, which only its first use decides."""
    try:
        reach = await ctx.disks.reach(disk_id)
    except backend.DiskNotFound:
        return  # it has only a row so far

    async def work(session: AsyncSession) -> None:
        row = await session.get(DiskRow, disk_id)
        if row is not None:
            row.reach = None if reach is None else reach.to_json()

    async with ctx.store.reading() as session:
        row = await session.get(DiskRow, disk_id)
        known = None if row is None else row.reach
    if known != (None if reach is None else reach.to_json()):
        await ctx.store.run(work)


async def areas(
    session: AsyncSession, specs: Sequence[NodeSpec], wanted: set[str] | None
) -> dict[str, frozenset[str]]:
    """The nodes on which a waiting reservation can have its disk, where that are not all."""
    query = (
        select(ReservationRow.id, DiskRow.reach)
        .join(DiskRow, DiskRow.id == ReservationRow.disk_id)
        .where(ReservationRow.state.in_(WAITING), DiskRow.reach.is_not(None))
    )
    if wanted is not None:
        query = query.where(ReservationRow.gpu_type.in_(wanted))
    found: dict[str, frozenset[str]] = {}
    known: dict[Reach, frozenset[str]] = {}
    for key, value in await session.execute(query):
        reach = Reach.from_json(value)
        if reach not in known:
            known[reach] = area(reach, specs)
        found[key] = known[reach]
    return found


def area(reach: Reach, specs: Iterable[NodeSpec]) -> frozenset[str]:
    """The names of the nodes that a disk can be used on."""
    return frozenset(spec.name for spec in specs if reach.covers(spec.zone, spec.machine))
