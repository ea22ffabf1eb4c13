"""Idle leases: what their servers report, what that means, and the person's "keep it"."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.models import ActivityReport, IdleVerdict, Reservation
from gpudev_client.states import State
from gpudev_service import idleness
from gpudev_service.actor import SERVICE, Actor
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.settings import IdleAction, IdleRule
from gpudev_service.store.models import HistoryRow, ReservationRow

from . import views
from .reservations import end_in
from .rows import load
from .transitions import Entry, note
from .verdicts import rule_for, seen, verdict


async def record(ctx: Context, reservation_id: str, report: ActivityReport) -> IdleVerdict | None:
    """Takes in what a lease's server has seen. Use that came after a warning takes it back."""

    async def work(session: AsyncSession) -> IdleVerdict | None:
        row = await load(session, reservation_id)
        now = ctx.clock.now()
        if State(row.state) is not State.ACTIVE:
            return None
        before = idleness.last_use(seen(row, now))
        # A server's clock may be ahead of ours; what it saw has happened by now.
        row.activity = [
            source.model_copy(
                update={"last_at": min(source.last_at, now) if source.last_at else None}
            ).model_dump(mode="json")
            for source in report.sources
        ]
        row.activity_at = now
        after = idleness.last_use(seen(row, now))
        if after > max(before, row.idle_warned_at or before, row.idle_kept_at or before):
            row.idle_warned_at, row.idle_kept_at, row.idle_keeps = None, None, 0
        return verdict(ctx.settings, row, now)

    return await ctx.store.run(work)


async def keep(ctx: Context, reservation_id: str, actor: Actor) -> Reservation:
    """ "Keep it, I am working": no idleness for the rule's hours from now.

    Raises:
        Refusal: `wrong_state` where nothing is judged, `policy_limit` when it was said too often.
    """

    async def work(session: AsyncSession) -> tuple[Reservation, list[HistoryRow]]:
        row = await load(session, reservation_id)
        now = ctx.clock.now()
        rule = rule_for(ctx.settings, row)
        if rule is None or State(row.state) is not State.ACTIVE:
            raise Refusal("wrong_state", "This lease is not watched for idleness: nothing to keep.")
        if row.idle_keeps >= rule.keeps:
            raise Refusal(
                "policy_limit",
                f"This was said {words.counted(row.idle_keeps, 'time')} without any use since. "
                "Run something on the lease, or give it back.",
                accepted=rule.keeps,
            )
        row.idle_kept_at, row.idle_warned_at = now, None
        row.idle_keeps += 1
        said = f"Kept on request for {words.hours(rule.keep_hours)}."
        entry = note(session, row, "idle", said, actor=actor.name, now=now)
        await session.flush()
        return await views.reservation(ctx, session, row), [entry]

    view, entries = await ctx.store.run(work)
    await views.publish(ctx, entries)
    return view


async def judge(
    ctx: Context, session: AsyncSession, row: ReservationRow, now: datetime
) -> list[Entry]:
    """What follows for one lease now: a warning, or the end; nothing for most."""
    rule, found = rule_for(ctx.settings, row), verdict(ctx.settings, row, now)
    if rule is None or found is None or found.state != "idle" or found.since is None:
        return []
    if rule.action is IdleAction.NOTHING:
        return []
    unused = words.duration((now - found.since).total_seconds())
    if row.idle_warned_at is None:
        row.idle_warned_at = now
        return [_warning(session, row, rule, unused, now)]
    if rule.action is IdleAction.RELEASE and found.release_at and found.release_at <= now:
        reason = f"Given back because nobody used it for {unused}."
        return await end_in(ctx, session, row, State.CANCELLED, reason, SERVICE, now)
    return []


def _warning(
    session: AsyncSession, row: ReservationRow, rule: IdleRule, unused: str, now: datetime
) -> HistoryRow:
    what = words.gpus(row.gpus, row.gpu_type)
    text = f"Nobody has used your lease on {what} for {unused}."
    if rule.action is IdleAction.RELEASE:
        text += (
            f" It is given back in {words.duration(rule.grace_minutes * 60)} "
            "unless it is used or kept."
        )
    else:
        text += " Give it back if you do not need it."
    data = {"warning": True}
    return note(session, row, "idle", text, actor=SERVICE.name, now=now, data=data)
