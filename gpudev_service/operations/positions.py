"""Places in the queues of GPU types: by promised start, then by who came first
(`PLACES_COUNT_FROM_ONE`).

With thousands waiting the database would sort all of them for each answer. Where the plan in memory
agrees with the rows it is counted there instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import WAITING, State
from gpudev_service.context import Context
from gpudev_service.store.memory import Turn
from gpudev_service.store.models import ReservationRow

from .kept import Kept

#: The order in which those who wait for one type start; last are those who are promised nothing.
ORDER = (
    ReservationRow.planned_start.asc().nulls_last(),
    ReservationRow.priority.desc(),
    ReservationRow.submitted_at,
    ReservationRow.id,
)
#: With fewer waiting the database counts as fast as it says whether the plan is good.
_MANY = 500


async def positions(
    ctx: Context, session: AsyncSession, rows: Sequence[ReservationRow]
) -> dict[str, int]:
    """Of those among `rows` who wait and are promised a start, by reservation; 1 for the next."""
    waiting: dict[str, list[ReservationRow]] = {}
    for row in rows:
        if State(row.state) in WAITING and row.planned_start is not None:
            waiting.setdefault(row.gpu_type, []).append(row)
    found: dict[str, int] = {}
    counted: list[ReservationRow] = []
    for gpu_type, some in waiting.items():
        planned = await _planned(ctx, session, gpu_type)
        if planned is not None and all(row.id in planned.demands for row in some):
            found |= planned.live.places([row.id for row in some])
        else:
            counted += some
    return found | await _counted(session, counted)


async def _planned(ctx: Context, session: AsyncSession, gpu_type: str) -> Kept | None:
    """The plan of a type that agrees with what is promised, where that is at hand. It is to be
    asked before the next await."""
    turn: Turn[Kept] | None = Turn.within(session)
    if turn is not None:
        await session.flush()  # what is only an object yet has not been noted
        return turn.kept(gpu_type)
    kept: Kept | None = ctx.store.memory.kept.get(gpu_type)
    if kept is None or len(kept.demands) < _MANY:
        return None
    look = await ctx.store.memory.look(session, gpu_type)
    return look.kept if look is not None and look.still and not look.stale else None


async def _counted(session: AsyncSession, waiting: Sequence[ReservationRow]) -> dict[str, int]:
    if len(waiting) == 1:  # cheaper than ranking everybody
        return {waiting[0].id: await _count(session, waiting[0])}
    return await ranked(session, waiting)


async def ranked(session: AsyncSession, waiting: Sequence[ReservationRow]) -> dict[str, int]:
    """By reservation, which one it is of those who wait for its type, promised a start or not."""
    if not waiting:
        return {}
    table = ReservationRow
    place = func.row_number().over(partition_by=table.gpu_type, order_by=ORDER)
    everybody = (
        select(table.id, place.label("position"))
        .where(table.gpu_type.in_({row.gpu_type for row in waiting}), table.state.in_(WAITING))
        .subquery()
    )
    wanted = everybody.c.id.in_([row.id for row in waiting])
    found = await session.execute(select(everybody.c.id, everybody.c.position).where(wanted))
    return {row.id: row.position for row in found}


async def _count(session: AsyncSession, row: ReservationRow) -> int:
    other = ReservationRow
    earlier = or_(
        other.planned_start < row.planned_start,
        and_(
            other.planned_start == row.planned_start,
            or_(
                other.priority > row.priority,
                and_(
                    other.priority == row.priority,
                    or_(
                        other.submitted_at < row.submitted_at,
                        and_(other.submitted_at == row.submitted_at, other.id < row.id),
                    ),
                ),
            ),
        ),
    )
    ahead = await session.scalar(
        select(func.count())
        .select_from(other)
        .where(other.gpu_type == row.gpu_type, other.state.in_(WAITING), earlier)
    )
    return (ahead or 0) + 1
