"""Keeps the Hub's shares as the collaborators are: who uses a server may open it in the browser
(`INVITED_COME_IN`).

A share is made once the server is in the Hub, and revoked when the invitation or the lease ends.
What is about to be asked is written down first, so that after a crash nothing is forgotten; who
was removed is forgotten only when the Hub has taken the share back. While the Hub is away it is
asked after growing pauses, one of them for all. What it refuses is tried again after growing pauses
too, and the owner is told; an invitation of somebody whom the Hub does not have any more ends.
"""

from __future__ import annotations

import logging
from datetime import datetime
from enum import StrEnum

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import State
from gpudev_service.context import Context
from gpudev_service.hub import HubAway, HubRefused
from gpudev_service.operations import sharing
from gpudev_service.store.models import CollaboratorRow, ReservationRow

from .pace import next_sweep

log = logging.getLogger(__name__)

#: The key of the pause while the Hub is away.
_AWAY = "shares: the Hub is away"
#: The longest of these, in seconds: who was removed must not come in long after the Hub is back.
_AWAY_LONGEST = 8
#: Refusals in a row until the owner is told: fewer may be a moment's.
_TOLD_AFTER = 3

_LEASED = (State.PREPARING, State.ACTIVE)

_row = CollaboratorRow
#: About whom something may be to be done. Asked at each change, and so made once.
_OPEN = (
    select(_row, ReservationRow)
    .join(ReservationRow, ReservationRow.id == _row.reservation_id)
    .where(
        or_(
            _row.share != "no",
            _row.removed_at.is_not(None),
            and_(_row.role == "use", ReservationRow.state.in_(_LEASED)),
        )
    )
    .order_by(_row.reservation_id, _row.user)
)


class Step(StrEnum):
    """What is to be done next about a collaborator."""

    MAKE = "make"
    REVOKE = "revoke"
    FORGET = "forget"


#: What the owner reads while the Hub refuses a step.
_REFUSED = {
    Step.MAKE: "The Hub refuses to let {user} into the server in the browser",
    Step.REVOKE: "The Hub refuses to take back that {user} may open the server in the browser",
}


def step(row: CollaboratorRow, reservation: ReservationRow, now: datetime) -> Step | None:
    """What the Hub's share still needs."""
    invited = row.removed_at is None and (row.until is None or now < row.until)
    state = State(reservation.state)
    # The Hub has a row of the server as soon as its start has been reported.
    there = state is State.ACTIVE or (
        state is State.PREPARING and reservation.server_handle is not None
    )
    if invited and row.role == "use" and there:
        return None if row.share == "yes" else Step.MAKE
    if row.share != "no" and (state not in _LEASED or not (invited and row.role == "use")):
        return Step.REVOKE
    return Step.FORGET if row.removed_at is not None and row.share == "no" else None


async def run(ctx: Context) -> datetime | None:
    """Ends invitations that are due, and begins what the shares need; returns when the next
    invitation ends, or the Hub is to be asked again: at the next sweep, where it is asked now."""
    due = await sharing.end_due(ctx)
    now = ctx.clock.now()
    if again := ctx.background.pauses.until(_AWAY, now):
        return min(due or again, again)
    for row, reservation in await _open(ctx):
        needed = step(row, reservation, now)
        if needed is None:
            continue
        soon = next_sweep(ctx)
        due = min(due or soon, soon)
        if not ctx.background.pauses.last(_paused(row, needed), now):
            key = (row.reservation_id, row.user)
            ctx.background.start(f"share:{row.reservation_id}:{row.user}", _settle(ctx, key))
    return due


async def compare(ctx: Context) -> None:
    """Finds shares that the Hub has lost (an older copy of its database was put back), so that the
    next run makes them again."""
    standing: dict[str, tuple[ReservationRow, list[str]]] = {}
    for row, reservation in await _open(ctx):
        if row.share == "yes" and step(row, reservation, ctx.clock.now()) is None:
            standing.setdefault(reservation.id, (reservation, []))[1].append(row.user)
    for reservation, users in standing.values():
        try:
            known = await ctx.hub.shares(reservation.user, reservation.server_name)
        except HubAway as error:
            log.warning("the Hub's shares could not be compared: %s", error)
            return
        except HubRefused as refusal:
            log.warning("the Hub does not show its shares: %s", refusal.status)
            return
        for user in users:
            if user not in known:
                log.warning("the Hub has lost a share of %s; making it again", reservation.id)
                await _mark(ctx, (reservation.id, user), "yes", "making")
                ctx.wake.set()


