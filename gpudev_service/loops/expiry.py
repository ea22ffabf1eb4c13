"""Leases end: at their time (`LEASES_END_IN_TIME`), when their server does not come up, when it is
not started again."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import BindParameter, bindparam, func, select, union
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

# These are asked at each change: they are made once, and find what they are about by an index.
_row = ReservationRow
_now: BindParameter[datetime] = bindparam("now")
#: Those whom a verdict could concern; the many leases that simply run are not read.
_CANDIDATES = select(_row).where(
    _row.id.in_(
        union(
            select(_row.id).where(_row.state.in_(_RUNNING), _row.expires_at <= _now),
            select(_row.id).where(
                _row.state == State.PREPARING, _row.starts_at <= bindparam("started")
            ),
            select(_row.id).where(
                _row.state.in_(_RUNNING), _row.server_lost_at <= bindparam("lost")
            ),
        )
    )
)
# By state: where it looks for one only, a database takes the first that the index has.
_starting_end, _active_end = (
    select(func.min(_row.expires_at)).where(_row.state == state, _row.expires_at > _now)
    for state in _RUNNING
)
_lost = select(func.min(_row.server_lost_at)).where(
    _row.server_lost_at.is_not(None), _row.state.in_(_RUNNING)
)
_start = select(func.min(_row.starts_at)).where(_row.state == State.PREPARING)
#: The first end of a lease that is to come, loss of a server, and start that is under way.
_FIRST = select(
    _starting_end.scalar_subquery().label("starting_end"),
    _active_end.scalar_subquery().label("active_end"),
    _lost.scalar_subquery().label("lost"),
    _start.scalar_subquery().label("start"),
)


def verdict(
    row: ReservationRow, times: Times, now: datetime, contact: datetime | None
) -> tuple[State, str] | None:
    """The final state that a lease is due for and the reason, or None while it may go on.

    Args:
        contact: since when the Hub has been answering, None while it does not. Only this time
            counts against a start: without the Hub nobody can start a server.
    """
    if row.expires_at is not None and row.expires_at <= now:
        if row.state == State.PREPARING:
            return State.FAILED, "The server could not be started before the lease ended."
        return State.EXPIRED, "The lease has ended as agreed."
    if row.state == State.PREPARING and row.starts_at is not None and contact is not None:
        limit = timedelta(seconds=times.start_limit)
        if max(row.starts_at, contact) + limit <= now:
            return State.FAILED, (
                f"The server did not come up within {words.duration(times.start_limit)}, so the "
                "GPUs were given back. Try again; if it happens again, tell your administrator."
            )
    grace = timedelta(seconds=times.crash_grace)
    if row.server_lost_at is not None and row.server_lost_at + grace <= now:
        return State.FAILED, (
            "The server ended unexpectedly and was not started again within "
            f"{words.duration(times.crash_grace)}, so the GPUs were given back."
        )
    return None


async def run(ctx: Context) -> datetime | None:
    """Moves every lease that is due to `stopping`; returns when the next one may be."""
    now, times = ctx.clock.now(), ctx.settings.times
    moments = {
        "now": now,
        "started": now - timedelta(seconds=times.start_limit),
        "lost": now - timedelta(seconds=times.crash_grace),
    }
    # Without anything due there is no write transaction.
    async with ctx.store.reading() as session:
        rows = await session.scalars(_CANDIDATES, moments)
        due = [row.id for row in rows if _verdict(ctx, row, now)]
        first = (await session.execute(_FIRST, moments)).one()
    if due:
        await views.publish(ctx, await ctx.store.run(lambda session: _end(ctx, session, due)))
    ahead = [
        first.starting_end,
        first.active_end,
        first.lost and first.lost + timedelta(seconds=times.crash_grace),
        # Without the Hub no start is too late yet.
        first.start
        and ctx.contact.since
        and max(first.start, ctx.contact.since) + timedelta(seconds=times.start_limit),
    ]
    return min((moment for moment in ahead if moment and moment > now), default=None)


def _verdict(ctx: Context, row: ReservationRow, now: datetime) -> tuple[State, str] | None:
    return verdict(row, ctx.settings.times, now, ctx.contact.since)


async def _end(ctx: Context, session: AsyncSession, due: list[str]) -> list[HistoryRow]:
    now = ctx.clock.now()
    entries = []
    query = select(ReservationRow).where(
        ReservationRow.id.in_(due), ReservationRow.state.in_(_RUNNING)
    )
    for row in await session.scalars(query):
        final = _verdict(ctx, row, now)
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
