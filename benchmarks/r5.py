"""A restart with 10,000 live and 10,000 waiting: the first answer, and the plan, on each database.

The rows are written into the databases before the Hub starts, on a PostgreSQL with fsync. Then the
service is killed, and whoever asks it waits. The Hub, which has a server for each lease, is killed
after it, and no lease may end by that. Stand-ins: one process answers for all servers
(`light_servers`), and the service's look at its machine says that all of them run; so starting
again to look at the machine is not in the figure.

What a restart leaves alone is asked in an installation of its own with real servers, kernels and
SSH sessions (`restarts`). `LIVE` and `WAITING` change the size.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import insert, text

from benchmarks import light_servers, races, restarts
from benchmarks.campaign import machine, size, verdict
from benchmarks.ssh_peers import here
from gpudev_client import ids
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.models import HistoryRow, LeaseUnitRow, PlacementRow, ReservationRow
from tests.fixtures.hub import RunningHub
from tests.fixtures.postgres import PostgresServer

LIVE, WAITING = size("LIVE", 10_000, 1_000), size("WAITING", 10_000, 1_000)
GOAL_ANSWER, GOAL_PLAN = 2.0, 4.0
UNITS = 8
NODES = -(-LIVE // UNITS)
PATIENCE = 300.0
#: Between two looks at what it is work to tell.
_PAUSE = 0.5
#: The service compares its leases with the Hub's servers as often.
_RECONCILES = timedelta(seconds=15)
#: Servers that need no processes: all that the database has as active are there.
STAND_IN = """
import asyncio
import gpudev_service.server as _server

class _All(set):
    def __contains__(self, key):
        return True

class _Servers(_server.LocalServers):
    async def alive(self, reservation_id, handle):
        return True
    async def stop(self, reservation_id, handle, grace):
        return True
    async def told_gone(self, reservation_id):
        await asyncio.Event().wait()
    async def running(self):
        return _All()
    async def give_up(self):
        return None
    async def main_gone(self, reservation_id, handle):
        return False
    async def is_idle(self, reservation_id, handle):
        return False
    async def tell(self, reservation_id, text):
        return 0

