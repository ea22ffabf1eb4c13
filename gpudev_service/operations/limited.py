"""Who waits because of a limit on running GPUs, told in words.

The plan knows when a limit leaves room, not why a start is where it is. What is said is therefore
what holds at this moment, whatever else is waited for: the person's own leases leave no room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import LEASED, LIVE, WAITING, State
from gpudev_service.context import Context
from gpudev_service.settings import GpuTypeSpec
from gpudev_service.store.models import LeaseUnitRow, ReservationRow

from . import holding, quotas


async def told(
    ctx: Context, session: AsyncSession, rows: Sequence[ReservationRow]
) -> dict[str, str]:
    """What there is to say of those among `rows` that wait, by reservation; most often nothing."""
    policy, types = ctx.settings.policy, ctx.fleet.types()
    waiting = [row for row in rows if State(row.state) in WAITING and row.gpu_type in types]
    if not waiting or not policy.limits_running:
        return {}
    groups, leases = await _people(session, {row.user for row in waiting})
    held = await _held(ctx, session, leases)
    found = {}
    for row in waiting:
        spec = types[row.gpu_type]
        for quota in quotas.of(policy, spec, row.user, groups.get(row.user, ())):
            has = held[row.user, row.gpu_type]
            if row.gpus > quota.most:
                found[row.id] = _too_many(spec, row.gpus, quota.most)
            # A booking's time is still to come, and its promise counts with what is held then.
            elif State(row.state) is State.QUEUED and has + row.gpus > quota.most:
                found[row.id] = (
                    f"You may have {quota.most} {spec.name} at once and your leases hold {has}: "
                    "this one waits until they leave room for it."
                )
    return found


def _too_many(spec: GpuTypeSpec, gpus: int, most: int) -> str:
    """The limit was lowered after it was asked for."""
    possible = max((count for count in spec.valid_counts if count <= most), default=None)
    instead = "" if possible is None else f" and ask for {possible} at most"
    return (
        f"This cannot start: you may have {most} {spec.name} at once now, and it asks for {gpus}. "
        f"Cancel it{instead}, or ask an operator to raise the limit."
    )


async def _people(
    session: AsyncSession, users: Collection[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The groups that tell the limits of `users`, and whose each of their leases is."""
    row = ReservationRow
    query = select(row.id, row.user, row.state, row.groups).where(
        row.user.in_(users), row.state.in_(LIVE)
    )
    live = (await session.execute(query.order_by(row.submitted_at, row.id))).all()
    groups = {one.user: tuple(one.groups) for one in live}
    return groups, {one.id: one.user for one in live if State(one.state) in LEASED}


async def _held(
    ctx: Context, session: AsyncSession, leases: dict[str, str]
) -> Counter[tuple[str, str]]:
    """How many units each user's leases hold of each type."""
    found: Counter[tuple[str, str]] = Counter()
    if not leases:
        return found
    fleet = ctx.fleet.nodes()
    units = await session.execute(
        holding.UNITS.where(LeaseUnitRow.reservation_id.in_(sorted(leases)))
    )
    located = holding.located(fleet, ctx.fleet.types(), map(holding.Unit._make, units))
    for node in fleet:
        for key, numbers in located.numbers.get(node.name, {}).items():
            found[leases[key], node.gpu_type] += len(numbers)
    return found