async def _open(ctx: Context) -> list[tuple[CollaboratorRow, ReservationRow]]:
    """Those about whom something may be to be done."""
    async with ctx.store.reading() as session:
        return [(one, reservation) for one, reservation in await session.execute(_OPEN)]


async def _settle(ctx: Context, key: tuple[str, str]) -> None:
    """One step for one collaborator; begun again by the loop as long as one is needed."""
    reservation_id = key[0]
    async with ctx.store.reading() as session:
        row = await session.get(CollaboratorRow, key)
        reservation = await session.get(ReservationRow, reservation_id)
    if row is None or reservation is None:
        return
    needed = step(row, reservation, ctx.clock.now())
    if needed is None:
        return
    try:
        await _take(ctx, needed, row, reservation)
    except HubAway as error:
        log.warning("the Hub could not be asked about a share of %s: %s", reservation_id, error)
        # All that were asked in this round found out at the same time: that is one pause.
        if not ctx.background.pauses.last(_AWAY, now := ctx.clock.now()):
            ctx.background.pauses.lengthen(_AWAY, now, _AWAY_LONGEST)
        ctx.wake.set()  # the loop waits for its end
        return
    except HubRefused as refusal:
        log.warning("the Hub refused a share of %s: %s", reservation_id, refusal.status)
        ctx.background.pauses.forget(_AWAY)
        await _refused(ctx, needed, row)
        return
    for key_of_pause in (_AWAY, *(_paused(row, one) for one in Step)):
        ctx.background.pauses.forget(key_of_pause)
    ctx.wake.set()  # it may have changed again meanwhile


async def _take(
    ctx: Context, needed: Step, row: CollaboratorRow, reservation: ReservationRow
) -> None:
    key, owner, name = (row.reservation_id, row.user), reservation.user, reservation.server_name
    if needed is Step.MAKE:
        await _mark(ctx, key, "no", "making")
        try:
            await ctx.hub.share(owner, name, row.user)
        except HubRefused:
            if await ctx.hub.groups(row.user) is not None:
                raise
            await sharing.gone(ctx, reservation.id, row.user)
            await _revoked(ctx, key)
        else:
            await _mark(ctx, key, "making", "yes")
        return
    if needed is Step.REVOKE:
        await ctx.hub.unshare(owner, name, row.user)
    await _revoked(ctx, key)


async def _refused(ctx: Context, needed: Step, row: CollaboratorRow) -> None:
    times = ctx.background.pauses.lengthen(_paused(row, needed), ctx.clock.now())
    if times == _TOLD_AFTER and needed in _REFUSED:
        said = _REFUSED[needed].format(user=row.user)
        said = f"{said}. It is asked again; your administrators find why in gpudev's log."
        await sharing.say_once(ctx, row.reservation_id, said)


def _paused(row: CollaboratorRow, needed: Step) -> str:
    return f"share:{row.reservation_id}:{row.user}:{needed}"


async def _mark(ctx: Context, key: tuple[str, str], before: str, after: str) -> None:
    async def work(session: AsyncSession) -> None:
        row = await session.get(CollaboratorRow, key)
        if row is not None and row.share == before:
            row.share = after

    await ctx.store.run(work)


async def _revoked(ctx: Context, key: tuple[str, str]) -> None:
    """The Hub has no share (any more). Who was invited again meanwhile is not forgotten: the next
    step makes the share."""

    async def work(session: AsyncSession) -> None:
        row = await session.get(CollaboratorRow, key)
        if row is None:
            return
        row.share = "no"
        if row.removed_at is not None:
            await session.delete(row)

    await ctx.store.run(work)
