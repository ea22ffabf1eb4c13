"""The fleet as people look at it: nodes, who holds what of them until when, and who waits.

Ten thousand may wait and a thousand nodes be held. Whoever looks reads what they are shown of it,
or one look would hold up everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from gpudev_client import limits
from gpudev_client.models import Cluster, NodeView, QueueEntry, UnitUse
from gpudev_client.states import WAITING
from gpudev_service.context import Context
from gpudev_service.events import Owner
from gpudev_service.settings import NodeSpec
from gpudev_service.store.models import NodeDrainRow, ReservationRow

from . import cursors, holding, positions, promises, views

Visible = Callable[[Owner], bool]
_row = ReservationRow
#: What says whose a reservation is, and who may see that.
_whose = (_row.user, _row.groups, _row.server_name, _row.state)
#: What is read of leases, and of those who wait.
_held_until = load_only(*_whose, _row.expires_at, _row.submitted_at, raiseload=True)
_asked = load_only(
    *_whose, _row.name, _row.gpu_type, _row.gpus, _row.hours,
    _row.planned_start, _row.priority, _row.submitted_at, raiseload=True,
)  # fmt: skip


async def cluster(
    ctx: Context,
    viewer: str,
    visible: Visible,
    *,
    first: int = 0,
    limit: int = limits.PAGE_MAX,
    queue: int = limits.PAGE_DEFAULT,
) -> Cluster:
    """Nodes, what runs where until when, and the queue. Whose it is only where `visible`.

    Args:
        first: which node is the first one shown, from 0.
        limit: how many nodes are shown.
        queue: how many of those who wait are shown of each GPU type; and of the viewer's own behind
            them as many again.
    """
    now, fleet = ctx.clock.now(), ctx.fleet.nodes()
    nodes = fleet[first : first + limit]
    async with ctx.store.reading() as session:
        shown = await of_nodes(ctx, session, nodes, viewer, visible)
        lengths = await _lengths(session)
        waiting = [
            _entry(row, place, viewer, visible)
            for gpu_type in (sorted(lengths) if queue else ())
            for row, place in await _queue(ctx, session, gpu_type, queue, viewer)
        ]
    view = ctx.fleet.view()
    return Cluster(
        nodes=shown,
        next_cursor=cursors.of_number(first + limit) if first + limit < len(fleet) else None,
        queue=waiting,
        queue_lengths=lengths,
        simulated=any(node.simulated for node in fleet),
        at=now,
        fresh=view.fresh,
        trouble=view.trouble,
    )


async def of_nodes(
    ctx: Context, session: AsyncSession, nodes: Sequence[NodeSpec], viewer: str, visible: Visible
) -> list[NodeView]:
    """The nodes with what is held of each."""
    names = [node.name for node in nodes]
    held = await _held(ctx, session, names, viewer, visible)
    closed = await session.scalars(select(NodeDrainRow).where(NodeDrainRow.node.in_(names)))
    drains = {row.node: row for row in closed}
    return [_node(ctx, node, held.get(node.name, []), drains.get(node.name)) for node in nodes]


async def _held(
    ctx: Context, session: AsyncSession, names: Sequence[str], viewer: str, visible: Visible
) -> dict[str, list[UnitUse]]:
    """Who holds what, by node."""
    there = (await holding.on(ctx, session, set(names))).numbers
    keys = {key for name in names for key in there.get(name, ())}
    leases = await promises.rows(session, keys, _held_until)
    found: dict[str, list[UnitUse]] = {}
    for name in names:
        units = sorted((unit, key) for key, its in there.get(name, {}).items() for unit in its)
        found[name] = [_use(unit, leases[key], viewer, visible) for unit, key in units]
    return found


def _use(number: int, row: ReservationRow, viewer: str, visible: Visible) -> UnitUse:
    seen = visible(views.owner(row))
    return UnitUse(
        unit=number,
        until=row.expires_at or row.submitted_at,  # a constraint: leases have an end
        reservation=row.id if seen else None,
        user=row.user if seen else None,
        mine=row.user == viewer,
    )


def _node(
    ctx: Context, node: NodeSpec, held: list[UnitUse], drain: NodeDrainRow | None
) -> NodeView:
    spec = ctx.fleet.types()[node.gpu_type]
    units = spec.units_of(node)
    closed = drain is not None or not node.ready
    return NodeView(
        name=node.name,
        gpu_type=node.gpu_type,
        units=units,
        shares=not spec.gpus_per_node,
        free=0 if closed else max(0, units - len(held)),
        drained=closed,
        reason=drain.reason if drain else node.reason,
        simulated=node.simulated,
        held=held,
    )


async def _lengths(session: AsyncSession) -> dict[str, int]:
    """How many wait, by GPU type; types for which somebody does."""
    waits = _row.state.in_(WAITING)
    query = select(_row.gpu_type, func.count().label("waiting")).where(waits)
    found = await session.execute(query.group_by(_row.gpu_type))
    return {row.gpu_type: row.waiting for row in found}


async def _queue(
    ctx: Context, session: AsyncSession, gpu_type: str, most: int, viewer: str
) -> list[tuple[ReservationRow, int]]:
    """The first `most` who wait for a type, and as many of the viewer's own behind them, each with
    its position."""
    waiting = select(_row).where(_row.state.in_(WAITING), _row.gpu_type == gpu_type)
    waiting = waiting.order_by(*positions.ORDER).limit(most).options(_asked)
    head = list(await session.scalars(waiting))
    behind: list[ReservationRow] = []
    if viewer and len(head) == most:
        ahead = [row.id for row in head]
        own = waiting.where(_row.user == viewer, _row.id.not_in(ahead))
        behind = list(await session.scalars(own))
    places = await positions.positions(ctx, session, behind)
    places |= await positions.ranked(session, [row for row in behind if row.id not in places])
    return [(row, place) for place, row in enumerate(head, 1)] + [
        (row, places[row.id]) for row in behind
    ]


def _entry(row: ReservationRow, position: int, viewer: str, visible: Visible) -> QueueEntry:
    seen = visible(views.owner(row))
    return QueueEntry(
        position=position,
        gpu_type=row.gpu_type,
        gpus=row.gpus,
        hours=row.hours,
        promised_start=row.planned_start,
        reservation=row.id if seen else None,
        user=row.user if seen else None,
        name=row.name if seen else None,
        mine=row.user == viewer,
    )
