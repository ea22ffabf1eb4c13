"""What has happened to a lease's server last that its people should know.

Kernels and what was in memory are gone afterwards, and whoever opens the server next finds a fresh
one: without a word they would look for a mistake of their own. The history has it all; this picks
the line out that matters, so that it need not be kept a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import Notice
from gpudev_client.states import State
from gpudev_service.store.models import HistoryRow, ReservationRow

#: Lines that are looked through, newest first: a server that goes on ending fills the history.
_LINES = 100
_MARK, _WHY = "notice", "why"
_ALWAYS, _WHILE_LOST, _LOST = "always", "while_lost", "lost"
#: As the history says it.
_RUNS_AGAIN = "The server runs again."


class Line(NamedTuple):
    """A line of the history about a server."""

    at: datetime
    reason: str
    data: Mapping[str, Any]


def happened() -> dict[str, Any]:
    """For the data of a line: it stays of interest for as long as the lease."""
    return {_MARK: _ALWAYS}


def failed_start() -> dict[str, Any]:
    """For the data of a line that is of no interest any more once the server runs."""
    return {_MARK: _WHILE_LOST}


def lost(why: str) -> dict[str, Any]:
    """For the data of the line that a server was lost: why, without what is to be done about it,
    which is no news any more once the server runs."""
    return {_MARK: _LOST, _WHY: why}


async def of(session: AsyncSession, row: ReservationRow) -> Notice | None:
    """The notice of a reservation's present lease; None where none runs."""
    if State(row.state) not in {State.PREPARING, State.ACTIVE} or row.starts_at is None:
        return None
    line = HistoryRow
    query = select(line.at, line.reason, line.data).where(
        line.reservation_id == row.id, line.kind == "server", line.at >= row.starts_at
    )
    found = await session.execute(query.order_by(line.id.desc()).limit(_LINES))
    return latest((Line(*values) for values in found), is_lost=row.server_lost_at is not None)


def latest(lines: Iterable[Line], *, is_lost: bool) -> Notice | None:
    """What the newest line says that people should know of.

    Args:
        lines: those about the server within the lease, newest first.
        is_lost: whether the server does not run at this moment.
    """
    for line in lines:
        mark = line.data.get(_MARK)
        if mark == _LOST:
            why = str(line.data[_WHY])
            return Notice(at=line.at, text=why if is_lost else f"{why} {_RUNS_AGAIN}")
        if mark == _ALWAYS or (mark == _WHILE_LOST and is_lost):
            return Notice(at=line.at, text=line.reason)
    return None
