"""What the operators' guide says of backups on PostgreSQL: its own programs, whole, and in use."""

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import State
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.models import HistoryRow, LeaseUnitRow, ReservationRow
from tests import tiers
from tests.fixtures.rows import NOW, lease, lease_unit, reservation

pytestmark = pytest.mark.postgres


def run(program: str, *arguments: str | Path) -> None:
    folder = tiers.postgres_bin()
    assert folder is not None
    subprocess.run([folder / program, *arguments], check=True, timeout=60)


def line(key: str) -> HistoryRow:
    return HistoryRow(
        reservation_id=key, at=NOW, kind="note", state="active", reason="a line", actor="ada"
    )


async def test_a_dump_is_restored_over_what_has_happened_since(
    postgres_database_url: str, tmp_path: Path
) -> None:
    store = Store(postgres_database_url)
    await migrate.upgrade(store)
    async with store.transaction() as session:
        session.add_all([lease("r1"), reservation("r2")])
        await session.flush()
        session.add_all([lease_unit("r1"), line("r1"), line("r1")])
    address, dump = postgres_database_url.replace("+psycopg", ""), tmp_path / "gpudev.dump"
    run("pg_dump", "--format=custom", "--file", dump, address)
    async with store.transaction() as session:
        await session.execute(delete(LeaseUnitRow))
        (await session.get_one(ReservationRow, "r1")).state = State.STOPPING
        session.add(reservation("r3"))
    await store.close()

    run("pg_restore", "--clean", "--if-exists", "--dbname", address, dump)
    assert await migrate.upgrade(store) == migrate.head()
    async with store.reading() as session:
        row = ReservationRow
        found = await session.execute(select(row.id, row.state).order_by(row.id))
        assert [tuple(one) for one in found] == [("r1", "active"), ("r2", "queued")]
        last = max(await session.scalars(select(HistoryRow.id)))
    async with store.transaction() as session:
        later = line("r2")
        session.add(later)
        await session.flush()
        assert later.id > last, "what follows is told behind what was restored"

    async def take_the_same(session: AsyncSession) -> None:
        session.add(lease_unit("r2"))

    with pytest.raises(IntegrityError):
        await store.run(take_the_same)
    await store.close()
