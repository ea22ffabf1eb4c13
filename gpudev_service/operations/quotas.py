"""How many GPUs of a type a person's leases may hold at the same time, as the planner counts it.

The groups that somebody had when they last asked for something tell their limit, so that it is one
and the same for everything that they wait for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import LIVE
from gpudev_service import planner
from gpudev_service.context import Context
from gpudev_service.settings import GpuTypeSpec, Policy
from gpudev_service.store.models import ReservationRow

Quotas = tuple[planner.Quota, ...]


def of(policy: Policy, spec: GpuTypeSpec, user: str, groups: Iterable[str]) -> Quotas:
    """Those of somebody in these groups; shares of a type without GPUs are no GPUs."""
    most = policy.of(groups).max_running_gpus if spec.gpus_per_node else None
    return () if most is None else (planner.Quota(user, most),)


@dataclass(frozen=True, slots=True)
class Limits:
    """The quotas of reservations that have any, and who has some of GPUs without."""

    quotas: Mapping[str, Quotas] = field(default_factory=dict)
    without: frozenset[str] = frozenset()

    def of(self, reservation_id: str) -> Quotas:
        return self.quotas.get(reservation_id, ())


async def limits(
    ctx: Context, session: AsyncSession, only: Collection[str] | None = None
) -> Limits:
    """What holds for the reservations that are not over, or those in `only`."""
    policy = ctx.settings.policy
    if not policy.limits_running:
        return Limits()
    row = ReservationRow
    query = select(row.id, row.gpu_type, row.user, row.groups).where(row.state.in_(LIVE))
    if only is not None:
        query = query.where(row.id.in_(only))
    rows = (await session.execute(query.order_by(row.submitted_at, row.id))).all()
    latest = {one.user: tuple(one.groups) for one in rows}
    types = ctx.fleet.types()
    made: dict[tuple[str, str], Quotas] = {}
    without = set()
    for gpu_type, user in {(one.gpu_type, one.user) for one in rows}:
        spec = types.get(gpu_type)
        made[gpu_type, user] = of(policy, spec, user, latest[user]) if spec else ()
        if spec and spec.gpus_per_node and not made[gpu_type, user]:
            without.add(user)
    found = {one.id: made[one.gpu_type, one.user] for one in rows}
    return Limits({key: its for key, its in found.items() if its}, frozenset(without))
