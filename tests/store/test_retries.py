"""Failures that pass are repeated as a whole and with a bound; refusals never are."""

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store.engine import ATTEMPTS, Store
from gpudev_service.store.errors import StoreBroken, StoreUnavailable
from gpudev_service.store.models import ReservationRow
from gpudev_service.store.transient import LONGEST_PAUSE_S, pause_after
from tests.fixtures.rows import reservation
from tests.fixtures.store import Templates

ENGINE_LOG = "gpudev_service.store.engine"


class OnFailure(logging.Handler):
    """Does something at each attempt that the store says has failed."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        self._act()


def failures(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.name == ENGINE_LOG for record in caplog.records)


async def stored(store: Store) -> list[str]:
    async with store.reading() as session:
        return list(await session.scalars(select(ReservationRow.id)))


def test_pauses_grow_to_a_limit_and_spread() -> None:
    shortest = [pause_after(attempt, 0.0) for attempt in range(1, 12)]
    longest = [pause_after(attempt, 1.0) for attempt in range(1, 12)]
    assert shortest == sorted(shortest)
    assert all(low == high / 2 for low, high in zip(shortest, longest, strict=True))
    assert shortest[0] > 0
    assert longest[-1] == LONGEST_PAUSE_S


async def test_a_refused_row_is_not_tried_again(store: Store) -> None:
    calls = 0

    async def work(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        session.add(reservation("r1", gpus=-1))

    with pytest.raises(IntegrityError):
        await store.run(work)
    assert calls == 1


async def test_a_mistake_in_sql_is_not_tried_again(store: Store) -> None:
    calls = 0

    async def work(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        await session.execute(text("SELECT no_such_column FROM reservations"))

    with pytest.raises(DBAPIError):
        await store.run(work)
    assert calls == 1


async def test_no_attempt_is_none(store: Store) -> None:
    with pytest.raises(ValueError, match="attempts"):
        await store.run(stored_nothing, attempts=0)


async def stored_nothing(session: AsyncSession) -> None:
    session.add(reservation("r1"))


# SQLite: somebody else's write lock.


@pytest.fixture
async def hasty(tmp_path: Path, templates: Templates) -> AsyncIterator[Store]:
    """A migrated SQLite store that hardly waits for another process's lock."""
    url = f"sqlite:///{tmp_path}/locked.sqlite"
    templates.fill(make_url(url))
    store = Store(url, patience=0.01)
    yield store
    await store.close()


