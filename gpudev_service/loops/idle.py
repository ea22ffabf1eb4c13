"""Leases that nobody uses: their people are told, and where policy says so they are given back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import State
from gpudev_service.context import Context
from gpudev_service.operations import idle, servers, verdicts, views
from gpudev_service.operations.transitions import Entry
from gpudev_service.store.models import ReservationRow


async def run(ctx: Context) -> datetime | None:
    """Judges every active lease that a rule concerns."""
    policy = ctx.settings.policy
    rules = [policy.default.idle, *(rule.idle for rule in policy.groups.values())]
    if not any(rules):
        return None  # off for everybody: nothing is read
    now = ctx.clock.now()
    query = select(ReservationRow).where(ReservationRow.state == State.ACTIVE)
    async with ctx.store.reading() as session:
        rows = list(await session.scalars(query))
    # Without anybody idle there is no write transaction.
    suspects = []
    for row in rows:
        found = verdicts.verdict(ctx.settings, row, now)
        if found is not None and found.state == "idle":
            suspects.append(row.id)
    if not suspects:
        return None
    entries = await ctx.store.run(lambda session: _judge(ctx, session, suspects))
    await views.publish(ctx, entries)
    servers.tell(ctx, [entry for entry in entries if entry.data.get("warning")])
    return None


async def _judge(ctx: Context, session: AsyncSession, suspects: list[str]) -> list[Entry]:
    now = ctx.clock.now()
    query = select(ReservationRow).where(
        ReservationRow.id.in_(suspects), ReservationRow.state == State.ACTIVE
    )
    entries: list[Entry] = []
    for row in await session.scalars(query):
        entries.extend(await idle.judge(ctx, session, row, now))
    return entries
