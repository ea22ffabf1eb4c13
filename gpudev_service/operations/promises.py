"""Promised starts, written down: in the rows of those who wait, and in the history where a promise
is broken. That one has become better is told to listeners only: it would fill the history.

One event may move the starts of thousands. So `move` reads no rows and makes no objects of them:
what is there already is what the planner was given, and one statement writes what is new. `make`
does the same for rows that are objects: of these the session would write each by a statement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Table, bindparam, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.interfaces import ORMOption

from gpudev_client import words
from gpudev_service import planner
from gpudev_service.actor import SERVICE
from gpudev_service.fleet import is_coming
from gpudev_service.store import invariants, memory
from gpudev_service.store.models import HistoryRow, ReservationRow

from . import facts
from .transitions import Entry, Subject, Told, note

#: Rows asked for by one statement: databases have a limit on its parameters.
AT_ONCE = 500

#: Why a promise could not be kept, in words.
_CAUSES = {
    planner.Reason.NODE_GONE: "a node has left the fleet",
    planner.Reason.NODE_DRAINED: "a node was taken out of service",
    planner.Reason.NODE_HELD_LONGER: "GPUs are held longer than they should be, or were lost",
    planner.Reason.QUOTA_LOWERED: "a limit was lowered",
    planner.Reason.STARTED_LATE: "the start was missed while the service was away",
    planner.Reason.QUEUE_PLANNED_AGAIN: "capacity was lost and the queue was planned again",
    planner.Reason.ELSEWHERE: "a node that was promised does not fit any more: it has lost a label "
    "that was asked for, or the disk cannot be used there",
}

#: Why nothing can be promised any more, in words; else no node is in service that could hold it.
_NO_START = {
    planner.Reason.QUOTA_TOO_SMALL: "it is more than you may have at once",
    planner.Reason.ELSEWHERE: "the nodes that could hold it are not where it may be",
}

_table = cast("Table", ReservationRow.__table__)
_MOVE = (
    update(_table)
    .where(_table.c.id == bindparam("key"))
    .values(
        planned_start=bindparam("start"),
        planned_nodes=bindparam("places"),
        version=_table.c.version + 1,
    )
)
_MAKE = _MOVE.values(first_promise=bindparam("first"))


def loaded(session: AsyncSession) -> dict[str, ReservationRow]:
    """The reservations that the session has as objects: these must be changed as such."""
    return {row.id: row for row in session if isinstance(row, ReservationRow)}


async def rows(
    session: AsyncSession, keys: Collection[str], *options: ORMOption
) -> dict[str, ReservationRow]:
    """The rows of `keys`; those that the session has are not read again."""
    found = loaded(session)
    missing = sorted(key for key in keys if key not in found)
    for at in range(0, len(missing), AT_ONCE):
        query = select(ReservationRow).where(ReservationRow.id.in_(missing[at : at + AT_ONCE]))
        found.update((row.id, row) for row in await session.scalars(query.options(*options)))
    return found


async def make(
    session: AsyncSession,
    slots: Mapping[str, planner.Slot],
    moved_later: Mapping[str, planner.Reason],
    now: datetime,
) -> list[Entry]:
    """Promises `slots` to whoever has had no promise, or has; returns what is to be told."""
    entries: list[Entry] = []
    written, changed = [], []
    found = await rows(session, slots)
    for key, slot in slots.items():
        row = found[key]
        start, nodes = facts.from_ms(slot.start_ms), list(slot.nodes)
        if row.planned_start == start and row.planned_nodes == nodes:
            continue
        entries += _told(session, row, start, moved_later.get(key), now)
        first = row.first_promise or start
        if _is_as_stored(row):
            changed.append((row.gpu_type, key))
            written.append({"key": key, "start": start, "places": nodes, "first": first})
            set_committed_value(row, "version", row.version + 1)
            set_committed_value(row, "planned_start", start)
            set_committed_value(row, "planned_nodes", nodes)
            set_committed_value(row, "first_promise", first)
        else:
            row.planned_start, row.planned_nodes, row.first_promise = start, nodes, first
    if written:
        await session.execute(_MAKE, written, execution_options={memory.CHANGES: changed})
    return entries


def _is_as_stored(row: ReservationRow) -> bool:
    """Whether nothing of the row is still to be written."""
    state: InstanceState[ReservationRow] = inspect(row)
    return state.persistent and not state.modified


async def move(
    session: AsyncSession,
    gpu_type: str,
    slots: Mapping[str, tuple[planner.Slot, planner.Slot]],
    moved_later: Mapping[str, planner.Reason],
    now: datetime,
) -> list[Entry]:
    """Promises other slots; none of these reservations is an object of the session.

    Args:
        slots: the slot of before and the new one.
    """
    if not slots:
        return []
    entries: list[Entry] = []
    states = await _states(session, [key for key in slots if key in moved_later])
    written = []
    for key, (before, slot) in slots.items():
        start = facts.from_ms(slot.start_ms)
        written.append({"key": key, "start": start, "places": list(slot.nodes)})
        why = moved_later.get(key)
        if why is not None:
            row = _Line(key, states[key])
            was = facts.from_ms(before.start_ms)
            entries.append(_broken(session, row, was, before.nodes, start, why, now))
        elif slot.start_ms != before.start_ms:
            entries.append(improved(key, now))
    known = [(gpu_type, key) for key in slots]
    await session.execute(_MOVE, written, execution_options={memory.CHANGES: known})
    return entries


@dataclass(frozen=True, slots=True)
class _Line:
    """Whom a line of the history is about."""

    id: str
    state: str


async def _states(session: AsyncSession, keys: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    row = ReservationRow
    for at in range(0, len(keys), AT_ONCE):
        query = select(row.id, row.state).where(row.id.in_(keys[at : at + AT_ONCE]))
        found.update((key, state) for key, state in await session.execute(query))
    return found


def _told(
    session: AsyncSession,
    row: ReservationRow,
    start: datetime,
    moved_later: planner.Reason | None,
    now: datetime,
) -> list[Entry]:
    """What is to be told of another promise than `row` has."""
    before, places = row.planned_start, row.planned_nodes or []
    if moved_later is not None:
        return [_broken(session, row, before, places, start, moved_later, now)]
    if before is None and row.first_promise is not None:
        return [_promised_again(session, row, start, now)]
    # The first promise is told with the submission.
    return [] if before in {None, start} else [improved(row.id, now)]


def _broken(
    session: AsyncSession,
    row: Subject,
    before: datetime | None,
    places: Iterable[str],
    start: datetime,
    why: planner.Reason,
    now: datetime,
) -> HistoryRow:
    late = any(is_coming(place) for place in places)
    cause = "the node that was to be added is not there yet" if late else _CAUSES[why]
    reason = f"The promised start had to move: {cause}."
    data = {"from": before.isoformat() if before else None, "to": start.isoformat()}
    return note(session, row, "promise", reason, actor=SERVICE.name, now=now, data=data)


def improved(reservation_id: str, now: datetime) -> Told:
    """Told, and not stored."""
    return Told(reservation_id, "promise", "The start is now earlier.", now)


def _promised_again(
    session: AsyncSession, row: ReservationRow, start: datetime, now: datetime
) -> HistoryRow:
    data = {"from": None, "to": start.isoformat()}
    reason = "A start is promised again."
    return note(session, row, "promise", reason, actor=SERVICE.name, now=now, data=data)


def late(session: AsyncSession, row: ReservationRow, now: datetime) -> list[HistoryRow]:
    """A start that comes later than promised stands in the history with its cause
    (`NO_DELAY_IN_SILENCE`)."""
    promised = row.planned_start
    if promised is None or not invariants.is_late(promised, now):
        return []
    by = words.duration((now - promised).total_seconds())
    reason = f"The start comes {by} late: {_CAUSES[planner.Reason.STARTED_LATE]}."
    data = {"from": promised.isoformat(), "to": now.isoformat()}
    return [note(session, row, "promise", reason, actor=SERVICE.name, now=now, data=data)]


def withdraw(
    session: AsyncSession, row: ReservationRow, why: planner.Reason, now: datetime
) -> list[HistoryRow]:
    """A promise that nothing can keep at the moment: the place in the queue stays."""
    if row.planned_start is None:
        return []
    data = {"from": row.planned_start.isoformat(), "to": None}
    row.planned_start = row.planned_nodes = None
    cause = _NO_START.get(why, "no node that could hold this is in service")
    reason = f"The promised start had to be taken back: {cause}. Your place in the queue is kept."
    return [note(session, row, "promise", reason, actor=SERVICE.name, now=now, data=data)]
