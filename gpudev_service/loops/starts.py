"""Whoever's turn has come starts. Most starts happen in the very transaction that frees capacity;
this loop is for those that only time brings: bookings, promises, capacity that came back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import WAITING
from gpudev_service.context import Context
from gpudev_service.operations import facts, kept, planning, views
from gpudev_service.store.models import ReservationRow

from .pace import next_sweep

#: The first promised start of each type but some. Asked at each change, and so made once.
_NEXT = (
    select(ReservationRow.gpu_type, func.min(ReservationRow.planned_start))
    .where(
        ReservationRow.state.in_(WAITING),
        ReservationRow.gpu_type.not_in(bindparam("known", expanding=True)),
    )
    .group_by(ReservationRow.gpu_type)
)


async def run(ctx: Context) -> datetime | None:
    """Plans the GPU types in which a start is due; returns the next promised start, or the next
    sweep where one was due: it may have to wait."""
    now = ctx.clock.now()
    async with ctx.store.reading() as session:
        waiting = await _next(ctx, session)
    due = [gpu_type for gpu_type, start in waiting.items() if start <= now]
    if due and ctx.fleet.view().fresh:
        outcome = await ctx.store.run(
            lambda session: planning.replan(ctx, session, ctx.clock.now(), due)
        )
        await views.publish(ctx, outcome.entries)
    ahead = [start for start in waiting.values() if start > now]
    if due:
        ahead.append(next_sweep(ctx))
    return min(ahead, default=None)


async def _next(ctx: Context, session: AsyncSession) -> dict[str, datetime]:
    """The first promised start of each type in which anybody has one: by the plan where it is at
    hand, since the database goes through all who wait."""
    found: dict[str, datetime] = {}
    known = []
    for gpu_type in ctx.fleet.types():
        plan = await kept.at_hand(ctx, session, gpu_type)
        if plan is not None:
            known.append(gpu_type)
            start = plan.live.next_start_ms()
            if start is not None:
                found[gpu_type] = facts.from_ms(start)
    others = await session.execute(_NEXT, {"known": known})
    return found | {gpu_type: start for gpu_type, start in others if start is not None}
