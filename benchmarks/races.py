"""Two services on one database, each in a thread of its own, take the last GPU at one moment."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier

from sqlalchemy import delete, make_url, select

from benchmarks.campaign import scratch
from gpudev_client.models import Reservation
from gpudev_client.states import State
from gpudev_service.store.engine import Store
from gpudev_service.store.models import Base, LeaseUnitRow, PlanCountRow
from tests import tiers
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.rows import lease
from tests.fixtures.store import Templates
from tests.fixtures.world import World, make_world
from tests.store.test_race import take_blindly

ALL = ("sqlite", "postgresql")
#: One in so many rounds is run by code that does not look whether the GPU is free.
BLIND = 10


@dataclass
class Race:
    rounds: int = 0
    wins: list[int] = field(default_factory=lambda: [0, 0])
    twice: int = 0
    #: Rounds of writers that do not look, and in how many of them the constraint refused one.
    blind: int = 0
    refused: int = 0


def databases() -> list[str]:
    return [name for name in ALL if name == "sqlite" or tiers.postgres_bin() is not None]


class Side:
    """One of the two: a service's operations, in an event loop and a thread of their own."""

    def __init__(self, user: str, url: str, folder: Path, start: Barrier) -> None:
        self._user, self._start = user, start
        self._runner = asyncio.Runner()
        self._store = Store(url, patience=30)
        folder.mkdir()
        self._world: World = make_world(self._store, folder)

    def ask(self) -> Reservation:
        return self._runner.run(self._ask())

    async def _ask(self) -> Reservation:
        self._start.wait(60)
        return await self._world.reserve(self._user)

    def close(self) -> None:
        self._runner.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        await self._world.ctx.background.close()
        await self._world.ctx.hub.close()
        await self._store.close()


def run(name: str, rounds: int) -> Race:
    race, folder = Race(), scratch()
    start = Barrier(2)
    try:
        with _database(name, folder) as url, ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
            pools = (a, b)
            sides = [
                pool.submit(Side, user, url, folder / user, start).result()
                for pool, user in zip(pools, ("ada", "grace"), strict=True)
            ]
            with asyncio.Runner() as runner:
                judge = Store(url, patience=30)
                for _ in range(rounds):
                    asked = [p.submit(s.ask) for p, s in zip(pools, sides, strict=True)]
                    runner.run(_judge(judge, race, [answer.result() for answer in asked]))
                for _ in range(rounds // BLIND):
                    runner.run(_prepare(judge))
                    tried = [
                        pool.submit(take_blindly, url, key, start)
                        for pool, key in zip(pools, ("r1", "r2"), strict=True)
                    ]
                    race.blind += 1
                    race.refused += sorted(t.result() for t in tried) == [False, True]
                    runner.run(_clear(judge))
                runner.run(judge.close())
            for pool, side in zip(pools, sides, strict=True):
                pool.submit(side.close).result()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return race


async def _judge(store: Store, race: Race, found: list[Reservation]) -> None:
    states = [reservation.state for reservation in found]
    async with store.reading() as session:
        holders = list(await session.scalars(select(LeaseUnitRow.reservation_id)))
    race.rounds += 1
    if sorted(states) != [State.PREPARING, State.QUEUED] or len(holders) != 1:
        race.twice += 1
    else:
        winner = states.index(State.PREPARING)
        race.wins[winner] += 1
        race.twice += holders != [found[winner].id]
    await _clear(store)


async def _prepare(store: Store) -> None:
    async with store.transaction() as session:
        session.add_all([lease("r1"), lease("r2")])


async def _clear(store: Store) -> None:
    """Leaves the one row that a migration made: it counts this, so that the sides notice it."""
    async with store.transaction() as session:
        for table in reversed(Base.metadata.sorted_tables):
            if table is not PlanCountRow.__table__:
                await session.execute(delete(table))


@contextmanager
def _database(name: str, folder: Path) -> Iterator[str]:
    templates = Templates(folder)
    if name == "sqlite":
        url = f"sqlite:///{folder / 'races.sqlite'}"
        templates.fill(make_url(url))
        yield url
        return
    server = PostgresServer()
    try:
        server.start()
        url = server.url("races")
        templates.fill(make_url(url))
        yield url
    finally:
        server.remove()
