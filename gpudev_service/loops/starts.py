"""Whoever's turn has come starts. Most starts happen in the very transaction that frees capacity;
this loop is for those that only time brings: bookings, promises, capacity that came back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select

from gpudev_client.states import WAITING
from gpudev_service.context import Context
from gpudev_service.operations import planning, views
from gpudev_service.store.models import ReservationRow

from .pace import next_sweep

#: The first promised start of each type. Asked at each change, and so made once.
_NEXT = (
    select(ReservationRow.gpu_type, func.min(ReservationRow.planned_start))
    .where(ReservationRow.state.in_(WAITING))
    .group_by(ReservationRow.gpu_type)
)


async def run(ctx: Context) -> datetime | None:
    """Plans the GPU types in which a start is due; returns the next promised start, or the next
    sweep where one was due: it may have to wait."""
    now = ctx.clock.now()
    async with ctx.store.reading() as session:
        waiting = (await session.execute(_NEXT)).all()
    due = [gpu_type for gpu_type, start in waiting if start is not None and start <= now]
    if due and ctx.fleet.view().fresh:
        outcome = await ctx.store.run(
            lambda session: planning.replan(ctx, session, ctx.clock.now(), due)
        )
        await views.publish(ctx, outcome.entries)
    ahead = [start for _, start in waiting if start and start > now]
    if due:
        ahead.append(next_sweep(ctx))
    return min(ahead, default=None)