@pytest.fixture
def lock(tmp_path: Path, hasty: Store) -> Iterator[sqlite3.Connection]:
    """Another program that holds the write lock until it is rolled back."""
    other = sqlite3.connect(tmp_path / "locked.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


async def test_a_locked_database_is_tried_again(
    hasty: Store, lock: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = OnFailure(lambda: lock.execute("ROLLBACK"))
    logging.getLogger(ENGINE_LOG).addHandler(let_go)
    try:
        await hasty.run(stored_nothing)
    finally:
        logging.getLogger(ENGINE_LOG).removeHandler(let_go)
    assert failures(caplog) == 1
    assert "SQLITE_BUSY" in caplog.text
    assert await stored(hasty) == ["r1"]


@pytest.mark.parametrize("attempts", [1, 3, ATTEMPTS])
async def test_a_database_that_stays_locked(
    hasty: Store, lock: sqlite3.Connection, attempts: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await hasty.run(stored_nothing, attempts=attempts)
    assert failures(caplog) == attempts - 1
    cause = caught.value.__cause__
    assert isinstance(cause, DBAPIError)
    assert isinstance(cause.orig, sqlite3.OperationalError)
    assert await stored(hasty) == []  # readers go on meanwhile


async def test_a_single_transaction_is_not_repeated(hasty: Store, lock: sqlite3.Connection) -> None:
    async def write() -> None:
        async with hasty.transaction() as session:
            session.add(reservation("r1"))

    with pytest.raises(StoreUnavailable):
        await write()
    lock.execute("ROLLBACK")
    await write()
    assert await stored(hasty) == ["r1"]


# PostgreSQL: what the server reports, and what happens to connections.


@pytest.fixture
async def postgres(postgres_database_url: str, templates: Templates) -> AsyncIterator[Store]:
    templates.fill(make_url(postgres_database_url))
    store = Store(postgres_database_url)
    yield store
    await store.close()


@pytest.fixture
def outsider(postgres: Store) -> Iterator[psycopg.Connection]:
    """A connection of somebody who takes no lock of ours."""
    plain = postgres.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        yield connection


PASSING = ["40001", "40P01", "55P03", "57P03", "53300", "08006", "08P01"]
LASTING = ["22012", "42501", "53100", "23505", "25006", "XX001"]


def failing_work(sqlstate: str, times: int) -> Callable[[AsyncSession], Awaitable[int]]:
    """Work during whose first calls the server reports `sqlstate`."""
    calls = 0

    async def work(session: AsyncSession) -> int:
        nonlocal calls
        calls += 1
        session.add(reservation("r1"))
        await session.flush()
        if calls <= times:
            raising = f"DO $$ BEGIN RAISE EXCEPTION SQLSTATE '{sqlstate}'; END $$"
            await session.execute(text(raising))
        return calls

    return work


@pytest.mark.parametrize("sqlstate", PASSING)
async def test_what_passes_is_tried_again(postgres: Store, sqlstate: str) -> None:
    assert await postgres.run(failing_work(sqlstate, times=2)) == 3
    assert await stored(postgres) == ["r1"]


@pytest.mark.parametrize("sqlstate", PASSING)
async def test_what_does_not_pass_after_all(
    postgres: Store, sqlstate: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoreUnavailable):
        await postgres.run(failing_work(sqlstate, times=99), attempts=2)
    assert failures(caplog) == 1
    assert sqlstate in caplog.text
    assert await stored(postgres) == []


@pytest.mark.parametrize("sqlstate", LASTING)
async def test_what_lasts_is_raised_at_once(
    postgres: Store, sqlstate: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises((DBAPIError, StoreBroken)) as caught:
        await postgres.run(failing_work(sqlstate, times=1))
    error = caught.value.__cause__ if isinstance(caught.value, StoreBroken) else caught.value
    assert isinstance(error, DBAPIError)
    assert isinstance(error.orig, psycopg.Error)
    assert error.orig.sqlstate == sqlstate
    assert failures(caplog) == 0


async def test_a_real_deadlock(
    postgres: Store, outsider: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The outsider holds r2 and waits for r1; we hold r1 and ask for r2."""
    calls = 0

    async def work(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            outsider.execute("ROLLBACK")
        # The server breaks the cycle at our cost, as our patience with it is shorter.
        await session.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
        (await session.get_one(ReservationRow, "r1")).reason = "ours"
        await session.flush()
        if calls == 1:
            outsider.execute("BEGIN")
            outsider.execute("SET LOCAL deadlock_timeout = '1h'")
            outsider.execute("UPDATE reservations SET reason = 'theirs' WHERE id = 'r2'")
            outsider.pgconn.send_query(b"UPDATE reservations SET reason = 'theirs' WHERE id = 'r1'")
            await session.execute(text(UNTIL_SOMEBODY_WAITS))
        (await session.get_one(ReservationRow, "r2")).reason = "ours"

    async with postgres.transaction() as session:
        session.add_all([reservation("r1"), reservation("r2")])
    # What the outsider sent is answered when we are rolled back; only then it can go on.
    read_answer = OnFailure(lambda: drain(outsider))
    logging.getLogger(ENGINE_LOG).addHandler(read_answer)
    try:
        await postgres.run(work)
    finally:
        logging.getLogger(ENGINE_LOG).removeHandler(read_answer)
    assert calls == 2
    assert "40P01" in caplog.text
    async with postgres.reading() as session:
        assert set(await session.scalars(select(ReservationRow.reason))) == {"ours"}


UNTIL_SOMEBODY_WAITS = """
DO $$ BEGIN
  WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted) LOOP
    PERFORM pg_sleep(0.001);
  END LOOP;
END $$
"""


def drain(connection: psycopg.Connection) -> None:
    while connection.pgconn.get_result() is not None:
        pass


PID = text("SELECT pg_backend_pid()")


async def test_a_lost_connection_is_replaced(postgres: Store, outsider: psycopg.Connection) -> None:
    calls = 0

    async def work(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            end(outsider, await session.scalar(PID))
        session.add(reservation("r1"))

    await postgres.run(work)
    assert calls == 2
    assert await stored(postgres) == ["r1"]


async def test_connections_that_are_always_lost(
    postgres: Store, outsider: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(session: AsyncSession) -> None:
        end(outsider, await session.scalar(PID))
        session.add(reservation("r1"))

    with pytest.raises(StoreUnavailable) as caught:
        await postgres.run(work, attempts=3)
    assert failures(caplog) == 2
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert await stored(postgres) == []


async def test_connections_that_died_while_nobody_used_them(
    postgres: Store, outsider: psycopg.Connection
) -> None:
    """After the server's restart the first users must not pay for what the pool still holds."""
    async with postgres.transaction() as writing, postgres.reading() as reading:
        pids = [await writing.scalar(PID), await reading.scalar(PID)]
    for pid in pids:
        end(outsider, pid)
    await postgres.ping()
    async with postgres.transaction() as session:
        session.add(reservation("r1"))
    assert await stored(postgres) == ["r1"]


async def test_a_reader_whose_connection_is_lost(
    postgres: Store, outsider: psycopg.Connection
) -> None:
    async def read() -> None:
        async with postgres.reading() as session:
            end(outsider, await session.scalar(PID))
            await session.execute(PID)

    with pytest.raises(StoreUnavailable):
        await read()


def end(outsider: psycopg.Connection, pid: object) -> None:
    """Ends the server's side of a connection and returns when it is gone."""
    outsider.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])


async def test_another_services_lock_is_waited_for_with_a_bound(
    postgres: Store, postgres_database_url: str
) -> None:
    hasty = Store(postgres_database_url, patience=0.01)
    async with postgres.transaction():
        with pytest.raises(StoreUnavailable) as caught:
            await hasty.run(stored_nothing, attempts=2)
    cause = caught.value.__cause__
    assert isinstance(cause, DBAPIError)
    assert isinstance(cause.orig, psycopg.errors.LockNotAvailable)
    await hasty.run(stored_nothing)
    assert await stored(postgres) == ["r1"]
    await hasty.close()
