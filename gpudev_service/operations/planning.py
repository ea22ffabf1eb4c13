"""The planner's world read from the database, and its plan written back, inside one transaction.

Every operation that changes capacity or demand calls `replan` before it commits: so a start is
never promised, and never made, against a state that somebody else changes at the same time. Write
transactions are serial (see `store.engine`), and the constraints refuse what would still be wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.states import LEASED, WAITING, State
from gpudev_service import planner
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.disks.reach import Reach
from gpudev_service.fleet import free_from, is_coming
from gpudev_service.settings import GpuTypeSpec, NodeSpec
from gpudev_service.store.models import (
    DiskRow,
    HistoryRow,
    LeaseUnitRow,
    NodeDrainRow,
    PlacementRow,
    ReservationRow,
)

from . import places
from .admission import Admitted
from .transitions import note, telling, transition

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
#: A node is asked for by so much earlier than it takes to come.
_SOON = timedelta(minutes=1)
#: What it takes to carry out a start that is due; nobody calls that late.
_PUNCTUAL = timedelta(seconds=1)


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, rounded up: a promise may be late by none."""
    return -((_EPOCH - moment) // _MS)


def from_ms(value: int) -> datetime:
    return _EPOCH + value * _MS


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


#: What is read of everybody who waits: plain columns, as the queue may be long. Whole rows are
#: loaded only of those whose plan changes.
_WAITING = (
    ReservationRow.id,
    ReservationRow.gpu_type,
    ReservationRow.nodes,
    ReservationRow.units_per_node,
    ReservationRow.duration_s,
    ReservationRow.priority,
    ReservationRow.disk_id,
    ReservationRow.submitted_at,
    ReservationRow.booked_for,
    ReservationRow.planned_start,
    ReservationRow.planned_nodes,
    ReservationRow.first_promise.is_not(None).label("was_promised"),
)
#: Rows loaded by one statement: databases have a limit on its parameters.
_AT_ONCE = 500


@dataclass(slots=True)
class World:
    """What the planner is asked about. `taken` are the numbers of the units held, by node."""

    nodes: list[planner.Node]
    holds: list[planner.Hold]
    demands: list[planner.Demand]
    taken: dict[str, set[int]]
    specs: dict[str, NodeSpec]


@dataclass(slots=True)
class Outcome:
    """What a replan changed: history entries to publish, and requests that can never start."""

    entries: list[HistoryRow] = field(default_factory=list)
    impossible: dict[str, planner.Reason] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)


async def world(
    ctx: Context, session: AsyncSession, now: datetime, gpu_types: Sequence[str] | None
) -> World:
    """Reads nodes, leases and queue; only those of `gpu_types` unless it is None."""
    wanted = None if gpu_types is None else set(gpu_types)
    drained = set(await session.scalars(select(NodeDrainRow.node)))
    types = ctx.fleet.types()
    specs = {n.name: n for n in ctx.fleet.nodes() if wanted is None or n.gpu_type in wanted}
    nodes = [
        planner.Node(
            name=n.name,
            pool=n.gpu_type,
            units=types[n.gpu_type].units_per_node if n.units is None else n.units,
            available=n.ready and n.name not in drained,
        )
        for n in specs.values()
    ]
    turnover = ctx.settings.times.turnover_span
    holds, taken = await _held(session, wanted, turnover)
    query = select(*_WAITING).where(ReservationRow.state.in_(WAITING))
    if wanted is not None:
        query = query.where(ReservationRow.gpu_type.in_(wanted))
    rows = (await session.execute(query)).all()
    areas = {}
    if any(row.disk_id is not None for row in rows):
        areas = await places.areas(session, list(specs.values()), wanted)
    demands = [_demand(row, turnover, now, areas.get(row.id)) for row in rows]
    names = [name for name in types if wanted is None or name in wanted]
    for node, hold in _to_come(ctx, names, demands, to_ms(now)):
        nodes.append(node)
        holds.append(hold)
    return World(nodes, holds, demands, taken, specs)


