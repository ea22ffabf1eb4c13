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

from . import facts, holding, kept, promises, views
from .kept import Kept, Step
from .transitions import Entry, transition

#: A node is asked for by so much earlier than it takes to come.
_SOON = timedelta(minutes=1)


#: Why something cannot be placed at all, in words.
WHY_NOT = {
    planner.Reason.NO_SUCH_POOL: "there is no node of this type",
    planner.Reason.TOO_MANY_UNITS: "no node has so many GPUs",
    planner.Reason.TOO_FEW_NODES: "there are not so many nodes",
    planner.Reason.DRAINED: "the nodes that could hold it are out of service",
    planner.Reason.ELSEWHERE: "the nodes that could hold it have not the labels, or not the disk",
    planner.Reason.QUOTA_TOO_SMALL: "it is more than the quota allows",
    planner.Reason.BOOKED_START_TAKEN: "there is no room at that time",
}


@dataclass(slots=True)
class Outcome:
    """What a replan changed: history entries to publish, and requests that can never start."""

    entries: list[Entry] = field(default_factory=list)
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


async def plan_again(ctx: Context, gpu_types: Sequence[str]) -> None:
    """Plans `gpu_types` anew where nothing but time or the fleet has changed, and tells of it."""

    async def work(session: AsyncSession) -> Outcome:
        return await replan(ctx, session, ctx.clock.now(), gpu_types)

    outcome = await ctx.store.run(work)
    await views.publish(ctx, outcome.entries)


async def replan(
    ctx: Context, session: AsyncSession, now: datetime, gpu_types: Sequence[str]
) -> Outcome:
    """Plans `gpu_types` anew, not before `now`, starts the leases that are due, stores everybody's
    promised start (`ALL_ARE_PROMISED`).

    While the fleet cannot be seen nothing starts and nobody's promise moves: what is known of it
    may be wrong. Who comes then is promised a start by what was seen last.
    """
    outcome = Outcome()
    if not ctx.fleet.view().fresh:
        await _seat_newcomers(ctx, session, now, gpu_types, outcome)
        return outcome
    turn: Turn[Kept] = Turn.of(session)
    known = {name: await turn.take(name) for name in gpu_types}
    # Whoever has asked has brought a plan to their own time, which may be later than `now`. From
    # here on nobody does.
    now = max(now, ctx.clock.now())
    steps = await _steps(ctx, session, now, known)
    for gpu_type, step in steps.items():
        await _carry_out(ctx, session, now, gpu_type, step, outcome)
    await session.flush()
    for gpu_type, step in steps.items():
        if step.kept is not None:
            turn.put(gpu_type, step.kept)
    return outcome


async def _steps(
    ctx: Context,
    session: AsyncSession,
    now: datetime,
    known: Mapping[str, tuple[Kept | None, Collection[str]]],
) -> dict[str, Step]:
    """The next plan of each type: from what is kept of the last one, and which reservations have
    changed since then, or else from all rows."""
    now_ms, gpu_types = facts.to_ms(now), list(known)
    steps: dict[str, Step] = {}
    stale = {key for last, keys in known.values() if last is not None for key in keys}
    if len(stale) <= promises.AT_ONCE and any(last is not None for last, _ in known.values()):
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


async def _carry_out(
    ctx: Context, session: AsyncSession, now: datetime, gpu_type: str, step: Step, outcome: Outcome
) -> None:
    outcome.impossible.update(step.impossible)
    withdrawn = [key for key in step.impossible if step.promised.get(key) is not None]
    rows = await promises.rows(session, {*step.begun, *withdrawn})
    if step.begun:
        await _begin_leases(ctx, session, step, rows, now, outcome)
    for key in withdrawn:
        outcome.entries += promises.withdraw(session, rows[key], step.impossible[key], now)
    made, moved = {}, {}
    objects = promises.loaded(session)
    for key, slot in step.slots.items():
        before = step.promised[key]
        if before is None or key in objects:
            made[key] = slot
        else:
            moved[key] = before, slot
    later = step.moved_later
    outcome.entries += await promises.make(session, made, later, now)
    outcome.entries += await promises.move(session, gpu_type, moved, later, now)


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
    new = {
        demand.id: plan.slots[demand.id]
        for demand in current.demands
        if demand.promise is None and demand.id in plan.slots
    }
    outcome.entries += await promises.make(session, new, {}, now)


async def _begin_leases(
    ctx: Context,
    session: AsyncSession,
    step: Step,
    rows: Mapping[str, ReservationRow],
    now: datetime,
    outcome: Outcome,
) -> None:
    """Starts those who are due, on units that nobody holds (`ONE_LEASE_PER_GPU`), and gives each
    lease its end (`LEASES_END`)."""
    names = {node for slot in step.begun.values() for node in slot.nodes}
    specs = {spec.name: spec for spec in ctx.fleet.nodes() if spec.name in names}
    free = await holding.free(ctx, session, names)
    for key, slot in step.begun.items():
        row = rows[key]
        outcome.entries += promises.late(session, row, now)
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
    length = timedelta(seconds=row.duration_s + row.extension_s)
    row.expires_at = min(now, facts.from_ms(slot.start_ms)) + length
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
