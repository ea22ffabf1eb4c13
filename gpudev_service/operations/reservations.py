"""Reservations: submit, look, extend, cancel."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, cast, exists, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import limits
from gpudev_client.ids import new_id
from gpudev_client.models import HistoryEntry, Page, Plan, Reservation, ReservationRequest
from gpudev_client.states import FINAL, LEASED, LIVE, WAITING, State
from gpudev_service import planner
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.events import Interest, Owner
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import (
    LIVE_DISK,
    LIVE_SERVER,
    DiskRow,
    HistoryRow,
    ReservationRow,
)
from gpudev_service.together import Apart

from . import (
    admission,
    cursors,
    disks,
    facts,
    impossible,
    notices,
    planning,
    questions,
    sharing,
    verdicts,
    views,
)
from .extension import offer_in
from .rows import concerns, load
from .standings import Standings
from .transitions import Entry, begin, begun, transition


@dataclass(frozen=True, slots=True)
class ReservationFilter:
    """Which reservations a list shows: those of `users`, of owners in `groups`, and of `servers`
    (user, server name), and those to which `invited` is; None for `users` means everybody. `of`
    narrows that to one user's (and, where they are `invited` too, what is shared with them),
    `states` (empty: all) and `gpu_type` further."""

    users: frozenset[str] | None = frozenset()
    groups: frozenset[str] = frozenset()
    servers: frozenset[tuple[str, str]] = frozenset()
    invited: str | None = None
    of: str | None = None
    states: frozenset[State] = frozenset()
    gpu_type: str | None = None


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """What would become of a request that is admitted, and the starts that others were promised."""

    now: datetime
    admitted: admission.Admitted
    disk: DiskRow | None
    answer: planner.Slot | planner.Reason
    starts_ms: list[int]


@dataclass(frozen=True, slots=True)
class _Submission:
    """A request and who makes it; `context` is what its call has noted for itself."""

    user: str
    actor: Actor
    request: ReservationRequest
    groups: tuple[str, ...]
    at: datetime
    context: contextvars.Context


async def submit(
    ctx: Context, actor: Actor, request: ReservationRequest, owner_groups: tuple[str, ...]
) -> Reservation:
    """Admits and plans a request in one transaction; it starts at once where there is room. Those
    that wait for the same turn are admitted one after the other and then planned together.

    `request.user` is the owner (the actor where it is None), `owner_groups` are the owner's groups.
    A repeated request for a server that has a live reservation is refused with its id.

    Raises:
        Refusal: field, limit and what would be accepted; nothing is stored.
    """
    asked = _Submission(
        request.user or actor.name,
        actor,
        request,
        owner_groups,
        ctx.clock.now(),
        contextvars.copy_context(),
    )
    try:
        made: Reservation = await ctx.submissions.do(asked, lambda batch: _submit(ctx, batch))
    except TimeoutError as error:
        raise StoreUnavailable("Too many wait for the database at the moment.") from error
    return made


async def _submit(ctx: Context, batch: Sequence[_Submission]) -> list[Reservation | Exception]:
    """One transaction for all of them. What is refused before anything is written does not concern
    the others; any other refusal undoes the whole."""
    alone = len(batch) == 1

    async def work(
        session: AsyncSession,
    ) -> tuple[dict[int, Any], list[Entry], views.Known]:
        now = ctx.clock.now()
        found: dict[int, Any] = {}
        rows: dict[int, tuple[ReservationRow, admission.Admitted]] = {}
        entries: list[Entry] = []
        standings = await Standings.read(session, [one.user for one in batch])
        for number, one in enumerate(batch):
            try:
                admitted = standings.admit(ctx, one.user, one.request, one.groups, now)
            except Refusal as refusal:
                found[number] = refusal
                continue
            entering = _enter(ctx, session, one, admitted, now)
            # What it writes is noted for its own call.
            row = await (entering if alone else asyncio.create_task(entering, context=one.context))
            standings.count(row)
            rows[number] = row, admitted
        await session.flush()
        for number, (row, _) in rows.items():
            one = batch[number]
            entries.append(begun(session, row, actor=one.actor.name, now=now))
        types = sorted({row.gpu_type for row, _ in rows.values()})
        outcome = await planning.replan(ctx, session, now, types) if rows else planning.Outcome()
        for row, admitted in rows.values():
            if row.id in outcome.impossible:
                if not alone:
                    raise Apart
                disk = await session.get(DiskRow, row.disk_id) if row.disk_id else None
                raise impossible.refusal(ctx, admitted, outcome.impossible[row.id], disk)
        await session.flush()
        shown = await views.made(ctx, session, [row for row, _ in rows.values()])
        found.update(zip(rows, shown, strict=True))
        owners = [views.owner(row) for row, _ in rows.values()]
        known = {view.id: (owner, view) for owner, view in zip(owners, shown, strict=True)}
        return found, entries + outcome.entries, known

    try:
        found, entries, known = await ctx.store.run_for(len(batch), work)
    except impossible.AtDisk as refused:
        raise await impossible.as_storage_can(ctx, refused) from None
    await views.publish(ctx, entries, known)
    return [found[number] for number in range(len(batch))]


async def _enter(
    ctx: Context,
    session: AsyncSession,
    one: _Submission,
    admitted: admission.Admitted,
    now: datetime,
) -> ReservationRow:
    """Writes what was admitted down."""
    row = _row(one.user, one.request, one.groups, admitted, one.at)
    row.priority = ctx.settings.policy.of(one.groups).priority
    if one.request.server_name is not None:  # a name of ours is nobody's yet
        await _claim_server(session, one.user, row.server_name)
    row.disk_id = await disks.claim(
        ctx, session, one.user, one.request, one.groups, now=now, actor=one.actor
    )
    state = State.SCHEDULED if admitted.booked_for else State.QUEUED
    begin(session, row, state)
    if row.disk_id is not None or one.request.server_name is not None:  # may just have been taken
        async with _races():
            await session.flush()
    return row


async def preview(
    ctx: Context, actor: Actor, request: ReservationRequest, owner_groups: tuple[str, ...]
) -> Plan:
    """When the request would start, had it been submitted now. Nothing is stored."""
    user = request.user or actor.name

    async def question(session: AsyncSession) -> _Foreseen:
        now = ctx.clock.now()
        standings = await Standings.read(session, [user])
        admitted = standings.admit(ctx, user, request, owner_groups, now)
        disk = await disks.check(ctx, session, user, request, owner_groups)
        demand = facts.hypothetical(ctx, admitted, disk, user, owner_groups, now)
        asked = await questions.present(ctx, session, now, admitted.spec.name)
        answer = asked.world.what_if(demand)
        starts = [demand.promise.start_ms for demand in asked.demands if demand.promise]
        return _Foreseen(now, admitted, disk, answer, starts)

    found = await questions.ask(ctx, question)
    now, admitted, answer = found.now, found.admitted, found.answer
    if not isinstance(answer, planner.Slot):
        refused = impossible.refusal(ctx, admitted, answer, found.disk)
        raise await impossible.as_storage_can(ctx, refused)
    starts_at = max(now, facts.from_ms(answer.start_ms))
    starts_now = answer.start_ms <= facts.to_ms(now)
    ahead = sum(start <= answer.start_ms for start in found.starts_ms)
    return Plan(
        starts_at=starts_at,
        expires_at=starts_at + admitted.duration,
        starts_now=starts_now,
        position=0 if starts_now else ahead + 1,
        nodes=list(answer.nodes),
        gpu_type=admitted.spec.name,
        gpus=admitted.gpus,
        hours=request.hours,
    )


def _row(
    user: str,
    request: ReservationRequest,
    groups: tuple[str, ...],
    admitted: admission.Admitted,
    now: datetime,
) -> ReservationRow:
    key = new_id()
    return ReservationRow(
        id=key,
        name=request.name or f"{admitted.spec.name} of {user}",
        user=user,
        groups=list(groups),
        server_name=key if request.server_name is None else request.server_name,
        gpu_type=admitted.spec.name,
        gpus=admitted.gpus,
        nodes=admitted.nodes,
        units_per_node=admitted.units_per_node,
        hours=request.hours,
        duration_s=round(admitted.duration.total_seconds()),
        booked_for=admitted.booked_for,
        image=request.image,
        node_labels=request.node_labels or None,
        submitted_at=now,
    )


async def _claim_server(session: AsyncSession, user: str, server_name: str) -> None:
    """Refuses a server that serves another live reservation (`ONE_LIVE_PER_SERVER`)."""
    live = await session.scalar(
        select(ReservationRow).where(
            ReservationRow.user == user,
            ReservationRow.server_name == server_name,
            ReservationRow.state.in_(LIVE),
        )
    )
    if live is not None:
        raise Refusal(
            "server_in_use",
            f"This server has the reservation {live.name!r} ({live.id}), which is {live.state}. "
            "Cancel that one first, or reserve without naming a server.",
            field="server_name",
            accepted={"reservation": live.id},
        )


@asynccontextmanager
async def _races() -> AsyncIterator[None]:
    """What a constraint refuses here was a race that somebody else has won."""
    try:
        yield
    except IntegrityError as error:
        text = str(error.orig).lower()
        if LIVE_DISK in text or "disk_id" in text:
            raise Refusal("disk_in_use", "The disk has just been taken.", field="disk") from error
        if LIVE_SERVER in text or "server_name" in text:
            raise Refusal("server_in_use", "The server has just been taken.") from error
        raise


async def owner_of(ctx: Context, reservation_id: str) -> Owner | None:
    """What permissions need to know; None where there is no such reservation."""
    if not limits.is_reservation_id(reservation_id):
        return None
    async with ctx.store.reading() as session:
        row = await session.get(ReservationRow, reservation_id)
        return None if row is None else (await views.owners(session, [row]))[row.id]


async def get(ctx: Context, reservation_id: str) -> Reservation:
    """One reservation, with how far it could be extended now, whether it is used, and what has
    happened to its server."""

    async def question(session: AsyncSession) -> Reservation:
        row = await load(session, reservation_id)
        view = await views.reservation(ctx, session, row)
        now = ctx.clock.now()
        view.idle = verdicts.verdict(ctx.settings, row, now)
        if State(row.state) in {State.PREPARING, State.ACTIVE}:
            view.extension = await offer_in(ctx, session, row, now)
        view.notice = await notices.of(session, row)
        return view

    return await questions.ask(ctx, question)


async def listing(
    ctx: Context, chosen: ReservationFilter, limit: int, cursor: str | None
) -> Page[Reservation]:
    """Reservations, newest first. The cursor is opaque and stays valid while new ones arrive."""
    row = ReservationRow
    query = select(row).order_by(row.submitted_at.desc(), row.id.desc()).limit(limit + 1)
    for condition in _conditions(ctx, chosen):
        query = query.where(condition)
    if cursor:
        at, key = cursors.moment_and_id(cursor)
        query = query.where(or_(row.submitted_at < at, and_(row.submitted_at == at, row.id < key)))
    async with ctx.store.reading() as session:
        found = list(await session.scalars(query))
        items = await views.reservations(ctx, session, found[:limit])
    more = len(found) > limit
    last = found[limit - 1] if more else None
    return Page(
        items=items,
        next_cursor=cursors.of_moment_and_id(last.submitted_at, last.id) if last else None,
    )


def _conditions(ctx: Context, chosen: ReservationFilter) -> list[ColumnElement[bool]]:
    row = ReservationRow
    conditions: list[ColumnElement[bool]] = []
    shared = [sharing.invited(chosen.invited, ctx.clock.now())] if chosen.invited else []
    if chosen.users is not None:
        whose: list[ColumnElement[bool]] = [row.user.in_(chosen.users)]
        whose += [_in_group(ctx, group) for group in sorted(chosen.groups)]
        whose += [
            and_(row.user == user, row.server_name == name) for user, name in sorted(chosen.servers)
        ]
        conditions.append(or_(*whose, *shared))
    if chosen.of is not None:
        conditions.append(or_(row.user == chosen.of, *shared))
    if chosen.states:
        conditions.append(row.state.in_(chosen.states))
    if chosen.gpu_type:
        conditions.append(row.gpu_type == chosen.gpu_type)
    return conditions


def _in_group(ctx: Context, group: str) -> ColumnElement[bool]:
    """Whether the owner was in `group`: each database has its own way to look into a JSON list."""
    column = ReservationRow.groups
    if not ctx.store.is_sqlite:
        return cast(column, JSONB).contains([group])
    members = func.json_each(column).table_valued("value", name="member")
    return exists(select(members.c.value).where(members.c.value == group))


async def cancel(
    ctx: Context, reservation_id: str, actor: Actor, reason: str | None = None
) -> Reservation:
    """Ends a reservation: at once while it waits, through `stopping` while it has a lease. One that
    is over, or is being stopped, is left as it is: cancelling twice is no error."""

    async def work(session: AsyncSession) -> tuple[Reservation, list[Entry]]:
        now = ctx.clock.now()
        row = await load(session, reservation_id)
        words = reason or (
            "Cancelled by its owner." if actor.name == row.user else f"Cancelled by {actor.name}."
        )
        entries = await end_in(ctx, session, row, State.CANCELLED, words, actor, now)
        return await views.reservation(ctx, session, row), entries

    view, entries = await ctx.store.run(work)
    await views.publish(ctx, entries)
    return view


async def end_in(
    ctx: Context,
    session: AsyncSession,
    row: ReservationRow,
    target: State,
    reason: str,
    actor: Actor,
    now: datetime,
) -> list[Entry]:
    """Begins the end of a reservation in an open transaction; nothing to do where it has begun."""
    state = State(row.state)
    if state in FINAL or state is State.STOPPING:
        return []
    if state in LEASED:
        return [
            transition(
                session,
                row,
                State.STOPPING,
                reason=reason,
                actor=actor.name,
                now=now,
                target=target,
            )
        ]
    entries = [transition(session, row, target, reason=reason, actor=actor.name, now=now)]
    await session.flush()
    outcome = await planning.replan(ctx, session, now, [row.gpu_type])
    return entries + outcome.entries


async def history(
    ctx: Context, reservation_id: str, limit: int, cursor: str | None
) -> Page[HistoryEntry]:
    """What happened, oldest first."""
    after = cursors.number(cursor) if cursor else 0
    async with ctx.store.reading() as session:
        await load(session, reservation_id)
        found = list(
            await session.scalars(
                select(HistoryRow)
                .where(HistoryRow.reservation_id == reservation_id, HistoryRow.id > after)
                .order_by(HistoryRow.id)
                .limit(limit + 1)
            )
        )
    page = [views.history_entry(entry) for entry in found[:limit]]
    more = len(found) > limit
    return Page(items=page, next_cursor=cursors.of_number(found[limit - 1].id) if more else None)


#: Of so many live reservations the state is read at a time: others are answered in between.
PRESENT_AT_ONCE = 200


async def present(
    ctx: Context, visible: Callable[[Owner], bool], interest: Interest = None
) -> AsyncIterator[Reservation]:
    """All live reservations that `visible` lets through: where an event stream begins. Each as it
    is when it is read; one that is over by then is left out.

    Args:
        interest: whose reservations are asked about at all.
    """
    live = WAITING | LEASED
    # What is said of a reservation may depend on what else its owner has, which is read with it.
    ids = (
        select(ReservationRow.id)
        .where(ReservationRow.state.in_(live))
        .order_by(ReservationRow.user, ReservationRow.id)
    )
    if interest is not None:
        ids = ids.where(concerns(interest))
    async with ctx.store.reading() as session:
        every = list(await session.scalars(ids))
    for at in range(0, len(every), PRESENT_AT_ONCE):
        some = ReservationRow.id.in_(every[at : at + PRESENT_AT_ONCE])
        async with ctx.store.reading() as session:
            # By the states an index would have all that live.
            found = await session.scalars(select(ReservationRow).where(some))
            rows = [row for row in found if State(row.state) in live]
            whose = await views.owners(session, rows)
            shown = [row for row in rows if visible(whose[row.id])]
            told = await views.reservations(ctx, session, shown)
        # Whoever follows may read slowly: the database is not kept waiting.
        for view in told:
            yield view
