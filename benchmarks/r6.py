"""Every mutating call once: calls repeated, reordered and cut on their way to a real service.

Clients give each call a key of its own and repeat it until they have an answer, through a proxy
that spoils most of them. Afterwards the database must have each effect once for each call that
was answered with success, and none for those that were refused. `CALLS` and `SEED` change it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.campaign import machine, size
from benchmarks.cli_logins import Logins
from benchmarks.faulty import Faulty
from benchmarks.ssh_peers import here
from benchmarks.standing import Act, Standing
from gpudev_service.api.routes import ROUTES
from tests.e2e.database import Database
from tests.fixtures.hub import RunningHub

GOAL = 100_000
CLIENTS = 16
PATIENCE = 60
#: Answers after which a client asks again.
AGAIN = {409: "in_progress", 429: "", 502: "", 503: "", 504: ""}
CONFIG = """
from gpudev_service.loops import driving

async def _nobody_starts(ctx, key):
    return None

driving.begin = _nobody_starts
_size = {"gpus_per_node": 8, "cpus": 48, "memory_gb": 192}
_types = {"t4": 20} | {f"own-{n}": 1 for n in range(16)}
c.GpuDev.gpu_types = {name: _size for name in _types}
c.GpuDev.nodes = [
    {"name": f"{name}-{n}", "gpu_type": name, "simulated": True}
    for name, nodes in _types.items() for n in range(nodes)
]
# There are no servers: nobody is to look for them, and end their leases.
c.GpuDev.times = {"reconcile": 100_000}
# Nothing is idle while it lasts, and no limit ends what is counted.
c.GpuDev.policy = {
    "default": {"idle": {"after_minutes": 100_000, "keeps": 1_000_000}, "snapshots_kept": 1_000_000}
}
"""


@dataclass
class Client:
    """Somebody who calls through the proxy, and remembers what was answered."""

    name: str
    token: str
    base: str
    http: httpx.AsyncClient
    rng: random.Random
    reservations: list[str] = field(default_factory=list)
    disks: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    extended: Counter[str] = field(default_factory=Counter)
    snapshots: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    tries: int = 0
    #: How often each route was answered with success.
    done: Counter[str] = field(default_factory=Counter)
    standing: Standing | None = None

    async def act(self) -> None:
        acts: list[Act] = [self.reserve] * 5 + [self.new_disk]
        if self.reservations:
            acts += [self.cancel] * 4 + [self.extend] * 4
        if self.disks:
            acts += [self.snapshot, self.rename, self.clone, self.delete]
        if self.gone:
            acts.append(self.restore)
        if self.standing is not None:
            acts += self.standing.acts()
        await self.rng.choice(acts)()

    async def reserve(self) -> None:
        marker = uuid.uuid4().hex
        asked = {"gpu_type": "t4", "gpus": self.rng.choice((1, 2, 8)), "hours": 1, "name": marker}
        answer = await self.call("POST", "/reservations", asked)
        if answer is not None and answer.is_success:
            self.made[marker] = answer.json()["id"]
            self.reservations.append(answer.json()["id"])
        elif answer is not None:
            self.refused.append(marker)

    async def cancel(self) -> None:
        key = self.reservations.pop(self.rng.randrange(len(self.reservations)))
        await self.call("DELETE", f"/reservations/{key}")

    async def extend(self) -> None:
        key = self.rng.choice(self.reservations)
        answer = await self.call("POST", f"/reservations/{key}/extension", {"hours": 0.05})
        if answer is not None and answer.is_success:
            self.extended[key] += 1

    async def new_disk(self) -> None:
        name = f"d{uuid.uuid4().hex[:12]}"
        answer = await self.call("POST", "/disks", {"name": name})
        if answer is not None and answer.is_success:
            self.disks.append(name)

    async def rename(self) -> None:
        at, name = self.rng.randrange(len(self.disks)), f"d{uuid.uuid4().hex[:12]}"
        answer = await self.call("PATCH", f"/disks/{self.disks[at]}", {"name": name})
        if answer is not None and answer.is_success:
            self.snapshots[name] = self.snapshots.pop(self.disks[at], 0)
            self.disks[at] = name

    async def snapshot(self) -> None:
        disk = self.rng.choice(self.disks)
        answer = await self.call("POST", f"/disks/{disk}/snapshots", {})
        if answer is not None and answer.is_success:
            self.snapshots[disk] += 1

    async def clone(self) -> None:
        name = f"d{uuid.uuid4().hex[:12]}"
        path = f"/disks/{self.rng.choice(self.disks)}/clones"
        answer = await self.call("POST", path, {"name": name})
        if answer is not None and answer.is_success:
            self.disks.append(name)

    async def delete(self) -> None:
        name = self.rng.choice(self.disks)
        answer = await self.call("DELETE", f"/disks/{name}")
        if answer is not None and answer.is_success:
            self.disks.remove(name)
            self.gone.append(name)

    async def restore(self) -> None:
        name = self.rng.choice(self.gone)
        answer = await self.call("POST", f"/disks/{name}/restoration", {})
        if answer is not None and answer.is_success:
            self.gone.remove(name)
            self.disks.append(name)

    async def call(
        self, method: str, path: str, json: Any = None, token: str | None = None
    ) -> httpx.Response | None:
        """One call with one key, again and again until it is answered."""
        headers = {
            "Authorization": f"token {token or self.token}",
            "Idempotency-Key": uuid.uuid4().hex,
        }
        for number in range(PATIENCE):
            self.tries += 1
            try:
                answer = await self.http.request(
                    method, f"{self.base}{path}", json=json, headers=headers
                )
            except httpx.TransportError:
                continue
            code = AGAIN.get(answer.status_code)
            if code is None or code not in answer.text:
                if answer.is_success:
                    self.done[_route(method, path)] += 1
                return answer
            await asyncio.sleep(min(1.0, 0.02 * 2**number))
        self.unanswered.append(f"{method} {path}")
        return None


def _route(method: str, path: str) -> str:
    path = path.partition("?")[0]
    return next(one.name for one in ROUTES if one.method == method and one.match(path) is not None)


async def call_all(hub: RunningHub, calls: int, seed: int) -> tuple[list[Client], Faulty]:
    faulty = Faulty(hub.ports.service, seed)
    base = f"http://127.0.0.1:{await faulty.start()}/services/gpudev/api/v1"
    names = [f"c{at}" for at in range(CLIENTS)]
    single = httpx.Limits(max_keepalive_connections=0)
    with ExitStack() as browsers:
        async with httpx.AsyncClient(trust_env=False, timeout=60, limits=single) as http:
            clients = [
                Client(name, hub.user(name), base, http, random.Random(f"{seed} {name}"))
                for name in names
            ]
            for at, one in enumerate(clients):
                guest, logins = names[(at + 1) % CLIENTS], Logins(hub, one.name, browsers)
                one.standing = Standing.prepare(hub, one.name, at, guest, one.call, logins)

            async def live(client: Client) -> None:
                for _ in range(-(-calls // CLIENTS)):
                    await client.act()

            await asyncio.gather(*map(live, clients))
    await faulty.close()
    return clients, faulty


def doubles(database: Database, clients: list[Client]) -> list[str]:
    """What the database has otherwise than the answers say."""
    found = [f"never answered: {call}" for client in clients for call in client.unanswered]
    rows = database.rows("SELECT id, name FROM reservations")
    named: dict[str, list[str]] = {}
    for row in rows:
        named.setdefault(row["name"], []).append(row["id"])
    for client in clients:
        if client.standing is not None:
            named.pop(f"lease of {client.name}", None)
            found += client.standing.differences(database)
        for marker, key in client.made.items():
            if named.pop(marker, []) != [key]:
                found.append(f"{key} is not the only one of its call")
        there = [marker for marker in client.refused if marker in named]
        found += [f"{marker} was refused and is there" for marker in there]
    found += [f"{keys} were made by nobody" for name, keys in named.items()]
    entries = database.rows(
        "SELECT reservation_id, count(*) AS number FROM history WHERE kind = 'extension'"
        " GROUP BY reservation_id"
    )
    extended = {row["reservation_id"]: row["number"] for row in entries}
    told: Counter[str] = Counter()
    for client in clients:
        told += client.extended
    found += [
        f"{key} was extended {extended.get(key, 0)} times for {told[key]} calls"
        for key in extended.keys() | told.keys()
        if extended.get(key, 0) != told[key]
    ]
    return found + _disks(database, clients)


def _disks(database: Database, clients: list[Client]) -> list[str]:
    found = []
    for client in clients:
        query = "SELECT id, name, deleted_at FROM disks WHERE \"user\" = :user AND name <> 'home'"
        rows = database.rows(query, user=client.name)
        for what, told, stored in (
            ("disks", client.disks, [row["name"] for row in rows if row["deleted_at"] is None]),
            ("deleted", client.gone, [row["name"] for row in rows if row["deleted_at"]]),
        ):
            if sorted(stored) != sorted(told):
                found.append(f"{client.name} has {what} {len(stored)} for {len(told)} calls")
        for row in rows:
            taken = database.rows(
                "SELECT count(*) AS number FROM snapshots WHERE disk_id = :id AND cause <> 'end'",
                id=row["id"],
            )[0]["number"]
            if taken != (asked := client.snapshots[row["name"]]):
                found.append(f"{row['name']} has {taken} snapshots for {asked} calls")
    return found


def main() -> int:
    here()
    print(machine())
    calls, seed = size("CALLS", GOAL, 500), int(os.environ.get("SEED", "1"))
    hub = RunningHub(service_config=CONFIG)
    try:
        hub.start()
        begin = time.monotonic()
        clients, faulty = asyncio.run(call_all(hub, calls, seed))
        took = time.monotonic() - begin
        database = Database(hub)
        wrong = doubles(database, clients)
        database.close()
    finally:
        hub.remove()
    made = sum(client.tries for client in clients)
    print(
        f"{calls} calls, {made} times sent, {faulty.delivered} deliveries:"
        f" {dict(sorted(faulty.counts.items()))}; {calls / took:.0f} calls/s;"
        f" {sum(len(c.made) for c in clients)} reservations,"
        f" {sum(c.extended.total() for c in clients)} extensions,"
        f" {sum(len(c.disks) for c in clients)} disks,"
        f" {sum(c.snapshots.total() for c in clients)} snapshots"
    )
    done = sum((client.done for client in clients), Counter[str]())
    routes = {route.name for route in ROUTES if route.mutating}
    never = sorted(routes - done.keys())
    told = f"; not: {', '.join(never)}" if never else ""
    print(f"done: {len(done)} of {len(routes)} routes that change something{told}")
    for line in wrong[:20]:
        print(line)
    print(
        f"R6 double-effects={len(wrong)} calls={calls} goal 0 in {GOAL}"
        f" {'met' if calls >= GOAL and not wrong and not never else 'missed'}"
        f"{'' if calls >= GOAL or wrong else ' (none in this size)'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
