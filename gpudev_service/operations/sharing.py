"""Collaborators: whom an owner has invited, with which role, until when.

The table here is the truth; the Hub's shares follow it (`loops/shares`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import BindParameter, ColumnElement, bindparam, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.models import CollaboratorRequest, Reservation
from gpudev_client.states import LIVE, State
from gpudev_service.actor import SERVICE, Actor
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.events import Invitation
from gpudev_service.store.models import CollaboratorRow, HistoryRow, ReservationRow

from . import views
from .rows import load
from .transitions import note

#: Most people who may be invited to one reservation.
MOST = 50
#: Lines about invitations in one reservation's history from which on nobody more is invited. Who
#: is invited must stand there, so it is the inviting that ends; each removal had its invitation.
_LINES_MAX = 500
_ROLES = {"view": "to see the reservation", "use": "to use the server"}

_row = CollaboratorRow
_now: BindParameter[datetime] = bindparam("now")
# These are asked at each change: they are made once, and begin with the invitations, of which there
# are few that have an end. A join would let the database begin with all reservations.
_lasting = _row.removed_at.is_(None), _row.until.is_not(None)
_of_live = exists().where(ReservationRow.id == _row.reservation_id, ReservationRow.state.in_(LIVE))
_ENDED = select(_row).where(*_lasting, _row.until <= _now, _of_live).order_by(_row.until)
_FIRST_ENDED = _ENDED.limit(1)
#: The next end that is to come; that of a reservation that is over is of no consequence.
_NEXT_END = select(func.min(_row.until)).where(*_lasting, _row.until > _now)


async def invite(
    ctx: Context, reservation_id: str, user: str, request: CollaboratorRequest, actor: Actor
) -> Reservation:
    """Invites somebody whom the Hub knows, or changes role and end of an invitation.

    Raises:
        Refusal: the owner, an end that has passed or lies after the lease's, a reservation that
            is over, too many people.
    """

    async def work(session: AsyncSession) -> tuple[Reservation, list[HistoryRow]]:
        now = ctx.clock.now()
        row = await load(session, reservation_id)
        _may_change(row)
        if user == row.user:
            raise Refusal("invalid_input", "The reservation is theirs already.", field="user")
        _check_end(request.until, row, now)
        entries = await _put(session, row, user, request, actor, now)
        await session.flush()
        return await views.reservation(ctx, session, row), entries

    view, entries = await ctx.store.run(work)
    await views.publish(ctx, entries)
    return view


async def remove(ctx: Context, reservation_id: str, user: str, actor: Actor) -> Reservation:
    """Takes an invitation back; where there is none, nothing is to be done."""

    async def work(session: AsyncSession) -> tuple[Reservation, list[HistoryRow]]:
        row = await load(session, reservation_id)
        found = await session.get(CollaboratorRow, (reservation_id, user))
        entries = []
        if found is not None and found.removed_at is None:
            left = f"{user} has left." if actor.name == user else f"{actor.name} removed {user}."
            entries = [_end(session, row, found, left, actor, ctx.clock.now())]
            await session.flush()
        return await views.reservation(ctx, session, row), entries

    view, entries = await ctx.store.run(work)
    await views.publish(ctx, entries)
    return view


async def gone(ctx: Context, reservation_id: str, user: str) -> None:
    """Ends the invitation of somebody whom the Hub does not have any more."""

    async def work(session: AsyncSession) -> list[HistoryRow]:
        row = await load(session, reservation_id)
        found = await session.get(CollaboratorRow, (reservation_id, user))
        if found is None or found.removed_at is not None:
            return []
        said = f"The Hub has no user {user} any more; the invitation has ended."
        return [_end(session, row, found, said, SERVICE, ctx.clock.now())]

    await views.publish(ctx, await ctx.store.run(work))


async def say_once(ctx: Context, reservation_id: str, said: str) -> None:
    """A line of the history, if it does not stand there yet."""
    line = HistoryRow

    async def work(session: AsyncSession) -> list[HistoryRow]:
        there = select(line.id).where(line.reservation_id == reservation_id, line.reason == said)
        if await session.scalar(there.limit(1)) is not None:
            return []
        row = await load(session, reservation_id)
        return [note(session, row, "note", said, actor=SERVICE.name, now=ctx.clock.now())]

    await views.publish(ctx, await ctx.store.run(work))


async def end_due(ctx: Context) -> datetime | None:
    """Ends the invitations whose time has come; returns when the next one ends."""

    async def work(session: AsyncSession) -> list[HistoryRow]:
        now = ctx.clock.now()
        return [
            _end(
                session,
                await load(session, found.reservation_id),
                found,
                f"The invitation of {found.user} has ended.",
                SERVICE,
                now,
            )
            for found in await session.scalars(_ENDED, {"now": now})
        ]

    now = ctx.clock.now()
    async with ctx.store.reading() as session:
        ended = (await session.scalars(_FIRST_ENDED, {"now": now})).first()
        following: datetime | None = await session.scalar(_NEXT_END, {"now": now})
    if ended is not None:
        await views.publish(ctx, await ctx.store.run(work))
    return following


def invited(user: str, now: datetime, *, role: str | None = None) -> ColumnElement[bool]:
    """Whether a reservation of the query is one to which `user` is invited at `now`."""
    row = CollaboratorRow
    conditions = [
        row.reservation_id == ReservationRow.id,
        row.user == user,
        row.removed_at.is_(None),
        or_(row.until.is_(None), row.until > now),
    ]
    if role is not None:
        conditions.append(row.role == role)
    return exists().where(*conditions)


def standing(invitations: Iterable[Invitation], user: str, now: datetime) -> Invitation | None:
    """The invitation of `user` among those of a reservation, while it lasts."""
    for found in invitations:
        if found.user == user and (found.until is None or now < found.until):
            return found
    return None


def _may_change(row: ReservationRow) -> None:
    state = State(row.state)
    if state not in LIVE or state is State.STOPPING:
        raise Refusal("wrong_state", f"The reservation is {row.state}; nobody can be invited.")


def _check_end(until: datetime | None, row: ReservationRow, now: datetime) -> None:
    """An end that has passed is a mistake; one after the lease's would be a promise of more."""
    if until is None:
        return
    latest = None if row.expires_at is None else row.expires_at.astimezone(UTC)
    if until <= now or (latest is not None and until > latest):
        raise Refusal(
            "invalid_input",
            "An invitation ends in the future, and not after the lease. Leave the end out for as "
            "long as the lease, extensions included.",
            field="until",
            accepted={"min": now.isoformat(), "max": latest.isoformat() if latest else None},
        )


