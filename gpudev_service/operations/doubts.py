"""When nothing may be removed for good, because the time of day is in doubt.

What is deleted, and old, goes by the calendar, and never comes back. A clock that is a month ahead
at the start of the service would take all of it at once. So nothing goes

- while the clock of the database, the Hub or the API server says otherwise, or that of this
  machine, which may have been set since the start;
- in the first minute, before these have been heard;
- for an hour after nothing had been written for hours: the service was away, or the clock is ahead
  of what it was. Whoever operates it is told, and can set it.

Leases begin and end all the same, by the service's clock: they have to be over on time also when
the service comes back after a night, and the next in line waits for it. What a lease leaves is
kept: its disk, and the snapshot at its end.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_service.context import Context
from gpudev_service.other_clocks import LEAST, Doubt
from gpudev_service.store.errors import StoreError
from gpudev_service.store.models import LoopRunRow

log = logging.getLogger(__name__)

#: For how long nothing was written, before that is told and nothing is removed. A service that
#: runs writes every minute.
AWAY = timedelta(hours=6)
#: For how long then nothing is removed.
PAUSE = timedelta(hours=1)
#: How long other clocks have to be heard after a start.
FIRST = timedelta(minutes=1)
#: Where an absence is written down, so that it outlives a restart of the service.
_ROW = "absence"


async def look_back(ctx: Context) -> None:
    """Notes whether the service, which now begins, was away for long.

    That is also written down, for the case that it is killed within the hour. And what a clock has
    noted that was ahead, and has been set since, is forgotten: of a loop that has not run again
    before the next start it would still say that the clock is behind. A database that cannot be
    written does not keep the service from starting: then this process alone knows."""
    now = ctx.clock.now()
    async with ctx.store.reading() as session:
        last = await session.scalar(select(func.max(LoopRunRow.finished_at)))
        known = await session.get(LoopRunRow, _ROW)
    ahead = last is not None and last > now
    new = None if known is None or known.started_at > now else known
    if last is not None and now - last > AWAY:
        new = LoopRunRow(name=_ROW, started_at=now, ok=True, message=_told(last, now))
    ctx.other_clocks.was_away(_doubt(new))
    if ahead or new is not known:
        try:
            await ctx.store.run(partial(_note, new, now))
        except StoreError as error:
            log.warning("how long the service was away could not be written down: %s", error)


def about_removing(ctx: Context) -> Doubt | None:
    """Why nothing may be removed for good now; None where it may."""
    now = ctx.clock.now()
    difference = ctx.other_clocks.difference(now)
    if difference is not None:
        return Doubt(str(difference), None)
    if abs(ctx.clock.drift()) > LEAST:
        return Doubt("this machine's clock was moved since the service started", None)
    begun = ctx.other_clocks.begun
    if begun is not None and now < begun + FIRST:
        return Doubt("the service has just begun", begun + FIRST)
    return ctx.other_clocks.absence(now)


async def _note(row: LoopRunRow | None, now: datetime, session: AsyncSession) -> None:
    await session.execute(delete(LoopRunRow).where(LoopRunRow.finished_at > now))
    if row is None:
        await session.execute(delete(LoopRunRow).where(LoopRunRow.name == _ROW))
    else:
        await session.merge(row)


def _doubt(row: LoopRunRow | None) -> Doubt | None:
    if row is None or row.message is None:
        return None
    return Doubt(row.message, row.started_at + PAUSE)


def _told(last: datetime, now: datetime) -> str:
    return (
        f"the service began at {now:%Y-%m-%d %H:%M} UTC, and nothing had been written for "
        f"{words.duration((now - last).total_seconds())} before: it was away, or the machine's "
        f"clock is ahead. Until {now + PAUSE:%H:%M} UTC nothing is removed for good; if the "
        "date is wrong, set the clock and start the service again"
    )
