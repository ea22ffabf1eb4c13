"""Leases end: at their time, when their server does not come up, when it is not started again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.states import State
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.operations import views
from gpudev_service.operations.transitions import transition
from gpudev_service.settings import Times
from gpudev_service.store.models import HistoryRow, ReservationRow

_RUNNING = (State.PREPARING, State.ACTIVE)


def verdict(row: ReservationRow, times: Times, now: datetime) -> tuple[State, str] | None:
    """The final state that a lease is due for and the reason, or None while it may go on."""
    if row.expires_at is not None and row.expires_at <= now:
        return State.EXPIRED, "The lease has ended as agreed."
    limit = timedelta(seconds=times.start_limit)
    if row.state == State.PREPARING and row.starts_at is not None and row.starts_at + limit <= now:
        return State.FAILED, (
            f"The server did not come up within {words.duration(times.start_limit)}, so the GPUs "
            "were given back. Try again; if it happens again, tell your administrator."
        )
    grace = timedelta(seconds=times.crash_grace)
    if row.server_lost_at is not None and row.server_lost_at + grace <= now:
        return State.FAILED, (
            "The server ended unexpectedly and was not started again within "
            f"{words.duration(times.crash_grace)}, so the GPUs were given back."
        )
    return None


async def run(ctx: Context) -> datetime | None:
    """Moves every lease that is due to `stopping`; returns the next lease's end."""
    times = ctx.settings.times
    # Without anything due there is no write transaction.
    async with ctx.store.reading() as session:
        rows = list(await session.scalars(_running()))
        due = [row.id for row in rows if verdict(row, times, ctx.clock.now())]
        following = await session.scalar(
            select(func.min(ReservationRow.expires_at)).where(
                ReservationRow.state.in_(_RUNNING), ReservationRow.id.not_in(due)
            )
        )
    if due:
        await views.publish(ctx, await ctx.store.run(lambda session: _end(ctx, session, due)))
    return following


def _running() -> Select[Any]:
    return select(ReservationRow).where(ReservationRow.state.in_(_RUNNING))


async def _end(ctx: Context, session: AsyncSession, due: list[str]) -> list[HistoryRow]:
    now = ctx.clock.now()
    entries = []
    for row in await session.scalars(_running().where(ReservationRow.id.in_(due))):
        final = verdict(row, ctx.settings.times, now)
        if final is not None:
            target, reason = final
            entries.append(
                transition(
                    session,
                    row,
                    State.STOPPING,
                    reason=reason,
                    actor=SERVICE.name,
                    now=now,
                    target=target,
                )
            )
    return entries
