"""The planner's world read from the database, and its plan written back, inside one transaction.

Every operation that changes capacity or demand calls `replan` before it commits: so a start is
never promised, and never made, against a state that somebody else changes at the same time. Write
transactions are serial (see `store.engine`), and the constraints refuse what would still be wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.states import WAITING, State
from gpudev_service import planner
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.fleet import is_coming
from gpudev_service.settings import NodeSpec
from gpudev_service.store.memory import Turn
from gpudev_service.store.models import (
    HistoryRow,
    LeaseUnitRow,
    PlacementRow,
    ReservationRow,
)

from . import facts, kept
from .kept import Kept, Step
from .transitions import note, telling, transition

#: A node is asked for by so much earlier than it takes to come.
_SOON = timedelta(minutes=1)
#: What it takes to carry out a start that is due; nobody calls that late.
_PUNCTUAL = timedelta(seconds=1)


#: Why a promise could not be kept, in words.
_CAUSES = {
    planner.Reason.NODE_GONE: "a node has left the fleet",
    planner.Reason.NODE_DRAINED: "a node was taken out of service",
    planner.Reason.NODE_HELD_LONGER: "GPUs are held longer than they should be, or were lost",
    planner.Reason.QUOTA_LOWERED: "a limit was lowered",
    planner.Reason.STARTED_LATE: "the start was missed while the service was away",
    planner.Reason.QUEUE_PLANNED_AGAIN: "capacity was lost and the queue was planned again",
    planner.Reason.ELSEWHERE: "the disk cannot be used on a node that was promised",
}


#: Why something cannot be placed at all, in words.
WHY_NOT = {
    planner.Reason.NO_SUCH_POOL: "there is no node of this type",
    planner.Reason.TOO_MANY_UNITS: "no node has so many GPUs",
    planner.Reason.TOO_FEW_NODES: "there are not so many nodes",
    planner.Reason.DRAINED: "the nodes that could hold it are out of service",
    planner.Reason.ELSEWHERE: "the nodes that could hold it are not where the disk is",
    planner.Reason.QUOTA_TOO_SMALL: "it is more than the quota allows",
    planner.Reason.BOOKED_START_TAKEN: "there is no room at that time",
}


#: Rows loaded by one statement: databases have a limit on its parameters.
_AT_ONCE = 500


@dataclass(slots=True)
class Outcome:
    """What a replan changed: history entries to publish, and requests that can never start."""

    entries: list[HistoryRow] = field(default_factory=list)
    impossible: dict[str, planner.Reason] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)


async def wanted_nodes(ctx: Context, session: AsyncSession, now: datetime) -> dict[str, int]:
    """How many nodes of each type are to be added: those on which somebody is promised a start
    that is not further away than a node takes to come."""
    found: dict[str, set[str]] = {}
    row = ReservationRow
    query = select(row.gpu_type, row.planned_start, row.planned_nodes)
    for gpu_type, start, planned in await session.execute(query.where(row.state.in_(WAITING))):
        names = {name for name in planned or () if is_coming(name)}
        if not names or gpu_type not in ctx.fleet.types():
            continue
        kubernetes = ctx.fleet.types()[gpu_type].kubernetes
        scale_up = kubernetes.scale_up if kubernetes else None
        if scale_up and start <= now + timedelta(minutes=scale_up.minutes) + _SOON:
            found.setdefault(gpu_type, set()).update(names)
    return {gpu_type: len(names) for gpu_type, names in found.items()}


async def replan(
    ctx: Context, session: AsyncSession, now: datetime, gpu_types: Sequence[str] | None = None
) -> Outcome:
    """Plans `gpu_types` anew, starts the leases that are due, stores everybody's promised start.

    While the fleet cannot be seen nothing starts and nobody's promise moves: what is known of it
    may be wrong. Who comes then is promised a start by what was seen last.
    """
    outcome = Outcome()
    names = list(ctx.fleet.types() if gpu_types is None else gpu_types)
    if not ctx.fleet.view().fresh:
        await _seat_newcomers(ctx, session, now, names, outcome)
        return outcome
    turn: Turn[Kept] = Turn.of(session)
    steps = await _steps(ctx, session, now, names, turn)
    for step in steps.values():
        await _carry_out(ctx, session, now, step, outcome)
    await session.flush()
    for gpu_type, step in steps.items():
        if step.kept is not None:
            turn.put(gpu_type, step.kept)
    return outcome


async def _steps(
    ctx: Context, session: AsyncSession, now: datetime, gpu_types: Sequence[str], turn: Turn[Kept]
) -> dict[str, Step]:
    """The next plan of each type: from what is kept of the last one, or else from all rows."""
    now_ms = facts.to_ms(now)
    steps: dict[str, Step] = {}
    known = {name: await turn.take(name) for name in gpu_types}
    stale = {key for last, keys in known.values() if last is not None for key in keys}
    if len(stale) <= _AT_ONCE and any(last is not None for last, _ in known.values()):
        news = (await facts.world(ctx, session, now, gpu_types, only=stale)).parts(gpu_types)
        for name, (last, keys) in known.items():
            step = None if last is None else kept.go_on(last, ctx, news[name], keys, now_ms)
            if step is not None:
                steps[name] = step
    anew = [name for name in gpu_types if name not in steps]
    if anew:
        current = (await facts.world(ctx, session, now, anew)).parts(anew)
        steps.update((name, kept.begin(ctx, current[name], now_ms)) for name in anew)
    return steps


async def to_ask(
    ctx: Context, session: AsyncSession, now: datetime, gpu_type: str
) -> planner.World:
    """A type's world as it is now, for questions; it stays as it is."""
    now_ms = facts.to_ms(now)
    turn: Turn[Kept] | None = Turn.within(session)
    if turn is not None:
        known, stale = await turn.take(gpu_type)
        if known is not None and len(stale) <= _AT_ONCE:
            news = await facts.world(ctx, session, now, [gpu_type], only=stale)
            live = kept.as_of(known, ctx, news, stale, now_ms)
            if live is not None:
                turn.put(gpu_type, known)
                return live
    current = await facts.world(ctx, session, now, [gpu_type])
    return planner.World(current.nodes, current.holds, current.demands, facts.rules(ctx), now_ms)