_server.LocalServers = _Servers
"""
CONFIG = f"""{STAND_IN}
c.GpuDev.gpu_types = {{"h100": {{"gpus_per_node": {UNITS}, "cpus": 192, "memory_gb": 2048}}}}
c.GpuDev.nodes = [
    {{"name": f"n{{at:05}}", "gpu_type": "h100", "simulated": True}} for at in range({NODES})
]
"""


async def fill(url: str) -> list[tuple[str, str]]:
    """Leases on every GPU, and a queue without promises behind them; the users and names of the
    servers that the leases have."""
    store, rng, now = Store(url), random.Random(1), datetime.now(UTC)
    await migrate.upgrade(store)
    rows: dict[type, list[dict[str, Any]]] = {
        ReservationRow: [],
        PlacementRow: [],
        LeaseUnitRow: [],
        HistoryRow: [],
    }
    for at in range(LIVE):
        key, node, unit = ids.new_id(), f"n{at // UNITS:05}", at % UNITS
        begun = now - timedelta(minutes=rng.randrange(1, 60))
        end = now + timedelta(minutes=rng.randrange(60, 24 * 60))
        lease = {"starts_at": begun, "active_at": begun, "expires_at": end, "first_promise": begun}
        rows[ReservationRow].append(_reservation(key, at, "active", now, lease))
        rows[PlacementRow].append(
            {
                "reservation_id": key,
                "rank": 0,
                "node": node,
                "units": [unit],
                "gpu_ids": [str(unit)],
            }
        )
        unit_row = {"node": node, "unit": unit, "gpu_type": "h100", "gpu_id": str(unit), "rank": 0}
        rows[LeaseUnitRow].append(unit_row | {"reservation_id": key})
        rows[HistoryRow].append(_entry(key, "active", now))
    for at in range(WAITING):
        key = ids.new_id()
        shape = {"gpus": rng.choice((1, 2, 4, 8)), "duration_s": rng.randrange(1800, 86400)}
        shape["units_per_node"] = shape["gpus"]
        rows[ReservationRow].append(_reservation(key, LIVE + at, "queued", now, shape))
        rows[HistoryRow].append(_entry(key, "queued", now))
    async with store.transaction() as session:
        for kind, values in rows.items():
            await session.execute(insert(kind), values)
    await store.close()
    return [(row["user"], row["server_name"]) for row in rows[ReservationRow][:LIVE]]


def _reservation(
    key: str, at: int, state: str, now: datetime, more: dict[str, Any]
) -> dict[str, Any]:
    lease = dict.fromkeys(("starts_at", "active_at", "expires_at", "first_promise"))
    return {
        "id": key,
        "name": f"work {at}",
        "user": f"user-{at % 500}",
        "groups": [],
        "server_name": key,
        "gpu_type": "h100",
        "gpus": 1,
        "nodes": 1,
        "units_per_node": 1,
        "hours": 2.0,
        "duration_s": 7200,
        "state": state,
        "target": "active",
        "submitted_at": now - timedelta(hours=2) + timedelta(milliseconds=at),
        **lease,
        **more,
    }


def _entry(key: str, state: str, now: datetime) -> dict[str, Any]:
    said = {"kind": "transition", "state": state, "reason": "made for a benchmark", "data": {}}
    return {"reservation_id": key, "at": now, "actor": "benchmark", **said}


@contextmanager
def installation(name: str, *, servers: bool = False) -> Iterator[tuple[RunningHub, str]]:
    """A Hub whose service has a full database, and which has a server for each lease if it is to
    have `servers`."""
    with contextlib.ExitStack() as last:
        config, hub_config = CONFIG, light_servers.HUB_CONFIG if servers else ""
        if name == "postgresql":
            server = PostgresServer(durable=True)
            last.callback(server.remove)
            server.start()
            url = server.url(server.create_database())
            config = f"{config}\nc.GpuDev.db_url = {url!r}\n"
        hub = RunningHub(service_config=config, hub_config=hub_config)
        last.callback(hub.remove)
        if name != "postgresql":
            hub.data_dir.mkdir(mode=0o700)
            url = f"sqlite+aiosqlite:///{hub.data_dir / 'gpudev.sqlite'}"
        leases = asyncio.run(fill(url))
        if servers:
            light_servers.fill(hub, last.enter_context(light_servers.answering()), leases)
        yield hub, url


def wait_until(condition: Callable[[], bool], begin: float) -> float:
    """Seconds from `begin` until it holds."""
    while not condition():
        if time.monotonic() - begin > PATIENCE:
            return float("inf")
        time.sleep(0.02)
    return time.monotonic() - begin


def until_planned(url: str) -> None:
    """Returns when everybody in the database has been promised a start."""
    took = wait_until(lambda: count(url, UNPLANNED) == 0, time.monotonic())
    if took == float("inf"):
        raise RuntimeError("not everybody was promised a start")


def measure(name: str) -> tuple[float, float, float]:
    """Seconds until the first answer and until a new plan, and how many leases were lost by a
    restart of the Hub; all of them where it did not come to know them again."""
    with (
        installation(name, servers=True) as (hub, url),
        httpx.Client(trust_env=False, timeout=60) as http,
    ):
        base = f"http://127.0.0.1:{hub.ports.service}/services/gpudev/api/v1"

        def ask(method: str, path: str, json: Any = None) -> httpx.Response | None:
            try:
                answer = http.request(method, f"{base}{path}", json=json, headers=headers)
            except httpx.TransportError:
                return None
            return answer if answer.is_success else None

        def knows_all() -> bool:
            time.sleep(_PAUSE)  # to count them is work for the Hub
            return light_servers.ready(hub) == LIVE

        def compared(since: datetime) -> bool:
            """Whether the service has looked at all servers of the Hub since then."""
            time.sleep(_PAUSE)
            health = ask("GET", "/health")
            loops = health.json()["loops"] if health else []
            last = next((one["last_run_at"] for one in loops if one["name"] == "reconcile"), None)
            # It may have begun before.
            return last is not None and datetime.fromisoformat(last) > since + _RECONCILES

        begin = time.monotonic()
        hub.start()
        started = time.monotonic() - begin
        headers = {"Authorization": f"token {hub.user('ada')}"}
        seen = wait_until(knows_all, begin)
        until_planned(url)

        hub.process("service").send_signal(signal.SIGKILL)
        begin = time.monotonic()
        first = wait_until(lambda: ask("GET", "/health/live") is not None, begin)
        sound = wait_until(lambda: ask("GET", "/health") is not None, begin)
        asked = {"gpu_type": "h100", "gpus": 1, "hours": 1}
        planned = wait_until(lambda: ask("POST", "/plan", asked) is not None, begin)
        memory = hub.process("service").memory_info().rss / 2**20

        hub.end("hub", signal.SIGKILL)
        begin = time.monotonic()
        hub.start_hub()
        again = wait_until(knows_all, begin)
        since = datetime.now(UTC)
        late = wait_until(lambda: compared(since), time.monotonic())
        there = count(url, RUNNING) if max(again, late) < PATIENCE else 0
    print(
        f"{name}: the Hub answered {started:.1f} s after it was started and knew of all {LIVE}"
        f" servers after {seen:.1f} s. Service killed, with {WAITING} waiting: first answer"
        f" {first:.2f} s, sound {sound:.2f} s, a new plan over everybody {planned:.2f} s;"
        f" {memory:.0f} MB. Hub killed: it knew of all servers again after {again:.1f} s, and of"
        f" their leases {LIVE - there} were lost when the service had looked at all of them",
        flush=True,
    )
    return first, planned, LIVE - there


UNPLANNED = "SELECT count(*) FROM reservations WHERE state = 'queued' AND planned_start IS NULL"
RUNNING = """
SELECT count(*) FROM reservations
WHERE state = 'active' AND target = 'active' AND server_lost_at IS NULL
"""


async def scalars(url: str, query: str, **given: str) -> list[Any]:
    """What a query finds, of each row the first column."""
    store = Store(url)
    try:
        async with store.reading() as session:
            return list(await session.scalars(text(query), given))
    finally:
        await store.close()


def count(url: str, query: str) -> int:
    [found] = asyncio.run(scalars(url, query))
    return int(found)


def main() -> int:
    here()
    print(machine())
    wanted = os.environ.get("DATABASES")
    names = wanted.split(",") if wanted else races.databases()
    found = {name: measure(name) for name in names}
    dropped = restarts.measure()
    full = LIVE >= 10_000 and WAITING >= 10_000 and len(found) == len(races.ALL)
    good = all(a <= GOAL_ANSWER and p <= GOAL_PLAN and not n for a, p, n in found.values())
    good = good and dropped.none
    shown = " ".join(f"{name}={a:.2f}s/{p:.2f}s" for name, (a, p, _) in found.items())
    lost = sum(n for _, _, n in found.values())
    print(
        f"R5 first-answer/plan {shown} live={LIVE} waiting={WAITING} (durable; the Hub"
        f" has all servers) lost={lost} dropped={dropped} goal {GOAL_ANSWER:.0f}s,{GOAL_PLAN:.0f}s"
        f" with 10000 and 10000, 0 lost, 0 dropped {verdict(good=good, full=full)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
