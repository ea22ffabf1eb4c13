"""What has to be known for the admission of requests, read once for all that come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import ReservationRequest
from gpudev_client.states import LIVE
from gpudev_service.context import Context
from gpudev_service.store.models import MaintenanceRow, ReservationRow

from . import admission, labels


@dataclass(slots=True)
class Standings:
    """Types that are closed, and what each person has already."""

    closed: Mapping[str, str]
    of: dict[str, admission.Standing]

    @classmethod
    async def read(cls, session: AsyncSession, users: Iterable[str]) -> Self:
        return cls(await maintenance(session), await _standing(session, frozenset(users)))

    def admit(
        self,
        ctx: Context,
        user: str,
        request: ReservationRequest,
        owner_groups: tuple[str, ...],
        now: datetime,
    ) -> admission.Admitted:
        admitted = admission.admit(
            request,
            types=ctx.fleet.types(),
            maintenance=self.closed,
            policy=ctx.settings.policy,
            limits=ctx.settings.policy.of(owner_groups),
            standing=self.of[user],
            now=now,
        )
        if admitted.node_labels:
            nodes = labels.offered(ctx, admitted.spec.name)
            labels.check(admitted.node_labels, admitted.spec, nodes)
        return admitted

    def count(self, row: ReservationRow) -> None:
        """One more that stands."""
        had = self.of[row.user]
        self.of[row.user] = admission.Standing(had.reservations + 1, had.gpus + row.gpus)


async def maintenance(session: AsyncSession) -> dict[str, str]:
    """Messages of the GPU types that take no reservations, by operators' word."""
    found = await session.execute(select(MaintenanceRow.gpu_type, MaintenanceRow.message))
    return {row.gpu_type: row.message for row in found}


async def _standing(session: AsyncSession, users: frozenset[str]) -> dict[str, admission.Standing]:
    """What each of `users` has already."""
    row = ReservationRow
    query = select(row.user, func.count(), func.coalesce(func.sum(row.gpus), 0))
    query = query.where(row.user.in_(users), row.state.in_(LIVE)).group_by(row.user)
    found = {user: (count, int(gpus)) for user, count, gpus in await session.execute(query)}
    return {user: admission.Standing(*found.get(user, (0, 0))) for user in users}
