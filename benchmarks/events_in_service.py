"""The same events in the service: what an operation takes until its commit, 10,000 waiting.

The whole operation, as the API calls it, in one process with SQLite: admission, planning, history,
commit with synchronous=FULL, and the answer's view. Only HTTP is not in it. A type of 1,000 nodes,
all busy; requests as in P4, some with priority.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from gpudev_client.ids import new_id
from gpudev_client.models import ReservationRequest
from gpudev_client.states import WAITING, State
from gpudev_service.actor import Actor
from gpudev_service.clock import SteadyClock
from gpudev_service.context import Context
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.errors import Refusal
from gpudev_service.fleet import StaticFleet
from gpudev_service.hub import Hub
from gpudev_service.loops import driving
from gpudev_service.operations import capacity, extension, planning, reservations
from gpudev_service.servers import LocalServers
from gpudev_service.settings import GpuTypeSpec, NodeSpec, Policy, Settings, Times
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.models import LeaseUnitRow, PlacementRow, ReservationRow

TYPE = "h100"
ADMIN = Actor("root-admin", admin=True)
SIZES = (1, 1, 2, 4, 8)
HOURS = (0.5, 1, 2, 4, 8, 24)


def context(folder: Path, nodes: int) -> Context:
    settings = Settings(
        gpu_types={TYPE: GpuTypeSpec(name=TYPE, gpus_per_node=8, cpus=192, memory_gb=2048)},
        nodes=tuple(
            NodeSpec(name=f"{TYPE}-{at}", gpu_type=TYPE, simulated=True) for at in range(nodes)
        ),
        policy=Policy(),
        times=Times(),
        data_dir=folder,
        public_url="http://hub.example",
    )
    return Context(
        settings=settings,
        store=Store(f"sqlite:///{folder / 'gpudev.sqlite'}"),
        clock=SteadyClock(),
        fleet=StaticFleet(settings),
        disks=DirectoryDisks(folder / "disks"),
        servers=LocalServers(),
        hub=Hub("http://127.0.0.1:9/hub/api", "no-token", patience=0.5),
    )


def _row(ctx: Context, at: int, gpus: int, hours: float, state: State) -> ReservationRow:
    key, now = new_id(), ctx.clock.now()
    return ReservationRow(
        id=key,
        name=f"run {at}",
        user=f"user-{at}",
        groups=[],
        server_name=key,
        gpu_type=TYPE,
        gpus=gpus,
        nodes=1,
        units_per_node=gpus,
        hours=hours,
        duration_s=round(hours * 3600),
        priority=at % 5 // 4,
        state=state,
        target=State.ACTIVE,
        submitted_at=now,
    )


async def fill(ctx: Context, nodes: int, waiting: int, rng: random.Random) -> None:
    """A lease on each node's GPUs, and a queue that is planned."""
    await migrate.upgrade(ctx.store)
    now = ctx.clock.now()
    async with ctx.store.transaction() as session:
        leases = [_row(ctx, at, 8, 24, State.ACTIVE) for at in range(nodes)]
        for row in leases:
            row.starts_at = now
            row.expires_at = now + timedelta(minutes=rng.randrange(60, 24 * 60))
        queued = [
            _row(ctx, nodes + at, rng.choice(SIZES), rng.choice(HOURS), State.QUEUED)
            for at in range(waiting)
        ]
        session.add_all([*leases, *queued])
        await session.flush()
        for at, row in enumerate(leases):
            node, ids = f"{TYPE}-{at}", [str(unit) for unit in range(8)]
            session.add(
                PlacementRow(
                    reservation_id=row.id, rank=0, node=node, units=list(range(8)), gpu_ids=ids
                )
            )
            session.add_all(
                LeaseUnitRow(
                    node=node, unit=unit, gpu_type=TYPE, gpu_id=str(unit), reservation_id=row.id
                )
                for unit in range(8)
            )
        await planning.replan(ctx, session, now, [TYPE])


async def _ids(ctx: Context, *states: State) -> list[str]:
    async with ctx.store.reading() as session:
        row = ReservationRow
        query = select(row.id).where(row.state.in_(states)).order_by(row.id)
        return list(await session.scalars(query))


class Service:
    """One event of each kind at a time."""

    def __init__(self, ctx: Context, nodes: int, rng: random.Random) -> None:
        self._ctx, self._nodes, self._rng = ctx, nodes, rng
        self._number = 0
        self._closed: str | None = None

    async def arrival(self) -> Callable[[], Awaitable[object]]:
        self._number += 1
        request = ReservationRequest(
            gpu_type=TYPE, gpus=self._rng.choice(SIZES), hours=self._rng.choice(HOURS)
        )
        return lambda: reservations.submit(self._ctx, Actor(f"new-{self._number}"), request, ())

    async def early_end(self) -> Callable[[], Awaitable[object]]:
        """The server is gone already; its GPUs are given back."""
        key = self._rng.choice(await _ids(self._ctx, State.ACTIVE))
        await reservations.cancel(self._ctx, key, ADMIN)
        return lambda: driving._release(self._ctx, key)

    async def extension(self) -> Callable[[], Awaitable[object]]:
        key = self._rng.choice(await _ids(self._ctx, State.ACTIVE))

        async def work() -> None:
            try:
                await extension.extend(self._ctx, key, ADMIN, self._rng.choice((0.25, 0.5, 1)))
            except Refusal:
                return  # so it is answered, too

        return work

    async def cordon(self) -> Callable[[], Awaitable[object]]:
        if self._closed is not None:
            await capacity.undrain(self._ctx, self._closed, ADMIN)
        node = self._closed = f"{TYPE}-{self._rng.randrange(self._nodes)}"
        return lambda: capacity.drain(self._ctx, node, "broken", ADMIN)

    async def cancel(self) -> Callable[[], Awaitable[object]]:
        key = self._rng.choice(await _ids(self._ctx, *WAITING))
        return lambda: reservations.cancel(self._ctx, key, ADMIN)


async def measure(
    kinds: list[str], waiting: int, nodes: int, events: int
) -> dict[str, tuple[float, float]]:
    """(p50, p99) in seconds of wall time, by kind of event."""
    rng = random.Random(1)
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ctx = context(Path(folder), nodes)
        await fill(ctx, nodes, waiting, rng)
        service = Service(ctx, nodes, rng)
        for kind in kinds:
            taken = []
            for _ in range(events):
                work = await getattr(service, kind.replace(" ", "_"))()
                begin = time.monotonic()
                await work()
                taken.append(time.monotonic() - begin)
            found[kind] = statistics.median(taken), statistics.quantiles(taken, n=100)[98]
        await ctx.store.close()
    return found
