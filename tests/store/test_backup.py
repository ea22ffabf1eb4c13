"""A backup is whole, of one moment, private, and never replaces a good one by a bad one."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store import migrate
from gpudev_service.store.backup import BackupFailed, backup_sqlite
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreMisconfigured
from tests.fixtures.rows import reservation
from tests.fixtures.store import Templates


@pytest.fixture
def url(tmp_path: Path, templates: Templates) -> str:
    """A migrated SQLite database in a folder of its own."""
    (tmp_path / "data").mkdir()
    made = f"sqlite:///{tmp_path}/data/gpudev.sqlite"
    templates.fill(make_url(made))
    return made


def ids(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM reservations ORDER BY id")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def add(store: Store, *names: str) -> None:
    async with store.transaction() as session:
        session.add_all([reservation(name) for name in names])


async def test_what_is_only_in_the_journal_is_copied(url: str, tmp_path: Path) -> None:
    store = Store(url)
    await add(store, "r1")
    made = backup_sqlite(url, tmp_path / "copy.sqlite")
    await store.close()
    assert made == tmp_path / "copy.sqlite"
    assert ids(made) == ["r1"]
    assert made.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["copy.sqlite", "data"]


async def test_a_backup_serves_as_the_database(url: str, tmp_path: Path) -> None:
    store = Store(url)
    await add(store, "r1")
    await store.close()
    restored = Store(f"sqlite:///{backup_sqlite(url, tmp_path / 'copy.sqlite')}")
    assert await migrate.upgrade(restored) == migrate.head()
    await add(restored, "r2")
    await restored.close()
    assert ids(tmp_path / "copy.sqlite") == ["r1", "r2"]


async def test_a_backup_while_others_write(url: str, tmp_path: Path) -> None:
    """Each transaction moves a token: in every moment there is exactly one, and never none."""
    store = Store(url)
    done = asyncio.Event()

    async def move(session: AsyncSession) -> None:
        await session.execute(text("DELETE FROM tokens"))
        await session.execute(text("INSERT INTO tokens SELECT max(n) + 1 FROM moves"))
        await session.execute(text("INSERT INTO moves SELECT max(n) + 1 FROM moves"))

    async def move_on() -> int:
        moves = 0
        while not done.is_set():
            await store.run(move)
            moves += 1
        return moves

    async with store.transaction() as session:
        # Some MiB, so that a copy takes several steps.
        await session.execute(text("CREATE TABLE filling (bytes BLOB)"))
        await session.execute(text("INSERT INTO filling VALUES (zeroblob(24000000))"))
        await session.execute(text("CREATE TABLE moves (n INTEGER)"))
        await session.execute(text("INSERT INTO moves VALUES (0)"))
        await session.execute(text("CREATE TABLE tokens (n INTEGER)"))
        await session.execute(text("INSERT INTO tokens VALUES (0)"))
    moving = asyncio.create_task(move_on())
    seen = []
    for _ in range(3):
        copy = await asyncio.to_thread(backup_sqlite, url, tmp_path / "copy.sqlite")
        with closing(sqlite3.connect(copy)) as connection:
            tokens = connection.execute("SELECT n FROM tokens").fetchall()
            (latest,) = connection.execute("SELECT max(n) FROM moves").fetchone()
        assert tokens == [(latest,)]
        seen.append(latest)
    done.set()
    moves = await moving
    await store.close()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
    assert moves >= seen[-1]


def test_steady_writing_does_not_hold_it_up(url: str, tmp_path: Path) -> None:
    """A commit between two steps must neither get into the copy nor make it start over."""
    file = tmp_path / "data" / "gpudev.sqlite"
    remaining: list[int] = []
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE filling (bytes BLOB)")
        other.execute("INSERT INTO filling VALUES (zeroblob(24000000))")
        other.execute("CREATE TABLE steps (n INTEGER)")

        def write(pages: int, total: int) -> None:
            remaining.append(pages)
            if len(remaining) < 50:
                other.execute("INSERT INTO steps VALUES (?)", [len(remaining)])

        copy = backup_sqlite(url, tmp_path / "copy.sqlite", progress=write)
    assert 3 < len(remaining) < 50
    assert remaining == sorted(remaining, reverse=True)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM steps").fetchone() == (0,)


async def test_an_older_backup_is_replaced(url: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    store = Store(url)
    await add(store, "r1")
    backup_sqlite(url, copy)
    await add(store, "r2")
    backup_sqlite(url, copy)
    await store.close()
    assert ids(copy) == ["r1", "r2"]


async def test_a_damaged_database_does_not_replace_a_good_backup(url: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    store = Store(url)
    await add(store, *(f"r{n}" for n in range(500)))
    await store.close()
    good = backup_sqlite(url, copy).read_bytes()
    damage(tmp_path / "data" / "gpudev.sqlite")
    with pytest.raises(BackupFailed):
        backup_sqlite(url, copy)
    assert copy.read_bytes() == good
    assert names(tmp_path) == ["copy.sqlite", "data"]


def damage(path: Path) -> None:
    """Overwrites pages in the middle, as a failing disk does; the header stays."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 16384)


def test_no_place_to_write_to(url: str, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed):
        backup_sqlite(url, tmp_path / "missing" / "copy.sqlite")


def test_the_database_is_not_its_own_backup(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured):
        backup_sqlite(url, tmp_path / "data" / "gpudev.sqlite")


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured, match="no database"):
        backup_sqlite(f"sqlite:///{tmp_path}/gpudev.sqlite", tmp_path / "copy.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_postgresql_has_a_tool_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured, match="pg_dump"):
        backup_sqlite("postgresql://ada:secret@db/gpudev", tmp_path / "copy")


def test_a_copy_that_is_damaged_replaces_nothing(url: str, tmp_path: Path) -> None:
    """A page that SQLite copies as it is, and would not read before the day of the restoration."""
    good = backup_sqlite(url, tmp_path / "copy.sqlite").read_bytes()
    path = tmp_path / "data" / "gpudev.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'ix_reservations_state'"
        (root,) = connection.execute(query).fetchone()
    content = bytearray(path.read_bytes())
    content[(root - 1) * page : root * page] = bytes(page)
    path.write_bytes(content)
    with pytest.raises(BackupFailed, match="damaged"):
        backup_sqlite(url, tmp_path / "copy.sqlite")
    assert (tmp_path / "copy.sqlite").read_bytes() == good
    assert names(tmp_path) == ["copy.sqlite", "data"]


async def test_a_copy_that_leads_nowhere_replaces_nothing(url: str, tmp_path: Path) -> None:
    """Rows of reservations that are not there: something has written without the constraints."""
    with closing(sqlite3.connect(tmp_path / "data" / "gpudev.sqlite")) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(
            "INSERT INTO placements (reservation_id, rank, node, units, gpu_ids)"
            " VALUES ('nobody', 0, 'n1', '[]', '[]')"
        )
        connection.commit()
    with pytest.raises(BackupFailed, match="damaged"):
        backup_sqlite(url, tmp_path / "copy.sqlite")
    assert names(tmp_path) == ["data"]
