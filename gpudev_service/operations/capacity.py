"""GPU types, what is free when, drains and maintenance."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import (
    Availability,
    EarliestStart,
    GpuType,
    NodeView,
    hours_to_duration,
)
from gpudev_service import planner
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.errors import not_found
from gpudev_service.fleet import is_coming
from gpudev_service.settings import GpuTypeSpec
from gpudev_service.store.models import (
    MaintenanceRow,
    NodeDrainRow,
)

from . import admission, facts, overview, planning, questions, views
from .standings import maintenance


async def gpu_types(ctx: Context, groups: tuple[str, ...]) -> list[GpuType]:
    """All types, with the caller's limits."""
    async with ctx.store.reading() as session:
        messages = await maintenance(session)
    return [_type_view(ctx, spec, groups, messages) for spec in ctx.fleet.types().values()]


def _type_view(
    ctx: Context, spec: GpuTypeSpec, groups: tuple[str, ...], messages: dict[str, str]
) -> GpuType:
    policy = ctx.settings.policy
    limits = policy.of(groups)
    longest = admission.max_hours(spec, limits)
    return GpuType(
        name=spec.name,
        label=spec.label or spec.name,
        description=spec.description,
        gpus_per_node=spec.gpus_per_node,
        shares_per_node=spec.shares_per_node,
        max_nodes=spec.max_nodes,
        counts=spec.valid_counts,
        cpus=spec.cpus,
        memory_gb=spec.memory_gb,
        gpu_memory_gb=spec.gpu_memory_gb,
        min_hours=policy.min_hours,
        max_hours=longest,
        default_hours=min(policy.default_hours, longest),
        maintenance=messages.get(spec.name) or spec.maintenance,
        simulated=_simulated(ctx, spec.name),
        added_within_minutes=_minutes(spec),
        images=limits.images,
    )


def _minutes(spec: GpuTypeSpec) -> float | None:
    scale_up = spec.kubernetes.scale_up if spec.kubernetes else None
    return scale_up.minutes if scale_up else None


def _simulated(ctx: Context, gpu_type: str) -> bool:
    return any(node.simulated for node in ctx.fleet.nodes() if node.gpu_type == gpu_type)


async def availability(
    ctx: Context,
    hours: float,
    groups: tuple[str, ...],
    gpu_type: str | None = None,
    user: str | None = None,
) -> list[Availability]:
    """Per type what is there, what is free, who waits, and the earliest start for each count, with
    the priority and the limits of `user` in these groups; without one, of nobody in particular.
    """
    types = ctx.fleet.types()
    if gpu_type is not None and gpu_type not in types:
        raise not_found("GPU type")
    chosen = [types[gpu_type]] if gpu_type else list(types.values())

    async def question(session: AsyncSession) -> list[Availability]:
        now = ctx.clock.now()
        messages = await maintenance(session)
        found = []
        for spec in chosen:
            asked = await questions.present(ctx, session, now, spec.name)
            closed = messages.get(spec.name) or spec.maintenance
            found.append(_availability(ctx, spec, asked, closed, hours, groups, user, now))
        return found

    return await questions.ask(ctx, question)


def _availability(
    ctx: Context,
    spec: GpuTypeSpec,
    asked: questions.Present,
    closed: str | None,
    hours: float,
    groups: tuple[str, ...],
    user: str | None,
    now: datetime,
) -> Availability:
    now_ms = facts.to_ms(now)
    nodes = [node for node in asked.nodes if not is_coming(node.name)]
    taken = dict.fromkeys((node.name for node in nodes), 0)
    for hold in asked.holds:
        for name, units in hold.units.items():
            if name in taken:
                taken[name] += units
    used = sum(taken.values())
    drained = sum(node.units - taken[node.name] for node in nodes if not node.available)
    total = sum(node.units for node in nodes)
    length = hours_to_duration(hours)
    starts = [
        asked.world.what_if(facts.question(ctx, spec, gpus, length, now_ms, groups, user))
        for gpus in spec.valid_counts
    ]
    return Availability(
        gpu_type=spec.name,
        total=total,
        free=max(0, total - used - drained),
        drained=drained,
        queue_length=len(asked.demands),
        hours=hours,
        earliest=[
            _earliest(gpus, start, now_ms, closed)
            for gpus, start in zip(spec.valid_counts, starts, strict=True)
        ],
        maintenance=closed,
        simulated=_simulated(ctx, spec.name),
        added_within_minutes=_minutes(spec),
    )


def _earliest(
    gpus: int, start: planner.Slot | planner.Reason, now_ms: int, closed: str | None
) -> EarliestStart:
    if closed:
        return EarliestStart(gpus=gpus, starts_at=None, reason=f"in maintenance: {closed}")
    if isinstance(start, planner.Slot):
        return EarliestStart(gpus=gpus, starts_at=facts.from_ms(max(start.start_ms, now_ms)))
    return EarliestStart(gpus=gpus, starts_at=None, reason=planning.WHY_NOT[start])


# --- what operators do ------------------------------------------------------------------------


async def drain(ctx: Context, node: str, reason: str, actor: Actor) -> NodeView:
    """Places nothing new on a node. Promises that needed it move, and their histories say why."""
    return await _change_node(ctx, node, reason, actor)


async def undrain(ctx: Context, node: str, actor: Actor) -> NodeView:
    return await _change_node(ctx, node, None, actor)


async def _change_node(ctx: Context, name: str, reason: str | None, actor: Actor) -> NodeView:
    spec = next((node for node in ctx.fleet.nodes() if node.name == name), None)
    if spec is None:
        raise not_found("node")

    async def work(session: AsyncSession) -> planning.Outcome:
        now = ctx.clock.now()
        row = await session.get(NodeDrainRow, name)
        if reason is None and row is not None:
            await session.delete(row)
        elif reason is not None:
            await session.merge(NodeDrainRow(node=name, reason=reason, actor=actor.name, since=now))
        await session.flush()
        return await planning.replan(ctx, session, now, [spec.gpu_type])

    outcome = await ctx.store.run(work)
    await views.publish(ctx, outcome.entries)
    async with ctx.store.reading() as session:
        [shown] = await overview.of_nodes(ctx, session, [spec], actor.name, lambda _: True)
    return shown


async def set_maintenance(
    ctx: Context, gpu_type: str, message: str, actor: Actor, groups: tuple[str, ...] = ()
) -> GpuType:
    """Takes no new reservations of a type; running and waiting ones stay as they are."""
    return await _change_type(ctx, gpu_type, message, actor, groups)


async def end_maintenance(
    ctx: Context, gpu_type: str, actor: Actor, groups: tuple[str, ...] = ()
) -> GpuType:
    return await _change_type(ctx, gpu_type, None, actor, groups)


async def _change_type(
    ctx: Context, name: str, message: str | None, actor: Actor, groups: tuple[str, ...]
) -> GpuType:
    spec = ctx.fleet.types().get(name)
    if spec is None:
        raise not_found("GPU type")

    async def work(session: AsyncSession) -> dict[str, str]:
        row = await session.get(MaintenanceRow, name)
        if message is None and row is not None:
            await session.delete(row)
        elif message is not None:
            await session.merge(
                MaintenanceRow(
                    gpu_type=name, message=message, actor=actor.name, since=ctx.clock.now()
                )
            )
        await session.flush()
        return await maintenance(session)

    return _type_view(ctx, spec, groups, await ctx.store.run(work))