async def _carry_out(
    ctx: Context, session: AsyncSession, now: datetime, step: Step, outcome: Outcome
) -> None:
    outcome.impossible.update(step.impossible)
    withdrawn = [key for key in step.impossible if step.promised.get(key) is not None]
    rows = await _rows(session, {*step.slots, *step.begun, *withdrawn})
    if step.begun:
        await _begin_leases(ctx, session, step, rows, now, outcome)
    for key in withdrawn:
        outcome.entries += _withdrawn(session, rows[key], now)
    for key, slot in step.slots.items():
        moved_later = step.moved_later.get(key)
        outcome.entries += _promise(session, rows[key], slot, moved_later, now)


async def _seat_newcomers(
    ctx: Context,
    session: AsyncSession,
    now: datetime,
    gpu_types: Sequence[str],
    outcome: Outcome,
) -> None:
    """Promises a start to those who have none, and changes nothing else."""
    current = await facts.world(ctx, session, now, gpu_types)
    plan = planner.plan(
        current.nodes, current.holds, current.demands, facts.rules(ctx), facts.to_ms(now)
    )
    outcome.impossible.update(plan.impossible)
    new = [d.id for d in current.demands if d.promise is None and d.id in plan.slots]
    rows = await _rows(session, new)
    for key in new:
        outcome.entries += _promise(session, rows[key], plan.slots[key], None, now)


async def _rows(session: AsyncSession, keys: Collection[str]) -> dict[str, ReservationRow]:
    """The rows of `keys`; those that the session has are not read again."""
    rows = {row.id: row for row in session if isinstance(row, ReservationRow)}
    missing = sorted(key for key in keys if key not in rows)
    for at in range(0, len(missing), _AT_ONCE):
        query = select(ReservationRow).where(ReservationRow.id.in_(missing[at : at + _AT_ONCE]))
        rows.update((row.id, row) for row in await session.scalars(query))
    return rows


async def _begin_leases(
    ctx: Context,
    session: AsyncSession,
    step: Step,
    rows: Mapping[str, ReservationRow],
    now: datetime,
    outcome: Outcome,
) -> None:
    """Starts those who are due, on units that nobody holds."""
    specs = {spec.name: spec for spec in ctx.fleet.nodes()}
    names = {node for slot in step.begun.values() for node in slot.nodes}
    unit = LeaseUnitRow
    held = await session.execute(select(unit.node, unit.unit).where(unit.node.in_(names)))
    taken = {(node, number) for node, number in held}
    free = {
        name: [at for at in range(facts.units(ctx, specs[name])) if (name, at) not in taken]
        for name in names
    }
    for key, slot in step.begun.items():
        row = rows[key]
        outcome.entries += _late(session, row, now)
        outcome.entries.append(_begin_lease(session, row, slot, free, specs, now))
        outcome.started.append(key)


