"""What was committed is there after the writer was killed, what was not is gone."""

import asyncio
import sys

from sqlalchemy import select

from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow
from tests.tiers import ROOT

WRITER = """
import asyncio, sys
from gpudev_service.store.engine import Store
from tests.fixtures.rows import reservation

async def main():
    store = Store(sys.argv[1])
    async with store.transaction() as session:
        session.add(reservation("r1"))
    async with store.transaction() as session:
        session.add(reservation("r2"))
        await session.flush()
        print("committed", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_commit_outlives_the_kill_of_its_writer(store: Store, migrated_url: str) -> None:
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, migrated_url), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    heard = await writer.stdout.readline()
    writer.kill()
    await writer.wait()
    assert heard == b"committed\n"
    async with store.reading() as session:
        assert list(await session.scalars(select(ReservationRow.id))) == ["r1"]
    # The dead writer's lock is gone with it.
    async with store.transaction() as session:
        (await session.get_one(ReservationRow, "r1")).reason = "after"
