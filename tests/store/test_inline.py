"""SQLite's statements are done where they are asked for, but for those that may wait."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select

from gpudev_service.store import inline, migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow
from tests.fixtures.rows import reservation


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(make_url(f"sqlite:///{tmp_path / 'gpudev.sqlite'}"))
    await migrate.upgrade(store)
    yield store
    await store.close()


@contextmanager
def locked(tmp_path: Path) -> Iterator[None]:
    """Another connection holds the write lock, as another process would."""
    with closing(sqlite3.connect(tmp_path / "gpudev.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes to a connection's thread, once its store is open."""
    names: list[str] = []
    count = inline.Connection._count

    def noted(self: inline.Connection, fn: Any, *args: Any, **kwargs: Any) -> Any:
        names.append(args[0] if args else fn.__name__)
        return count(self, fn, *args, **kwargs)

    monkeypatch.setattr(inline.Connection, "_count", noted)
    return names


async def add(store: Store, key: str) -> None:
    async with store.transaction() as session:
        session.add(reservation(key))


async def keys(store: Store) -> list[str]:
    async with store.reading() as session:
        return list(await session.scalars(select(ReservationRow.id).order_by(ReservationRow.id)))


async def test_only_begin_and_commit_of_a_writer_are_handed_over(
    store: Store, handed_over: list[str]
) -> None:
    await add(store, "r0")  # now the connections are open
    await keys(store)
    handed_over.clear()
    assert await keys(store) == ["r0"]
    assert handed_over == []
    await add(store, "r1")
    assert handed_over == ["BEGIN IMMEDIATE", "commit"]


async def test_a_lock_of_another_process_keeps_nobody_else_waiting(
    store: Store, tmp_path: Path
) -> None:
    """Were the begin done on the event loop, nobody could let go of the lock meanwhile."""
    await add(store, "r0")
    with locked(tmp_path):
        writing = asyncio.create_task(add(store, "r1"))
        while not store._turn.locked():  # noqa: ASYNC110 - until its turn has come
            await asyncio.sleep(0)
        assert await keys(store) == ["r0"]
        assert not writing.done()
    await writing
    assert await keys(store) == ["r0", "r1"]


async def test_what_comes_after_somebody_was_called_off_waits_for_the_thread(
    tmp_path: Path,
) -> None:
    """The thread still begins for somebody who has gone. What overtook it would find nothing begun
    to be rolled back, and leave the lock to be held for ever."""
    path = tmp_path / "some.sqlite"
    connection = inline.connect(str(path), reads=False, isolation_level=None)
    await connection
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        beginning = asyncio.create_task(connection.execute("BEGIN IMMEDIATE"))
        await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        rolling_back = asyncio.create_task(connection.rollback())
        await asyncio.sleep(0)
        other.rollback()
        await rolling_back
        while connection._done < connection._sent:  # noqa: ASYNC110 - until the thread has begun too
            await asyncio.sleep(0)
        assert not connection.in_transaction
    await connection.close()


async def test_who_is_called_off_changes_nothing(store: Store, tmp_path: Path) -> None:
    await add(store, "r0")
    with locked(tmp_path):
        writing = asyncio.create_task(add(store, "r1"))
        while not store._turn.locked():  # noqa: ASYNC110 - until its turn has come
            await asyncio.sleep(0)
        writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await asyncio.gather(*(add(store, f"s{number}") for number in range(5)))
    assert await keys(store) == ["r0", "s0", "s1", "s2", "s3", "s4"]


async def test_who_reads_again_and_again_lets_others_go_on(store: Store) -> None:
    await add(store, "r0")
    other = asyncio.create_task(asyncio.sleep(0))
    for _ in range(3):
        await keys(store)
    assert other.done()


async def test_a_closed_connection_says_so(tmp_path: Path) -> None:
    connection = await inline.connect(str(tmp_path / "some.sqlite"), reads=True)
    cursor = await connection.cursor()
    await connection.close()
    with pytest.raises(ValueError, match="closed"):
        await cursor.execute("SELECT 1")


async def test_opening_a_reader_is_left_to_the_thread(store: Store, handed_over: list[str]) -> None:
    """The file and its journal are opened by the first pragma, and may have to be put right."""
    await keys(store)
    assert [name for name in handed_over if name.startswith("PRAGMA journal_mode")]
    assert not [name for name in handed_over if name.startswith("BEGIN DEFERRED")]
