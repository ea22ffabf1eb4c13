"""Extending a lease, as far as nobody's promised start moves; the history has each extension
(`ENDS_ARE_TOLD`)."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.models import ExtensionOffer, Reservation, hours_to_duration
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.store.models import ReservationRow

from . import holding, planning, questions, views
from .rows import load
from .transitions import Entry, note

#: Less than this is not worth offering.
_LEAST = timedelta(minutes=1)


async def offer(ctx: Context, reservation_id: str) -> ExtensionOffer:
    """How far the lease could be extended now."""

    async def question(session: AsyncSession) -> ExtensionOffer:
        row = await load(session, reservation_id)
        return await offer_in(ctx, session, row, ctx.clock.now())

    return await questions.ask(ctx, question)


async def offer_in(
    ctx: Context, session: AsyncSession, row: ReservationRow, now: datetime
) -> ExtensionOffer:
    """The offer for a row that is already loaded; none where there is no lease to extend. In a
    transaction of `questions.ask`, or one that writes."""
    if not _runs(row, now):
        return ExtensionOffer(
            possible_hours=0, extendable_until=row.expires_at, limited_by=_not_running(row)
        )
    end = _end(row)
    most, why = _policy_limit(ctx, row)
    granted, blocked = await _room(ctx, session, row, most, now)
    if granted < most:
        why = blocked
    if granted < _LEAST:
        granted = timedelta(0)
    return ExtensionOffer(
        possible_hours=_hours(granted),
        extendable_until=end + granted,
        limited_by=why,
    )


async def extend(ctx: Context, reservation_id: str, actor: Actor, hours: float) -> Reservation:
    """Extends a running lease by `hours`.

    Raises:
        Refusal: `extension_limited` with the hours that would be possible and what is in the way.
    """
    wanted = hours_to_duration(hours)

    async def work(session: AsyncSession) -> tuple[Reservation, list[Entry]]:
        now = ctx.clock.now()
        row = await load(session, reservation_id)
        if not _runs(row, now):
            raise Refusal("wrong_state", _not_running(row))
        most, why = _policy_limit(ctx, row)
        allowed = min(wanted, most)
        granted, blocked = await _room(ctx, session, row, allowed, now)
        if granted < wanted:
            # Whoever waits is the reason only where they leave less than policy would.
            raise _limited(granted, blocked if granted < allowed else why)
        row.expires_at = _end(row) + wanted
        row.extension_s += round(wanted.total_seconds())
        # Warnings that lie ahead again are given again.
        row.warned = [m for m in row.warned if row.expires_at - timedelta(minutes=m) <= now]
        entry = note(
            session,
            row,
            "extension",
            f"Extended by {words.hours(hours)} by {actor.name}.",
            actor=actor.name,
            now=now,
            data={"hours": hours, "expires_at": row.expires_at.isoformat()},
        )
        await session.flush()
        outcome = await planning.replan(ctx, session, now, await _types(ctx, session, row))
        return await views.reservation(ctx, session, row), [entry, *outcome.entries]

    view, entries = await ctx.store.run(work)
    await views.publish(ctx, entries)
    return view


def _runs(row: ReservationRow, now: datetime) -> bool:
    """Whether there is a lease to extend. One that is past its end is over, also in the moment
    before it is swept: whoever is next has been promised it."""
    running = State(row.state) in {State.PREPARING, State.ACTIVE}
    return running and row.expires_at is not None and now < row.expires_at


def _not_running(row: ReservationRow) -> str:
    if State(row.state) in {State.PREPARING, State.ACTIVE}:
        return "The lease has just ended; only a running lease can be extended."
    return f"The reservation is {row.state}; only a running lease can be extended."


def _end(row: ReservationRow) -> datetime:
    if row.expires_at is None:  # a constraint forbids it for a lease
        raise RuntimeError(f"lease {row.id} has no end")
    return row.expires_at


def _policy_limit(ctx: Context, row: ReservationRow) -> tuple[timedelta, str | None]:
    """The most that policy leaves, and the policy's words for it."""
    limits = ctx.settings.policy.of(row.groups)
    used = timedelta(seconds=row.extension_s)
    total = timedelta(seconds=row.duration_s) + used
    by_extension = timedelta(hours=limits.max_extension_hours) - used
    by_total = timedelta(hours=limits.max_total_hours) - total
    most = max(timedelta(0), min(by_extension, by_total))
    if by_total < by_extension:
        return most, f"A lease may last {limits.max_total_hours:g} hours in all."
    return most, f"A lease may be extended by {limits.max_extension_hours:g} hours in all."


async def _room(
    ctx: Context, session: AsyncSession, row: ReservationRow, wanted: timedelta, now: datetime
) -> tuple[timedelta, str]:
    """How much of `wanted` keeps every promise, and in words what is in the way."""
    if wanted <= timedelta(0):
        return timedelta(0), ""
    granted, other = wanted, None
    for gpu_type in await _types(ctx, session, row):
        asked = await questions.present(ctx, session, now, gpu_type)
        answer = asked.world.max_extension(row.id, granted // timedelta(milliseconds=1))
        possible = timedelta(milliseconds=answer.granted_ms)
        if possible < granted:
            granted, other = possible, answer.blocked_by
    blocker = await session.get(ReservationRow, other) if other else None
    return granted, _in_the_way(blocker, row.user)


async def _types(ctx: Context, session: AsyncSession, row: ReservationRow) -> list[str]:
    """Types of the lease's nodes: not its own where these have become others."""
    return sorted(await holding.gpu_types(ctx, session, row.id)) or [row.gpu_type]


def _in_the_way(other: ReservationRow | None, user: str) -> str:
    """Says what was promised to somebody, and when; never to whom, unless to `user` themselves."""
    if other is None or other.planned_start is None:
        return "The GPUs are promised to others after that."
    what = words.gpus(other.gpus, other.gpu_type, other.nodes)
    start = words.mark(other.planned_start)
    who = f"Your own “{other.name}”" if other.user == user else "Somebody who waits"
    return f"{who} has been promised {what} from {start}."


def _limited(possible: timedelta, why: str | None) -> Refusal:
    hours = _hours(possible)
    can = f"{hours:g} hours would be possible now." if hours else "No extension is possible now."
    return Refusal(
        "extension_limited",
        f"{can} {why or ''}".strip(),
        field="hours",
        accepted={"max": hours},
    )


def _hours(span: timedelta) -> float:
    """Hours rounded down to a hundredth, so that what is offered is also granted."""
    return int(max(span, timedelta(0)).total_seconds() / 36) / 100
