"""Rows that several operations load, and which of them are whose."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, exists, or_
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.errors import not_found
from gpudev_service.store.models import CollaboratorRow, ReservationRow


async def load(session: AsyncSession, reservation_id: str) -> ReservationRow:
    """The row, or the refusal that says no more than that there is none."""
    row = await session.get(ReservationRow, reservation_id)
    if row is None:
        raise not_found("reservation")
    return row


def concerns(users: Collection[str]) -> ColumnElement[bool]:
    """Whether a reservation of the query is one of these users', or one that any of them may have
    been invited to: who may see it is decided by `sharing.standing`."""
    row = CollaboratorRow
    shared = exists().where(row.reservation_id == ReservationRow.id, row.user.in_(users))
    return or_(ReservationRow.user.in_(users), shared)
