"""What the planner is asked about, read from the database: nodes, leases, and who waits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import LEASED, WAITING
from gpudev_service import planner
from gpudev_service.context import Context
from gpudev_service.disks.reach import Reach
from gpudev_service.fleet import free_from
from gpudev_service.settings import GpuTypeSpec
from gpudev_service.store.models import (
    DiskRow,
    LeaseUnitRow,
    NodeDrainRow,
    ReservationRow,
)

from . import holding, labels, places, quotas
from .admission import Admitted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, rounded up: a promise may be late by none."""
    return -((_EPOCH - moment) // _MS)


def from_ms(value: int) -> datetime:
    return _EPOCH + value * _MS


#: What is read of everybody who waits; each of these columns is in `store.memory.PLANNED`.
_WAITING = (
    ReservationRow.id,
    ReservationRow.gpu_type,
    ReservationRow.nodes,
    ReservationRow.units_per_node,
    # A lease that is placed again keeps what it was extended by.
    (ReservationRow.duration_s + ReservationRow.extension_s).label("length_s"),
    ReservationRow.priority,
    ReservationRow.disk_id,
    ReservationRow.node_labels,
    ReservationRow.submitted_at,
    ReservationRow.booked_for,
    ReservationRow.planned_start,
    ReservationRow.planned_nodes,
    ReservationRow.first_promise.is_not(None).label("was_promised"),
)


@dataclass(slots=True)
class World:
    """What the planner is asked about. `taken` are the numbers of the units held, by node. The
    nodes `moved` are held by leases that were begun on another type or name. `unlimited` are people
    with reservations for which no quota holds."""

    nodes: list[planner.Node] = field(default_factory=list)
    holds: list[planner.Hold] = field(default_factory=list)
    demands: list[planner.Demand] = field(default_factory=list)
    taken: dict[str, set[int]] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    unlimited: frozenset[str] = frozenset()

    def parts(self, gpu_types: Iterable[str]) -> dict[str, World]:
        """Each type's own; a lease on nodes of two types is in both, with what it holds there."""
        parts = {name: World(unlimited=self.unlimited) for name in gpu_types}
        for node in self.nodes:
            parts[node.pool].nodes.append(node)
        if not (self.holds or self.demands or self.taken):
            return parts
        part_of = {node.name: parts[node.pool] for node in self.nodes}
        for hold in self.holds:
            part = next((part_of[node] for node in hold.units if node in part_of), None)
            if part is not None:
                part.holds.append(hold)
        for demand in self.demands:
            parts[demand.pool].demands.append(demand)
        for name, numbers in self.taken.items():
            if name in part_of:
                part_of[name].taken[name] = numbers
        for name in self.moved & part_of.keys():
            part_of[name].moved.add(name)
        return parts


async def world(
    ctx: Context,
    session: AsyncSession,
    now: datetime,
    gpu_types: Collection[str] | None,
    only: Collection[str] | None = None,
) -> World:
    """Reads nodes, leases and queue; only those of `gpu_types`, and of the reservations `only`,
    unless they are None."""
    wanted = None if gpu_types is None else set(gpu_types)
    drained = frozenset(await session.scalars(select(NodeDrainRow.node)))
    types = ctx.fleet.types()
    names = [name for name in types if wanted is None or name in wanted]
    by_type = ctx.planner_nodes.by_type(ctx.fleet.nodes(), types, drained)
    pairs = [pair for name in names for pair in by_type.get(name, ())]
    nodes = [node for _, node in pairs]
    turnover = ctx.settings.times.turnover_span
    if only is not None and not only:
        return World(nodes)
    limits = await quotas.limits(ctx, session, only)
    held = await _held(ctx, session, only)
    own = {node.name: node.pool for node in nodes}
    holds = await _holds(session, held, own, only, turnover, limits)
    query = select(*_WAITING).where(ReservationRow.state.in_(WAITING))
    if wanted is not None:
        query = query.where(ReservationRow.gpu_type.in_(wanted))
    if only is not None:
        query = query.where(ReservationRow.id.in_(only))
    rows = (await session.execute(query)).all()
    areas = {}
    if any(row.disk_id is not None for row in rows):
        areas = await places.areas(session, [spec for spec, _ in pairs], wanted)
    areas = labels.narrowed(ctx, rows, areas)
    demands = [_demand(row, turnover, now, areas.get(row.id), limits.of(row.id)) for row in rows]
    for node, hold in _to_come(ctx, names, demands, to_ms(now)):
        nodes.append(node)
        holds.append(hold)
    taken = {name: held.taken(name) for name in held.numbers if name in own}
    return World(nodes, holds, demands, taken, held.moved & own.keys(), limits.without)


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


async def _held(ctx: Context, session: AsyncSession, only: Collection[str] | None) -> holding.Held:
    """What is held anywhere, whatever type it was begun as; by the leases `only`."""
    query = holding.UNITS
    if only is not None:
        query = query.where(LeaseUnitRow.reservation_id.in_(only))
    units = [holding.Unit._make(row) for row in await session.execute(query)]
    return holding.located(ctx.fleet.nodes(), ctx.fleet.types(), units) if units else holding.Held()


async def _holds(
    session: AsyncSession,
    held: holding.Held,
    own: Mapping[str, str],
    only: Collection[str] | None,
    turnover: timedelta,
    limits: quotas.Limits,
) -> list[planner.Hold]:
    """The leases on nodes of `own`, where each stands with its type. One on nodes of several types
    is to each of these types a lease of its own."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for node, by_lease in held.numbers.items():
        if node in own:
            for reservation_id, numbers in by_lease.items():
                counts.setdefault((reservation_id, own[node]), {})[node] = len(numbers)
    row, keys = ReservationRow, {key for key, _ in counts}
    ends = select(row.id, row.expires_at).where(row.state.in_(LEASED), row.expires_at.is_not(None))
    if not keys:
        return []
    if only is None:
        found = await session.execute(ends.where(row.gpu_type.in_(set(own.values()))))
    else:
        found = await session.execute(ends.where(row.id.in_(only)))
    until: dict[str, datetime] = {key: end for key, end in found if end is not None}
    if others := keys - until.keys():  # begun as another type
        found = await session.execute(ends.where(row.id.in_(others)))
        until |= {key: end for key, end in found if end is not None}
    return [
        planner.Hold(
            id=key,
            units=units,
            until_ms=to_ms(until[key] + turnover),
            quota_keys=planner.keys(limits.of(key)),
        )
        for (key, _), units in counts.items()
        if key in until
    ]


def _demand(
    row: Row[Any],
    turnover: timedelta,
    now: datetime,
    among: frozenset[str] | None,
    counted: quotas.Quotas,
) -> planner.Demand:
    # A booking whose time has come is due like any promise; only a future one is fixed in time. One
    # that has lost its place starts as soon as it can from its time on.
    promise = None
    if row.planned_start is not None and row.planned_nodes:
        promise = planner.Slot(
            start_ms=to_ms(row.planned_start),
            nodes=tuple(row.planned_nodes),
            units_per_node=row.units_per_node,
        )
    booked = to_ms(row.booked_for) if row.booked_for and row.booked_for > now else None
    lost = row.was_promised and (promise is None or promise.start_ms != booked)
    return planner.Demand(
        id=row.id,
        pool=row.gpu_type,
        nodes=row.nodes,
        units_per_node=row.units_per_node,
        duration_ms=to_ms(_EPOCH + timedelta(seconds=row.length_s) + turnover),
        priority=row.priority,
        order=(to_ms(row.submitted_at), row.id),
        booked_start_ms=None if lost else booked,
        not_before_ms=booked if lost else None,
        promise=promise,
        quotas=counted,
        among=among,
    )


def rules(ctx: Context) -> planner.Rules:
    """How long a lease that should have ended is still counted as occupying, and how late a start
    may be and keep its end: never so late that nothing would be left of a short lease."""
    shortest_ms = ctx.settings.policy.min_hours * 3_600_000
    usual = planner.Rules(overstay_ms=max(1000, round(ctx.settings.times.turnover * 1000)))
    return replace(usual, late_start_ms=min(usual.late_start_ms, int(shortest_ms / 2)))


def hypothetical(
    ctx: Context,
    admitted: Admitted,
    disk: DiskRow | None,
    user: str,
    groups: tuple[str, ...],
    now: datetime,
) -> planner.Demand:
    """A request that is not stored, as the planner takes it; last among its equals."""
    demand = question(
        ctx, admitted.spec, admitted.gpus, admitted.duration, to_ms(now), groups, user
    )
    booked = to_ms(admitted.booked_for) if admitted.booked_for else None
    among = None
    if disk is not None and disk.reach is not None:
        among = places.area(Reach.from_json(disk.reach), ctx.fleet.nodes())
    among = labels.narrow(ctx, admitted.spec.name, admitted.node_labels, among)
    return replace(demand, booked_start_ms=booked, among=among)


def question(
    ctx: Context,
    spec: GpuTypeSpec,
    gpus: int,
    duration: timedelta,
    now_ms: int,
    groups: tuple[str, ...] = (),
    user: str | None = None,
) -> planner.Demand:
    """ "When could I have this?", as the planner takes it, with the priority of these groups and
    the quotas of `user` in them; without one, nobody's."""
    policy = ctx.settings.policy
    nodes, units = spec.shape(gpus)
    return planner.Demand(
        id="",
        pool=spec.name,
        nodes=nodes,
        units_per_node=units,
        duration_ms=to_ms(_EPOCH + duration + ctx.settings.times.turnover_span),
        priority=policy.of(groups).priority,
        order=(now_ms, "~"),
        quotas=() if user is None else quotas.of(policy, spec, user, groups),
    )
