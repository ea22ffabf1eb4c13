"""How many GPUs of a type a person's leases may hold at the same time, as the planner counts it.

The groups that somebody had when they last asked for something tell their limit, so that it is one
and the same for everything that they wait for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import LIVE
from gpudev_service import planner
from gpudev_service.context import Context
from gpudev_service.settings import GpuTypeSpec, Policy
from gpudev_service.store.models import ReservationRow

Quotas = tuple[planner.Quota, ...]


def quotas(policy: Policy, spec: GpuTypeSpec, user: str, groups: Iterable[str]) -> Quotas:
    """Those of somebody in these groups; shares of a type without GPUs are no GPUs."""
    most = policy.of(groups).max_running_gpus if spec.gpus_per_node else None
    return () if most is None else (planner.Quota(user, most),)


async def by_reservation(
    ctx: Context, session: AsyncSession, only: Collection[str] | None = None
) -> Mapping[str, Quotas]:
    """The quotas of each reservation that is not over and has any, or of those in `only`."""
    policy = ctx.settings.policy
    if not policy.limits_running:
        return {}
    row = ReservationRow
    query = select(row.id, row.gpu_type, row.user, row.groups).where(row.state.in_(LIVE))
    if only is not None:
        query = query.where(row.id.in_(only))
    rows = (await session.execute(query.order_by(row.submitted_at, row.id))).all()
    latest = {one.user: tuple(one.groups) for one in rows}
    types = ctx.fleet.types()
    made: dict[tuple[str, str], Quotas] = {}
    for gpu_type, user in {(one.gpu_type, one.user) for one in rows}:
        spec = types.get(gpu_type)
        made[gpu_type, user] = quotas(policy, spec, user, latest[user]) if spec else ()
    return {one.id: found for one in rows if (found := made[one.gpu_type, one.user])}
