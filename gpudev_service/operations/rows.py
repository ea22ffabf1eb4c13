"""Rows that several operations load."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.errors import not_found
from gpudev_service.store.models import ReservationRow


async def load(session: AsyncSession, reservation_id: str) -> ReservationRow:
    """The row, or the refusal that says no more than that there is none."""
    row = await session.get(ReservationRow, reservation_id)
    if row is None:
        raise not_found("reservation")
    return row
