"""Two that want the last GPU at the same moment: exactly one gets it."""

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import delete, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store.engine import Store
from gpudev_service.store.models import LeaseUnitRow
from tests.fixtures.rows import lease, lease_unit

ROUNDS = 100


async def test_the_last_gpu_goes_to_one_of_two_services(store: Store, migrated_url: str) -> None:
    """Each side looks whether the GPU is free and takes it: nobody may fail, nobody shares it."""
    sides = {"r1": Store(migrated_url), "r2": Store(migrated_url)}
    start = asyncio.Barrier(len(sides))

    async def take(name: str) -> bool:
        async def work(session: AsyncSession) -> bool:
            if await session.scalar(select(LeaseUnitRow.reservation_id)):
                return False
            session.add(lease_unit(name))
            return True

        await start.wait()
        return await sides[name].run(work)

    async with store.transaction() as session:
        session.add_all([lease("r1"), lease("r2")])
    for _ in range(ROUNDS):
        got = dict(zip(sides, await asyncio.gather(*map(take, sides)), strict=True))
        async with store.transaction() as session:
            holder = (await session.scalars(select(LeaseUnitRow.reservation_id))).one()
            await session.execute(delete(LeaseUnitRow))
        assert sorted(got.values()) == [False, True]
        assert got[holder]
    for side in sides.values():
        await side.close()


async def test_code_that_does_not_look_is_refused(store: Store, migrated_url: str) -> None:
    """Writers that take no lock of ours and believe that the GPU is free: the key decides."""
    async with store.transaction() as session:
        session.add_all([lease("r1"), lease("r2")])
    start = threading.Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(ROUNDS // 2):
            taking = [
                threads.submit(take_blindly, migrated_url, name, start) for name in ("r1", "r2")
            ]
            assert sorted([side.result() for side in taking]) == [False, True]
            async with store.transaction() as session:
                assert len((await session.scalars(select(LeaseUnitRow.reservation_id))).all()) == 1
                await session.execute(delete(LeaseUnitRow))


TAKE = (
    "INSERT INTO lease_units (node, unit, gpu_type, gpu_id, rank, reservation_id)"
    " VALUES ('n1', 0, 't4', '0', 0, {})"
)


def take_blindly(url: str, name: str, start: threading.Barrier) -> bool:
    """Whether the driver's plain connection could insert the lease of the GPU."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        connection = sqlite3.connect(parsed.database or "")
        start.wait()
        try:
            with connection:
                connection.execute(TAKE.format("?"), [name])
        except sqlite3.IntegrityError:
            return False
        finally:
            connection.close()
        return True
    plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as outsider:
        start.wait()
        try:
            outsider.execute(TAKE.format("%s"), [name])
        except psycopg.errors.UniqueViolation:
            return False
    return True


@pytest.mark.parametrize("services", [4])
async def test_one_history_of_many_services(store: Store, migrated_url: str, services: int) -> None:
    """Each of many adds to what it has read: were two side by side, one addition would be lost."""
    sides = [Store(migrated_url, patience=30) for _ in range(services)]
    rounds = 10

    async def add_up(side: Store) -> None:
        async def work(session: AsyncSession) -> None:
            units = (await session.scalars(select(LeaseUnitRow.unit))).all()
            session.add(lease_unit(unit=len(units)))

        for _ in range(rounds):
            await side.run(work, attempts=1)

    async with store.transaction() as session:
        session.add(lease("r1"))
    await asyncio.gather(*map(add_up, sides))
    async with store.reading() as session:
        units = (await session.scalars(select(LeaseUnitRow.unit))).all()
    assert sorted(units) == list(range(services * rounds))
    for side in sides:
        await side.close()
