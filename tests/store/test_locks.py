"""SQLite's locks belong to the process: nothing that we do to the file may take them away."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sqlalchemy import make_url, select

from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow
from tests.fixtures.rows import reservation

VISITOR = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM reservations").fetchone()[0])
connection.close()
"""


async def visit(path: Path) -> int:
    """Another process looks into the database and leaves: somebody's backup, a `sqlite3` shell."""
    visitor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", VISITOR, str(path)), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await visitor.communicate()
    assert visitor.returncode == 0
    return int(out)


async def test_a_visitor_who_leaves_takes_no_journal_along(tmp_path: Path) -> None:
    """The last one who leaves removes the journal. With our locks gone a visitor would be the last,
    and our readers would find it gone under them: "disk I/O error", for each of them."""
    from gpudev_service.store import migrate

    url = make_url(f"sqlite:///{tmp_path / 'gpudev.sqlite'}")
    journal = tmp_path / "gpudev.sqlite-wal"
    store = Store(url)
    try:
        await migrate.upgrade(store)
        async with store.transaction() as session:
            session.add(reservation("r1"))
        # Readers side by side: each but the first makes a new connection.
        async with store.reading() as one, store.reading() as two, store.reading() as three:
            for session in (one, two, three):
                assert list(await session.scalars(select(ReservationRow.id))) == ["r1"]
            assert await visit(tmp_path / "gpudev.sqlite") == 1
            assert journal.stat().st_size > 0
        async with store.transaction() as session:
            session.add(reservation("r2"))
        async with store.reading() as session:
            assert len(list(await session.scalars(select(ReservationRow.id)))) == 2
        assert await visit(tmp_path / "gpudev.sqlite") == 2
    finally:
        await store.close()
