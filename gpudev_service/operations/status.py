"""How the service is doing: counts for metrics and readiness, and events that a reader missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select

from gpudev_client.models import Event
from gpudev_client.states import LEASED, LIVE, State
from gpudev_service.context import Context
from gpudev_service.events import Interest, Owner
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import HistoryRow, LoopRunRow, ReservationRow

from . import views
from .rows import concerns

#: A lease is overdue when it holds GPUs for longer than this after its end.
OVERDUE_AFTER = timedelta(seconds=5)
#: Most events that are sent again to a reader who comes back; beyond, the present state must do.
REPLAY_MAX = 500


@dataclass(frozen=True, slots=True)
class Counts:
    """Live reservations by state, and leases that should be over."""

    states: Mapping[State, int]
    overdue: int


async def counts(ctx: Context) -> Counts:
    row = ReservationRow
    late = ctx.clock.now() - OVERDUE_AFTER
    async with ctx.store.reading() as session:
        found = await session.execute(
            select(row.state, func.count()).where(row.state.in_(LIVE)).group_by(row.state)
        )
        states = {State(state): count for state, count in found}
        overdue = await session.scalar(
            select(func.count())
            .select_from(row)
            .where(row.state.in_(LEASED), row.expires_at < late)
        )
    return Counts(states, overdue or 0)


async def clock_behind(ctx: Context) -> timedelta:
    """How far the present lies behind what has been written down before; never less than zero."""
    async with ctx.store.reading() as session:
        written = [
            await session.scalar(select(func.max(LoopRunRow.finished_at))),
            await session.scalar(select(HistoryRow.at).order_by(HistoryRow.id.desc()).limit(1)),
        ]
    now = ctx.clock.now()
    return max(
        (moment - now for moment in written if moment is not None and moment > now),
        default=timedelta(0),
    )


async def database_answers(ctx: Context) -> bool:
    try:
        await ctx.store.ping()
    except StoreUnavailable:
        return False
    return True


async def last_event(ctx: Context, reservation_id: str | None = None) -> int:
    """The id of the newest event, of one reservation or of all; 0 where there is none."""
    query = select(func.max(HistoryRow.id))
    if reservation_id is not None:
        query = query.where(HistoryRow.reservation_id == reservation_id)
    async with ctx.store.reading() as session:
        return await session.scalar(query) or 0


async def missed(
    ctx: Context,
    after: int,
    visible: Callable[[Owner], bool],
    reservation_id: str | None = None,
    interest: Interest = None,
) -> list[Event]:
    """Events after the one with the id `after`, oldest first, each with its reservation's present
    state; of what concerns `interest` only. Empty where there are more than `REPLAY_MAX`: then the
    present state has to do."""
    entry = HistoryRow
    query = select(entry).where(entry.id > after).order_by(entry.id).limit(REPLAY_MAX + 1)
    if interest is not None:
        theirs = select(ReservationRow.id).where(concerns(interest))
        query = query.where(entry.reservation_id.in_(theirs))
    if reservation_id is not None:
        query = query.where(entry.reservation_id == reservation_id)
    async with ctx.store.reading() as session:
        entries = list(await session.scalars(query))
        if len(entries) > REPLAY_MAX:
            return []
        ids = {found.reservation_id for found in entries}
        found_rows = list(
            await session.scalars(select(ReservationRow).where(ReservationRow.id.in_(ids)))
        )
        whose = await views.owners(session, found_rows)
        rows = [row for row in found_rows if visible(whose[row.id])]
        shown = {view.id: view for view in await views.reservations(ctx, session, rows)}
    return [
        views.event(found, shown[found.reservation_id])
        for found in entries
        if found.reservation_id in shown
    ]
