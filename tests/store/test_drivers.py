"""How connections are set up, as the databases themselves tell it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from gpudev_service.store import drivers

#: Seconds that are waited for somebody else's lock.
PATIENCE = 1.25


@pytest.fixture
def url(database_url: str) -> URL:
    return make_url(database_url)


@pytest.fixture
async def engines(url: URL) -> AsyncIterator[drivers.Engines]:
    made = drivers.create(url, PATIENCE)
    yield made
    await made.dispose()


async def asked(engine: AsyncEngine, statement: str) -> Any:
    async with engine.connect() as connection:
        return (await connection.exec_driver_sql(statement)).scalar()


async def lock_wait(engine: AsyncEngine) -> str:
    """For how long a connection waits for a lock, in milliseconds."""
    if engine.dialect.name == "sqlite":
        return f"{await asked(engine, 'PRAGMA busy_timeout')}ms"
    return str(await asked(engine, "SHOW lock_timeout"))


async def test_somebody_elses_lock_is_waited_for_as_long_as_is_said(
    engines: drivers.Engines, url: URL
) -> None:
    migrating = drivers.migration_engine(url, PATIENCE)
    try:
        for engine in (engines.write, engines.read, migrating):
            assert await lock_wait(engine) == "1250ms"
    finally:
        await migrating.dispose()


async def test_a_writer_that_is_stuck_leaves_connections_to_two_others(
    engines: drivers.Engines,
) -> None:
    """Among them who asks what became of a commit; nobody else ever writes at the same time."""
    held = [await engines.write.connect() for _ in range(3)]
    pool = engines.write.pool
    pool._timeout = 0.0  # type: ignore[attr-defined]
    try:
        with pytest.raises(PoolTimeoutError):
            await engines.write.connect()
    finally:
        for connection in held:
            await connection.close()
    await asyncio.sleep(0)
    assert pool.checkedin() == 1, "one stays for the next"  # type: ignore[attr-defined]


async def test_readers_that_are_not_needed_are_left_alone(engines: drivers.Engines) -> None:
    """Each that is used keeps pages of the database and prepared statements for itself."""
    once = [await engines.read.connect() for _ in range(3)]
    for connection in once:
        await connection.close()
    used = set()
    for _ in range(3):
        async with engines.read.connect() as connection:
            used.add((await connection.get_raw_connection()).driver_connection)
    assert len(used) == 1


async def test_readers_cannot_write(engines: drivers.Engines) -> None:
    if engines.read.dialect.name == "sqlite":
        assert await asked(engines.read, "PRAGMA query_only") == 1
        assert await asked(engines.write, "PRAGMA query_only") == 0
        # Minus: in kilobytes. What a reader keeps is of no use once anybody has written.
        assert await asked(engines.read, "PRAGMA cache_size") == -512
    else:
        assert await asked(engines.read, "SHOW transaction_read_only") == "on"
        assert await asked(engines.write, "SHOW transaction_read_only") == "off"


@pytest.mark.postgres
async def test_replicas_of_all_versions_take_turns(postgres_database_url: str) -> None:
    """In an update old and new ones write at once; they know each other by the lock's number."""
    engines = drivers.create(make_url(postgres_database_url), 0.05)
    try:
        async with engines.read.connect() as older:
            await older.exec_driver_sql("SELECT pg_advisory_xact_lock(1735423332)")
            async with AsyncSession(engines.write) as newer:
                with pytest.raises(OperationalError, match="lock timeout"):
                    await drivers.begin_write(newer)
            await older.rollback()
            async with AsyncSession(engines.write) as newer:
                assert await drivers.begin_write(newer)
    finally:
        await engines.dispose()


@pytest.mark.postgres
async def test_a_lead_is_given_up_in_half_of_its_time(postgres_database_url: str) -> None:
    """The other half is for a sign of life by another connection."""
    engine = drivers.lead_engine(make_url(postgres_database_url), 3)
    try:
        assert await lock_wait(engine) == "1500ms"
        told = await parameters(engine)
    finally:
        await engine.dispose()
    assert (told["tcp_user_timeout"], told["connect_timeout"]) == ("1500", "3")


@pytest.mark.postgres
async def test_a_server_that_is_gone_is_noticed_within_half_a_minute(
    postgres_database_url: str,
) -> None:
    engines = drivers.create(make_url(postgres_database_url), PATIENCE)
    try:
        told = {name: int(value) for name, value in (await parameters(engines.write)).items()}
        assert await asked(engines.write, "SHOW idle_in_transaction_session_timeout") == "1min"
    finally:
        await engines.dispose()
    probes = told["keepalives_interval"] * told["keepalives_count"]
    assert told["keepalives_idle"] + probes <= 25, "a connection that is idle"
    assert told["tcp_user_timeout"] <= 10_000, "one that waits for an answer"
    assert told["connect_timeout"] <= 5


def test_silence_is_borne_for_as_long_as_a_lock_may_last_and_the_network_may_be_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And by a lead for half of its time. Seconds; a migration may copy a table meanwhile."""
    told: list[float] = []

    def connecting(connect: object, *, silence: float) -> None:
        told.append(silence)

    monkeypatch.setattr(drivers, "partial", connecting)
    plain, patient = (
        make_url(f"postgresql+psycopg://u@127.0.0.1/gpudev{query}")
        for query in ("", "?tcp_user_timeout=4000")
    )
    drivers.create(plain, PATIENCE)
    drivers.create(patient, PATIENCE)
    drivers.lead_engine(plain, 3)
    drivers.migration_engine(plain, PATIENCE)
    assert told == [11.25, 11.25, 5.25, 5.25, 1.5, 600]


async def parameters(engine: AsyncEngine) -> dict[str, str]:
    """What PostgreSQL's own library was told of the network."""
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        told: dict[str, str] = driver.info.get_parameters()
    names = ("keepalives", "tcp_user_timeout", "connect_timeout")
    return {name: value for name, value in told.items() if name.startswith(names)}