def _to_come(
    ctx: Context, gpu_types: Sequence[str], demands: Sequence[planner.Demand], now_ms: int
) -> Iterator[tuple[planner.Node, planner.Hold]]:
    """Nodes that an autoscaler can add, each held by nobody until it can be there: so a start is
    promised for then, and none is made before."""
    for gpu_type in gpu_types:
        here = [demand for demand in demands if demand.pool == gpu_type]
        most = sum(demand.nodes for demand in here) + ctx.fleet.types()[gpu_type].max_nodes
        for one in ctx.fleet.coming(gpu_type, most):
            promised = [
                demand.promise.start_ms
                for demand in here
                if demand.promise is not None and one.name in demand.promise.nodes
            ]
            until = free_from(promised, one.minutes, now_ms)
            yield (
                planner.Node(one.name, gpu_type, one.units),
                planner.Hold(f"coming:{one.name}", {one.name: one.units}, until),
            )


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


async def _held(
    session: AsyncSession, wanted: set[str] | None, turnover: timedelta
) -> tuple[list[planner.Hold], dict[str, set[int]]]:
    """Leases, and the numbers of the units held on each node."""
    ends = select(ReservationRow.id, ReservationRow.expires_at)
    ends = ends.where(ReservationRow.state.in_(LEASED))
    units = select(LeaseUnitRow.reservation_id, LeaseUnitRow.node, LeaseUnitRow.unit)
    if wanted is not None:
        ends = ends.where(ReservationRow.gpu_type.in_(wanted))
        units = units.where(LeaseUnitRow.gpu_type.in_(wanted))
    held: dict[str, dict[str, int]] = {}
    taken: dict[str, set[int]] = {}
    for reservation_id, node, unit in await session.execute(units):
        counts = held.setdefault(reservation_id, {})
        counts[node] = counts.get(node, 0) + 1
        taken.setdefault(node, set()).add(unit)
    until = {key: end for key, end in await session.execute(ends) if end is not None}
    return [
        planner.Hold(id=key, units=counts, until_ms=to_ms(until[key] + turnover))
        for key, counts in held.items()
        if key in until
    ], taken


def _demand(
    row: Row[Any], turnover: timedelta, now: datetime, among: frozenset[str] | None
) -> planner.Demand:
    # A booking whose time has come is due like any promise; only a future one is fixed in time. One
    # that has lost its place starts as soon as it can from its time on.
    booked = row.booked_for if row.booked_for and row.booked_for > now else None
    lost = row.was_promised and row.planned_start != booked
    promise = None
    if row.planned_start is not None and row.planned_nodes:
        promise = planner.Slot(
            start_ms=to_ms(row.planned_start),
            nodes=tuple(row.planned_nodes),
            units_per_node=row.units_per_node,
        )
    return planner.Demand(
        id=row.id,
        pool=row.gpu_type,
        nodes=row.nodes,
        units_per_node=row.units_per_node,
        duration_ms=to_ms(_EPOCH + timedelta(seconds=row.duration_s) + turnover),
        priority=row.priority,
        order=(to_ms(row.submitted_at), row.id),
        booked_start_ms=to_ms(booked) if booked and not lost else None,
        not_before_ms=to_ms(booked) if booked and lost else None,
        promise=promise,
        among=among,
    )


#: A start that is carried out late by no more than this keeps its promised end, in milliseconds.
_LATE_MS = 60_000


def rules(ctx: Context) -> planner.Rules:
    """How long a lease that should have ended is still counted as occupying, and how late a start
    may be and keep its end: never so late that nothing would be left of a short lease."""
    shortest_ms = ctx.settings.policy.min_hours * 3_600_000
    return planner.Rules(
        overstay_ms=max(1000, round(ctx.settings.times.turnover * 1000)),
        late_start_ms=min(_LATE_MS, int(shortest_ms / 2)),
    )


