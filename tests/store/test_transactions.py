"""Write transactions come one after the other; readers see one state and change nothing."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreBroken
from gpudev_service.store.models import ReservationRow
from tests.fixtures.rows import reservation


async def ids(store: Store) -> list[str]:
    async with store.reading() as session:
        found = await session.scalars(select(ReservationRow.id).order_by(ReservationRow.id))
        return list(found)


class InterruptedWork(Exception):  # noqa: N818 - says what is the matter
    """What goes wrong in the middle of a block."""


async def test_a_block_is_committed_as_a_whole_or_not_at_all(store: Store) -> None:
    async def interrupted() -> None:
        async with store.transaction() as session:
            session.add(reservation("r2"))
            await session.flush()
            raise InterruptedWork

    async with store.transaction() as session:
        session.add(reservation("r1"))
    with pytest.raises(InterruptedWork):
        await interrupted()
    assert await ids(store) == ["r1"]


async def test_a_row_can_be_read_after_its_commit(store: Store) -> None:
    async with store.transaction() as session:
        row = reservation("r1")
        session.add(row)
    assert row.state == "queued"


async def test_run_gives_what_the_work_returns(store: Store) -> None:
    async def work(session: AsyncSession) -> str:
        session.add(reservation("r1"))
        return "done"

    assert await store.run(work) == "done"
    assert await ids(store) == ["r1"]


async def test_a_reader_cannot_write(store: Store) -> None:
    async def write() -> None:
        async with store.reading() as session:
            session.add(reservation("r1"))

    with pytest.raises(StoreBroken):
        await write()
    assert await ids(store) == []


async def test_a_reader_sees_one_state_while_others_write(store: Store) -> None:
    count = select(func.count()).select_from(ReservationRow)
    async with store.reading() as session:
        assert await session.scalar(count) == 0
        async with store.transaction() as writing:
            writing.add(reservation("r1"))
        assert await session.scalar(count) == 0
    assert await ids(store) == ["r1"]


async def test_many_readers_do_not_keep_a_writer_waiting(store: Store) -> None:
    everyone_in, done = asyncio.Barrier(21), asyncio.Event()

    async def read() -> None:
        async with store.reading() as session:
            await session.execute(text("SELECT 1"))
            await everyone_in.wait()
            await done.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(20):  # as many as may read at once
            group.create_task(read())
        await everyone_in.wait()
        async with store.transaction() as session:
            session.add(reservation("r1"))
        done.set()
    assert await ids(store) == ["r1"]


async def test_writers_take_turns_in_order(store: Store) -> None:
    inside = 0
    order: list[int] = []

    async def write(number: int) -> None:
        nonlocal inside
        async with store.transaction() as session:
            inside += 1
            assert inside == 1
            await session.execute(text("SELECT 1"))
            order.append(number)
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(write(number))
    assert order == list(range(50))


async def test_a_transaction_inside_another_is_refused(store: Store) -> None:
    async def nested() -> None:
        async with store.transaction(), store.transaction():
            pass

    with pytest.raises(RuntimeError, match="inside"):
        await nested()
    async with store.transaction() as session:
        session.add(reservation("r1"))
    assert await ids(store) == ["r1"]


async def test_a_cancelled_transaction_leaves_the_way_free(store: Store) -> None:
    begun = asyncio.Event()

    async def endless() -> None:
        async with store.transaction() as session:
            session.add(reservation("r1"))
            await session.flush()
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(endless())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.transaction() as session:
        session.add(reservation("r2"))
    assert await ids(store) == ["r2"]


async def test_cancelled_while_waiting_for_the_turn(store: Store) -> None:
    async def write(name: str) -> None:
        async with store.transaction() as session:
            session.add(reservation(name))

    async with store.transaction() as session:
        waiting = [asyncio.create_task(write(name)) for name in ("r2", "r3")]
        await asyncio.sleep(0)  # both have asked for their turn
        waiting[0].cancel()
        session.add(reservation("r1"))
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert await ids(store) == ["r1", "r3"]


async def test_values_stay_out_of_errors(store: Store) -> None:
    async def write() -> None:
        async with store.transaction() as session:
            session.add(reservation("r1", name="a private name", gpus=-1))

    with pytest.raises(DBAPIError) as caught:
        await write()
    assert "a private name" not in str(caught.value).partition("DETAIL")[0]


async def test_a_closed_store_opens_again(store: Store) -> None:
    await store.ping()
    await store.close()
    await store.ping()


async def test_commits_reach_the_disk(store: Store) -> None:
    """What a test can see of durability against a power cut: the databases' own settings."""
    async with store.transaction() as session:
        if store.is_sqlite:
            assert await session.scalar(text("PRAGMA synchronous")) == 2
            assert await session.scalar(text("PRAGMA journal_mode")) == "wal"
        else:
            assert await session.scalar(text("SHOW synchronous_commit")) == "on"


async def test_an_operators_asynchronous_commit_is_overruled(
    postgres_database_url: str,
) -> None:
    async def set_up(session: AsyncSession) -> None:
        name = await session.scalar(text("SELECT quote_ident(current_database())"))
        await session.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))

    store = Store(postgres_database_url)
    await store.run(set_up)
    await store.close()
    async with store.transaction() as session:
        assert await session.scalar(text("SHOW synchronous_commit")) == "on"
    await store.close()


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_the_file_is_its_owners(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/gpudev.sqlite")
    async with store.transaction() as session:
        await session.execute(text("CREATE TABLE things (id INTEGER)"))
        modes = modes_in(tmp_path)
    assert set(modes) == {"gpudev.sqlite", "gpudev.sqlite-wal", "gpudev.sqlite-shm"}
    assert set(modes.values()) == {0o600}
    await store.close()


async def test_tables_are_changed_within_the_transaction(tmp_path: Path) -> None:
    """The driver's own habit is to commit before DDL; a failed migration would stay half-done."""
    store = Store(f"sqlite:///{tmp_path}/gpudev.sqlite")

    async def interrupted() -> None:
        async with store.transaction() as session:
            await session.execute(text("CREATE TABLE things (id INTEGER)"))
            raise InterruptedWork

    with pytest.raises(InterruptedWork):
        await interrupted()
    await store.close()
    with sqlite3.connect(tmp_path / "gpudev.sqlite") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