async def _put(
    session: AsyncSession,
    row: ReservationRow,
    user: str,
    request: CollaboratorRequest,
    actor: Actor,
    now: datetime,
) -> list[HistoryRow]:
    until = None if request.until is None else request.until.astimezone(UTC)
    found = await session.get(CollaboratorRow, (row.id, user))
    new = found is None or found.removed_at is not None
    if found is not None and not new and (found.role, found.until) == (request.role, until):
        return []
    if new and len(await views.standing_rows(session, [row.id])) >= MOST:
        raise Refusal(
            "quota",
            f"{MOST} people are invited already, and that is the limit.",
            field="user",
            accepted={"max": MOST},
        )
    await _check_lines(session, row)
    if found is None:
        found = CollaboratorRow(reservation_id=row.id, user=user)
        session.add(found)
    found.role, found.until = request.role, until
    if new:
        found.removed_at, found.since, found.invited_by = None, now, actor.name
    what = f"{_ROLES[request.role]}{_until(until, now)}"
    said = f"{actor.name} invited {user} {what}." if new else f"{user} is invited {what} now."
    data = {"user": user, "role": request.role, "until": until.isoformat() if until else None}
    return [note(session, row, "collaborator", said, actor=actor.name, now=now, data=data)]


async def _check_lines(session: AsyncSession, row: ReservationRow) -> None:
    written = await session.scalar(
        select(func.count())
        .select_from(HistoryRow)
        .where(HistoryRow.reservation_id == row.id, HistoryRow.kind == "collaborator")
    )
    if (written or 0) >= _LINES_MAX:
        raise Refusal(
            "quota",
            "The invitations of this reservation have been changed too often. Nobody more can be "
            "invited to it; who is invited can still be removed.",
            accepted={"changes": _LINES_MAX},
        )


def _until(until: datetime | None, now: datetime) -> str:
    return "" if until is None else f" until {words.moment(until, now, UTC, show_zone=True)}"


def _end(
    session: AsyncSession,
    row: ReservationRow,
    found: CollaboratorRow,
    said: str,
    actor: Actor,
    now: datetime,
) -> HistoryRow:
    found.removed_at = now
    data = {"user": found.user, "role": None}
    return note(session, row, "collaborator", said, actor=actor.name, now=now, data=data)
