"""Warnings before a lease ends: in history, event streams, terminals and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, Row, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.states import State
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.operations import servers, views
from gpudev_service.operations.transitions import note
from gpudev_service.store.models import HistoryRow, ReservationRow

# These are asked at each change: they are made once, and find leases by their end.
_row = ReservationRow
_horizon: BindParameter[datetime] = bindparam("horizon")
_NEAR = select(_row.id, _row.starts_at, _row.expires_at, _row.warned).where(
    _row.state == State.ACTIVE, _row.expires_at <= _horizon
)
_BEYOND = select(func.min(_row.expires_at)).where(
    _row.state == State.ACTIVE, _row.expires_at > _horizon
)


def due(
    row: ReservationRow | Row[Any], minutes: Sequence[int], now: datetime
) -> tuple[int | None, list[int]]:
    """(The warning to give now, all that count as given after it).

    When several are due at once only the most urgent is given. A lease that was never longer than a
    warning's time does not get that one: it would come with the start.
    """
    if row.expires_at is None or row.starts_at is None or row.expires_at <= now:
        return None, list(row.warned)
    length = row.expires_at - row.starts_at
    fitting = [m for m in minutes if timedelta(minutes=m) < length]
    passed = [m for m in fitting if row.expires_at - timedelta(minutes=m) <= now]
    fresh = [m for m in passed if m not in row.warned]
    return (min(fresh) if fresh else None), sorted({*row.warned, *passed})


async def run(ctx: Context) -> datetime | None:
    """Gives every warning that is due; returns the moment of the next one."""
    minutes = ctx.settings.times.warnings
    if not minutes:
        return None
    now = ctx.clock.now()
    # Only leases whose end is near are read; the first beyond gives the moment of its warning.
    horizon = now + timedelta(minutes=max(minutes))
    async with ctx.store.reading() as session:
        rows = (await session.execute(_NEAR, {"horizon": horizon})).all()
        beyond = await session.scalar(_BEYOND, {"horizon": horizon})
    chosen = [row.id for row in rows if due(row, minutes, now)[0] is not None]
    if chosen:
        entries = await ctx.store.run(lambda session: _warn(ctx, session, chosen))
        await views.publish(ctx, entries)
        servers.tell(ctx, entries)
    ends = [row.expires_at for row in rows if row.expires_at] + ([beyond] if beyond else [])
    ahead = [end - timedelta(minutes=m) for end in ends for m in minutes]
    return min((moment for moment in ahead if moment > now), default=None)


async def _warn(ctx: Context, session: AsyncSession, chosen: list[str]) -> list[HistoryRow]:
    now = ctx.clock.now()
    entries = []
    query = select(_row).where(_row.state == State.ACTIVE, _row.id.in_(chosen))
    for row in await session.scalars(query):
        urgent, given = due(row, ctx.settings.times.warnings, now)
        if urgent is None or row.expires_at is None:
            continue
        row.warned = given
        left = words.duration((row.expires_at - now).total_seconds())
        entries.append(
            note(
                session,
                row,
                "warning",
                f"Your lease on {words.gpus(row.gpus, row.gpu_type)} ends in {left}. "
                "Save your work, or extend it.",
                actor=SERVICE.name,
                now=now,
                data={"minutes": urgent, "expires_at": row.expires_at.isoformat()},
            )
        )
    return entries
