"""Whoever's turn has come starts. Most starts happen in the very transaction that frees capacity;
this loop is for those that only time brings: bookings, promises, capacity that came back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam, func, select

from gpudev_client.states import WAITING
from gpudev_service.context import Context
from gpudev_service.operations import planning
from gpudev_service.store.models import ReservationRow

from .pace import next_sweep

_row = ReservationRow
_now: BindParameter[datetime] = bindparam("now")


def _first(*conditions: ColumnElement[bool]) -> Select[Any]:
    """The first promised start in each of the states in which one waits: an index begins with the
    state, and has it at once."""
    firsts: list[ColumnElement[Any]] = [
        select(func.min(_row.planned_start))
        .where(_row.state == state, *conditions)
        .scalar_subquery()
        .label(state)
        for state in sorted(WAITING)
    ]
    return select(*firsts)


# Asked at each change, and so made once.
_FIRST, _NEXT = _first(), _first(_row.planned_start > _now)
#: The types in which a start is due.
_DUE = select(_row.gpu_type).where(_row.state.in_(WAITING), _row.planned_start <= _now).distinct()


async def run(ctx: Context) -> datetime | None:
    """Plans the GPU types in which a start is due; returns the next promised start, or the next
    sweep where one was due: it may have to wait."""
    now = ctx.clock.now()
    async with ctx.store.reading() as session:
        first = _earliest((await session.execute(_FIRST)).one())
        if first is None or first > now:
            return first
        due = sorted(await session.scalars(_DUE, {"now": now}))
        following = _earliest((await session.execute(_NEXT, {"now": now})).one())
    if ctx.fleet.view().fresh:
        await planning.plan_again(ctx, due)
    soon = next_sweep(ctx)
    return soon if following is None else min(soon, following)


def _earliest(starts: Iterable[datetime | None]) -> datetime | None:
    return min((start for start in starts if start is not None), default=None)