async def replan(
    ctx: Context, session: AsyncSession, now: datetime, gpu_types: Sequence[str] | None = None
) -> Outcome:
    """Plans `gpu_types` anew, starts the leases that are due, stores everybody's promised start.

    While the fleet cannot be seen nothing starts and nobody's promise moves: what is known of it
    may be wrong. Who comes then is promised a start by what was seen last.
    """
    current = await world(ctx, session, now, gpu_types)
    if not current.demands:
        return Outcome()
    plan = planner.plan(current.nodes, current.holds, current.demands, rules(ctx), to_ms(now))
    outcome = Outcome(impossible=dict(plan.impossible))
    promised = {demand.id: demand.promise for demand in current.demands}
    moved = {key: slot for key, slot in plan.slots.items() if slot != promised[key]}
    if not ctx.fleet.view().fresh:
        moved = {key: slot for key, slot in moved.items() if promised[key] is None}
        rows = await _rows(session, moved)
        for key, slot in moved.items():
            outcome.entries += _promise(session, rows[key], slot, None, now)
        return outcome
    withdrawn = [key for key in plan.impossible if promised[key] is not None]
    rows = await _rows(session, {*moved, *plan.start_now, *withdrawn})
    for key in plan.start_now:
        outcome.entries += _late(session, rows[key], now)
        outcome.entries.append(_begin_lease(session, rows[key], plan.slots[key], current, now))
        outcome.started.append(key)
    for key in withdrawn:
        outcome.entries += _withdrawn(session, rows[key], now)
    started = set(plan.start_now)
    for key, slot in moved.items():
        if key not in started:
            later = plan.moved_later.get(key)
            outcome.entries += _promise(session, rows[key], slot, later, now)
    return outcome


async def _rows(session: AsyncSession, keys: Collection[str]) -> dict[str, ReservationRow]:
    """The rows of `keys`; those that the session has are not read again."""
    rows = {row.id: row for row in session if isinstance(row, ReservationRow)}
    missing = sorted(key for key in keys if key not in rows)
    for at in range(0, len(missing), _AT_ONCE):
        query = select(ReservationRow).where(ReservationRow.id.in_(missing[at : at + _AT_ONCE]))
        rows.update((row.id, row) for row in await session.scalars(query))
    return rows


def _begin_lease(
    session: AsyncSession,
    row: ReservationRow,
    slot: planner.Slot,
    current: World,
    now: datetime,
) -> HistoryRow:
    """Takes the units of `slot` and moves the reservation to `preparing`; the lease begins."""
    row.starts_at = now
    # A start that is carried out a moment late keeps the end that was planned: those behind it have
    # been promised that end.
    row.expires_at = min(now, from_ms(slot.start_ms)) + timedelta(seconds=row.duration_s)
    row.first_promise = row.first_promise or now
    for rank, node in enumerate(slot.nodes):
        taken = current.taken.setdefault(node, set())
        capacity = next(n.units for n in current.nodes if n.name == node)
        units = [unit for unit in range(capacity) if unit not in taken][: slot.units_per_node]
        ids = current.specs[node].gpu_ids
        gpu_ids = [ids[unit] for unit in units if unit < len(ids)]
        taken.update(units)
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
    start, nodes = from_ms(slot.start_ms), list(slot.nodes)
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


def hypothetical(
    ctx: Context, admitted: Admitted, disk: DiskRow | None, priority: int, now: datetime
) -> planner.Demand:
    """A request that is not stored, as the planner takes it; last among its equals."""
    demand = question(ctx, admitted.spec, admitted.gpus, admitted.duration, to_ms(now))
    booked = to_ms(admitted.booked_for) if admitted.booked_for else None
    among = None
    if disk is not None and disk.reach is not None:
        among = places.area(Reach.from_json(disk.reach), ctx.fleet.nodes())
    return replace(demand, priority=priority, booked_start_ms=booked, among=among)


def question(
    ctx: Context, spec: GpuTypeSpec, gpus: int, duration: timedelta, now_ms: int
) -> planner.Demand:
    """ "When could I have this?", as the planner takes it."""
    nodes, units = spec.shape(gpus)
    return planner.Demand(
        id="",
        pool=spec.name,
        nodes=nodes,
        units_per_node=units,
        duration_ms=to_ms(_EPOCH + duration + ctx.settings.times.turnover_span),
        priority=0,
        order=(now_ms, "~"),
    )