def _begin_lease(
    session: AsyncSession,
    row: ReservationRow,
    slot: planner.Slot,
    free: Mapping[str, list[int]],
    specs: Mapping[str, NodeSpec],
    now: datetime,
) -> HistoryRow:
    """Takes the units of `slot` and moves the reservation to `preparing`; the lease begins."""
    row.starts_at = now
    # A start that is carried out a moment late keeps the end that was planned: those behind it have
    # been promised that end.
    row.expires_at = min(now, facts.from_ms(slot.start_ms)) + timedelta(seconds=row.duration_s)
    row.first_promise = row.first_promise or now
    for rank, node in enumerate(slot.nodes):
        units = [free[node].pop(0) for _ in range(slot.units_per_node)]
        ids = specs[node].gpu_ids
        gpu_ids = [ids[unit] for unit in units if unit < len(ids)]
        session.add(
            PlacementRow(reservation_id=row.id, rank=rank, node=node, units=units, gpu_ids=gpu_ids)
        )
        for unit in units:
            session.add(
                LeaseUnitRow(
                    node=node,
                    unit=unit,
                    gpu_type=row.gpu_type,
                    gpu_id=ids[unit] if unit < len(ids) else "",
                    rank=rank,
                    reservation_id=row.id,
                )
            )
    return transition(
        session,
        row,
        State.PREPARING,
        reason=f"Your lease has begun on {', '.join(slot.nodes)}; the server is starting.",
        actor=SERVICE.name,
        now=now,
    )


def _late(session: AsyncSession, row: ReservationRow, now: datetime) -> list[HistoryRow]:
    """A start that comes later than promised stands in the history with its cause."""
    promised = row.planned_start
    if promised is None or now - promised <= _PUNCTUAL:
        return []
    late = words.duration((now - promised).total_seconds())
    reason = f"The start comes {late} late: {_CAUSES[planner.Reason.STARTED_LATE]}."
    data = {"from": promised.isoformat(), "to": now.isoformat()}
    return [note(session, row, "promise", reason, actor=SERVICE.name, now=now, data=data)]


def _promise(
    session: AsyncSession,
    row: ReservationRow,
    slot: planner.Slot,
    moved_later: planner.Reason | None,
    now: datetime,
) -> list[HistoryRow]:
    """Stores a slot. Improvements are told but fill no history; a broken promise stands in it."""
    start, nodes = facts.from_ms(slot.start_ms), list(slot.nodes)
    before, places = row.planned_start, row.planned_nodes or []
    if before == start and row.planned_nodes == nodes:
        return []
    again = before is None and row.first_promise is not None
    row.planned_start, row.planned_nodes = start, nodes
    row.first_promise = row.first_promise or start
    if moved_later is None:
        if again:
            return [_promised_again(session, row, start, now)]
        # The first promise is told with the submission.
        return [] if before in {None, start} else [live_promise(row, now)]
    late = any(is_coming(place) for place in places)
    cause = "the node that was to be added is not there yet" if late else _CAUSES[moved_later]
    reason = f"The promised start had to move: {cause}."
    data = {"from": before.isoformat() if before else None, "to": start.isoformat()}
    return [note(session, row, "promise", reason, actor=SERVICE.name, now=now, data=data)]


def _promised_again(
    session: AsyncSession, row: ReservationRow, start: datetime, now: datetime
) -> HistoryRow:
    data = {"from": None, "to": start.isoformat()}
    reason = "A start is promised again."
    return note(session, row, "promise", reason, actor=SERVICE.name, now=now, data=data)


def _withdrawn(session: AsyncSession, row: ReservationRow, now: datetime) -> list[HistoryRow]:
    """A promise that nothing can keep at the moment: the place in the queue stays."""
    if row.planned_start is None:
        return []
    data = {"from": row.planned_start.isoformat(), "to": None}
    row.planned_start = row.planned_nodes = None
    reason = (
        "The promised start had to be taken back: no node that could hold this is in service. "
        "Your place in the queue is kept."
    )
    return [note(session, row, "promise", reason, actor=SERVICE.name, now=now, data=data)]


def live_promise(row: ReservationRow, now: datetime) -> HistoryRow:
    """Told, and not stored: it would fill the history."""
    return telling(row, "promise", "The start is now earlier.", actor=SERVICE.name, now=now)
