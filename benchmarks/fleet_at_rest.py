"""The service's loops on a fleet of Kubernetes, in a process of their own, until it is ended.

Run as a program: KUBECONFIG FOLDER NAMESPACE GROUP LIVE WAITING. It writes the reservations into a
new database, begins, says what it does on standard output, and lets the loops run. No Hub answers.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.ids import new_id
from gpudev_service import server
from gpudev_service.context import Context
from gpudev_service.loops import Runner
from gpudev_service.settings import KubernetesSettings, Settings
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.models import LeaseUnitRow, PlacementRow, ReservationRow
from tests.cluster.service import group_type
from tests.fixtures import rows

KIND = "h100"
#: A waiting reservation is as long as this, a lease ends so far ahead.
LENGTH, END = timedelta(hours=4), timedelta(hours=24)
#: A port with no listener (discard): the connection is refused at once.
NO_HUB = server.HubAccess("http://127.0.0.1:9/hub/api", "no-token", "/")


async def fill(store: Store, group: str, live: int, waiting: int, folder: Path) -> None:
    """One lease of a GPU on each of the first `live` nodes, and whole nodes wanted behind them."""
    now = datetime.now(UTC)
    ids = [new_id() for _ in range(live)]

    async def work(session: AsyncSession) -> None:
        for key in ids:
            lease = rows.lease(
                key, gpu_type=KIND, starts_at=now, active_at=now, expires_at=now + END
            )
            session.add(lease)
        await session.flush()
        for at, key in enumerate(ids):
            node = f"{group}-{at}"
            place = PlacementRow(reservation_id=key, rank=0, node=node, units=[0], gpu_ids=[])
            unit = LeaseUnitRow(node=node, unit=0, gpu_type=KIND, gpu_id="", reservation_id=key)
            session.add_all((place, unit))
        for at in range(waiting):
            wanted = rows.reservation(new_id(), gpu_type=KIND, gpus=8, units_per_node=8)
            wanted.submitted_at = now + timedelta(milliseconds=at)
            wanted.duration_s = int(LENGTH.total_seconds())
            session.add(wanted)

    await store.run(work)
    (folder / "leases").write_text("\n".join(ids))


async def promised(ctx: Context) -> int:
    async with ctx.store.reading() as session:
        query = select(func.count()).where(ReservationRow.planned_start.is_not(None))
        return int(await session.scalar(query) or 0)


def ready(ctx: Context) -> int:
    return sum(node.ready for node in ctx.fleet.nodes())


async def main(kubeconfig: str, folder: str, namespace: str, group: str, *numbers: str) -> None:
    live, waiting = map(int, numbers)
    place = Path(folder)
    settings = Settings(
        gpu_types={KIND: group_type(KIND, group)},
        servers="kubernetes",
        data_dir=place,
        kubernetes=KubernetesSettings(kubeconfig=Path(kubeconfig), namespace=namespace),
    )
    url = f"sqlite:///{place / 'gpudev.sqlite'}"
    store = Store(url)
    await migrate.upgrade(store)
    await fill(store, group, live, waiting, place)
    await store.close()
    say("filled")
    sys.stdin.readline()
    kinds = server.Kinds(fleet="kubernetes", servers="kubernetes", disks="directories")
    async with server.context(settings, kinds, url, NO_HUB) as ctx:
        runner = Runner(ctx)
        runner.start()
        try:
            while await promised(ctx) < waiting or ready(ctx) < live:  # noqa: ASYNC110 - the loops plan
                await asyncio.sleep(1)
            say("planned")
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        finally:
            await runner.close()


def say(word: str) -> None:
    print(word, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
