"""Migrations lead to exactly what the models say, and back to nothing, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, String, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import DatabaseNewer, StoreError, StoreMisconfigured
from gpudev_service.store.models import Base, ReservationRow
from tests.fixtures.rows import disk, reservation


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[Store]:
    """A store on a database without tables."""
    store = Store(database_url)
    yield store
    await store.close()


async def tables(store: Store) -> set[str]:
    async with store.reading() as session:
        connection = await session.connection()
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def definition(store: Store) -> set[str]:
    """All that the database itself says about its tables, with conditions and checks."""
    async with store.reading() as session:
        statements = [SQLITE] if store.is_sqlite else POSTGRES
        rows = [row for query in statements for row in await session.execute(text(query))]
    return {part for row in rows for part in comparable(row[0])}


#: Indexes that PostgreSQL has not, which alembic does not know of models.
SQLITE_ONLY = {"ix_reservations_planned_start"}
# Without what alembic and SQLite keep for themselves.
SQLITE = """SELECT sql FROM sqlite_master
            WHERE tbl_name <> 'alembic_version' AND name NOT LIKE 'sqlite_%'"""
POSTGRES = [
    """SELECT concat_ws(' ', table_name, column_name, data_type, character_maximum_length,
              is_nullable, column_default,
              rank() OVER (PARTITION BY table_name ORDER BY ordinal_position))
       FROM information_schema.columns
       WHERE table_schema = 'public' AND table_name <> 'alembic_version'""",
    """SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
       FROM pg_constraint
       WHERE connamespace = 'public'::regnamespace
         AND conrelid <> coalesce(to_regclass('alembic_version'), 0::regclass)""",
    """SELECT indexdef FROM pg_indexes
       WHERE schemaname = 'public' AND tablename <> 'alembic_version'""",
]


def comparable(sql: str) -> list[str]:
    """The parts of a table's definition, however they are laid out and in whichever order."""
    head, lines, *_ = [*sql.partition("\n")[::2], ""]
    parts = _top_level(lines.strip().removesuffix(")")) if lines else []
    return [" ".join(head.split()), *(f"{head}: {' '.join(part.split())}" for part in parts)]


def _top_level(text: str) -> list[str]:
    """`text` at its commas outside of brackets; a later column stands on the line of another."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


async def test_the_migrations_make_what_the_models_say(empty: Store) -> None:
    async def create(session: AsyncSession) -> None:
        connection = await session.connection()
        await connection.run_sync(Base.metadata.create_all)

    async def drop(session: AsyncSession) -> None:
        connection = await session.connection()
        await connection.run_sync(Base.metadata.drop_all)

    await empty.run(create)
    wanted = await definition(empty)
    await empty.run(drop)
    assert len(wanted) > 50
    await migrate.upgrade(empty)
    assert await definition(empty) == wanted


async def test_alembic_finds_no_difference(store: Store) -> None:
    def is_here(thing: Any, name: str | None, kind: str, *_: object) -> bool:
        return kind != "index" or name not in SQLITE_ONLY or store.is_sqlite

    def differences(connection: Connection) -> list[Any]:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_object": is_here,
        }
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Base.metadata))

    async with store.reading() as session:
        connection = await session.connection()
        assert await connection.run_sync(differences) == []


async def test_down_to_nothing_and_up_again(store: Store) -> None:
    before = await definition(store)
    assert await migrate.downgrade(store, "base") is None
    assert await tables(store) <= {"alembic_version"}
    assert await definition(store) == set()
    assert await migrate.current(store) is None
    assert await migrate.upgrade(store) == migrate.head()
    assert await definition(store) == before


async def test_a_database_that_is_up_to_date_keeps_its_rows(store: Store) -> None:
    async with store.transaction() as session:
        session.add(reservation("r1"))
    assert await migrate.upgrade(store) == await migrate.current(store) == migrate.head()
    async with store.reading() as session:
        assert await session.get(ReservationRow, "r1")


async def test_replicas_that_start_together(database_url: str) -> None:
    replicas = [Store(database_url) for _ in range(4)]
    reached = await asyncio.gather(*(migrate.upgrade(replica) for replica in replicas))
    assert reached == [migrate.head()] * len(replicas)
    for replica in replicas:
        await replica.close()


async def test_a_newer_database_is_left_alone(store: Store) -> None:
    async with store.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    before = await definition(store)
    with pytest.raises(DatabaseNewer, match="9999_later"):
        await migrate.upgrade(store)
    with pytest.raises(DatabaseNewer, match="9999_later"):
        await migrate.downgrade(store, "base")
    assert await migrate.current(store) == "9999_later"
    assert await definition(store) == before


async def test_an_unknown_revision_is_refused(store: Store) -> None:
    with pytest.raises(StoreMisconfigured, match="tomorrow"):
        await migrate.downgrade(store, "tomorrow")
    with pytest.raises(StoreMisconfigured, match="tomorrow"):
        await migrate.upgrade(store, "tomorrow")
    assert await migrate.current(store) == migrate.head()


async def test_a_migration_that_fails_leaves_nothing(empty: Store) -> None:
    """The tables that come last exist already: the ones before must not stay."""

    async def in_the_way(session: AsyncSession) -> None:
        await session.execute(text("CREATE TABLE loop_runs (id INTEGER)"))

    await empty.run(in_the_way)
    with pytest.raises(DBAPIError, match="loop_runs"):
        await migrate.upgrade(empty)
    assert await tables(empty) == {"loop_runs"}


async def test_a_table_is_changed_under_rows_that_point_to_it(store: Store) -> None:
    """SQLite's way is to rebuild it, which enforced foreign keys would refuse."""

    def rebuild(connection: Connection) -> None:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("disks") as table:
            table.alter_column("busy", type_=String(64))

    async def work(session: AsyncSession) -> None:
        connection = await session.connection()
        await connection.run_sync(rebuild)

    async with store.transaction() as session:
        session.add(disk("d1"))
        await session.flush()
        session.add(reservation("r1", disk_id="d1"))
    await store.alter(work)
    async with store.reading() as session:
        assert (await session.execute(text("SELECT id FROM disks"))).all() == [("d1",)]
    assert any("busy" in part and "64" in part for part in await definition(store))


async def test_rows_that_would_point_to_nothing(store: Store) -> None:
    async def lose(session: AsyncSession) -> None:
        await session.execute(text("DELETE FROM disks"))

    async with store.transaction() as session:
        session.add(disk("d1"))
        await session.flush()
        session.add(reservation("r1", disk_id="d1"))
    # SQLite by the check before the commit, PostgreSQL by its own enforcement.
    with pytest.raises((StoreError, DBAPIError), match=r"point to nothing|foreign key"):
        await store.alter(lose)
    async with store.reading() as session:
        assert (await session.execute(text("SELECT id FROM disks"))).all() == [("d1",)]


def test_each_migration_follows_the_one_before() -> None:
    folder = Path(migrate.__file__).parent / "migrations" / "versions"
    names = sorted(path.stem for path in folder.glob("*.py"))
    assert names[-1] == migrate.head()
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]
