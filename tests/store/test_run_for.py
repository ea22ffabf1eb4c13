"""Work for several callers at once: what is one's fault is told from what is nobody's."""

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import ReservationRow
from gpudev_service.together import Apart
from tests.fixtures.rows import reservation


async def spoiled(session: AsyncSession) -> None:
    session.add(reservation("r1"))
    await session.flush()
    raise ValueError("one of them")


@pytest.mark.parametrize("callers", [2, 3])
async def test_one_of_several_is_at_fault(store: Store, callers: int) -> None:
    with pytest.raises(Apart) as told:
        await store.run_for(callers, spoiled)
    assert isinstance(told.value.__cause__, ValueError)
    async with store.reading() as session:
        assert (await session.scalars(select(ReservationRow))).all() == []


async def test_who_is_alone_hears_of_their_own_fault(store: Store) -> None:
    with pytest.raises(ValueError, match="one of them"):
        await store.run_for(1, spoiled)


@pytest.mark.parametrize("callers", [1, 2])
async def test_what_is_nobodys_fault_is_not_done_apart(store: Store, callers: int) -> None:
    async def away(session: AsyncSession) -> None:
        raise StoreUnavailable("It is away.")

    with pytest.raises(StoreUnavailable):
        await store.run_for(callers, away)


@pytest.mark.parametrize("callers", [1, 2])
async def test_what_succeeds_is_stored(store: Store, callers: int) -> None:
    async def work(session: AsyncSession) -> str:
        session.add(reservation("r1"))
        return "done"

    assert await store.run_for(callers, work) == "done"
    async with store.reading() as session:
        assert [row.id for row in await session.scalars(select(ReservationRow))] == ["r1"]
