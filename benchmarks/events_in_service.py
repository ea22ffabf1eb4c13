"""The same events in the running service: what each takes, 10,000 waiting, its loops beside it.

A real Hub and its service with SQLite (synchronous=FULL), asked by HTTP: not through the Hub's
proxy. The queue and the leases are those of the planner's benchmarks, with gangs, bookings,
priorities, quotas, closed nodes and, with `LABELS=1`, labels of nodes; only starts not before a
time are none of the service's, and a booking without room is not in it: the service refuses one
before it waits. An event's time is from the request to the answer, which comes after the commit of
the new plan; of an early end it goes on until the owner's stream says that the GPUs are given back,
since whoever waits has their new start in the same transaction. What others look at meanwhile is
measured beside arrivals. Stand-ins: leases have no processes, whose end takes no time (a stop is
asked of the Hub, which has no such server), and who starts goes on starting.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import insert

from benchmarks import compiled, r5
from benchmarks.planner_queues import HOUR, NOW, TURNOVER, labels_of, queue
from gpudev_client.ids import new_id
from gpudev_client.states import State
from gpudev_service.planner import Demand, Hold, plan
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.models import LeaseUnitRow, NodeDrainRow, PlacementRow, ReservationRow
from tests.fixtures.hub import ADMIN, RunningHub

TYPE = "h100"
LIMITED, LIMIT = "limited", 24
#: What is asked beside arrivals.
QUESTIONS = ("look", "form", "fleet", "listing")
#: The reservations in a state; and whose start is promised for the latest time.
_IN = "SELECT id FROM reservations WHERE state = :state ORDER BY id"
_LAST = """
SELECT "user" FROM reservations WHERE state = 'queued' ORDER BY planned_start DESC LIMIT 1
"""
#: How many ask for something while it is measured, half of them with a quota.
PEOPLE = 20
_PATIENCE = 120.0
#: Of so many leases one can be extended, or the world is not what it should be: about one in seven
#: can.
_TRIES = 100
_CONFIG = f"""
from gpudev_service.loops import driving

async def _nobody_starts(ctx, key):
    await asyncio.Event().wait()

driving.begin = _nobody_starts
c.GpuDev.policy = {{"groups": {{{LIMITED!r}: {{"max_running_gpus": {LIMIT}}}}}}}
c.GpuDev.times = {{"start_limit": 7200, "closing": 0}}
c.GpuDev.gpu_types = {{
    {TYPE!r}: {{"gpus_per_node": 8, "cpus": 192, "memory_gb": 2048, "max_nodes": 8}}
}}
"""


def _row(key: str, user: str, quota: bool, state: State, now: datetime) -> dict[str, Any]:
    lease = dict.fromkeys(("starts_at", "active_at", "expires_at", "first_promise", "booked_for"))
    return {
        "id": key,
        "name": "made for a benchmark",
        "user": user,
        "groups": [LIMITED] if quota else [],
        "server_name": key,
        "gpu_type": TYPE,
        "nodes": 1,
        "priority": 0,
        "node_labels": None,
        "state": state.value,
        "target": State.ACTIVE.value,
        "submitted_at": now,
        **lease,
    }


def _shape(nodes: int, units: int, seconds: float) -> dict[str, Any]:
    return {
        "gpus": nodes * units,
        "nodes": nodes,
        "units_per_node": units,
        "hours": seconds / 3600,
        "duration_s": round(seconds),
    }


def _waits(demand: Demand, labels: Mapping[str, str] | None, now: datetime) -> dict[str, Any]:
    quota = next(iter(demand.quotas), None)
    # Those without a quota have no name in the planner's queues.
    user = quota.key if quota else f"free-{demand.id[-3:]}"
    made = _row(new_id(), user, quota is not None, State.QUEUED, now)
    made |= _shape(demand.nodes, demand.units_per_node, (demand.duration_ms - TURNOVER) / 1000)
    made |= {"priority": demand.priority, "node_labels": labels}
    if demand.booked_start_ms is not None:
        booked = now + timedelta(milliseconds=demand.booked_start_ms - NOW)
        made |= {"state": State.SCHEDULED.value, "booked_for": booked}
    return made


Rows = dict[type, list[dict[str, Any]]]


def _leases(holds: list[Hold], now: datetime, rows: Rows) -> None:
    free: dict[str, int] = {}
    for hold in holds:
        [(node, units)] = hold.units.items()
        first = free.get(node, 0)
        free[node] = first + units
        user = hold.quota_keys[0]
        key, until = new_id(), now + timedelta(milliseconds=hold.until_ms - NOW, minutes=5)
        lease = {"starts_at": now, "active_at": now, "expires_at": until, "first_promise": now}
        made = _row(key, user, _limited(user), State.ACTIVE, now)
        rows[ReservationRow].append(made | _shape(1, units, (until - now).total_seconds()) | lease)
        numbers = list(range(first, first + units))
        ids = [str(unit) for unit in numbers]
        placed = {"reservation_id": key, "rank": 0, "node": node}
        rows[PlacementRow].append({**placed, "units": numbers, "gpu_ids": ids})
        rows[LeaseUnitRow] += [
            {**placed, "unit": unit, "gpu_type": TYPE, "gpu_id": str(unit)} for unit in numbers
        ]


def _limited(user: str) -> bool:
    """Every second one, as in the planner's queues."""
    return int(user.rpartition("-")[2]) % 2 == 0


async def fill(url: str, waiting: int, nodes: int) -> None:
    """The leases and the queue, of whom nobody has a start yet."""
    given, now, store = queue(waiting, nodes), datetime.now(UTC), Store(url)
    await migrate.upgrade(store)
    rows: Rows = {kind: [] for kind in (ReservationRow, PlacementRow, LeaseUnitRow, NodeDrainRow)}
    _leases(given.holds, now, rows)
    seated = plan(given.nodes, given.holds, given.demands, given.rules, NOW).slots
    rows[ReservationRow] += [
        _waits(demand, given.labels.get(demand.id), now)
        for demand in given.demands
        if demand.id in seated
    ]
    rows[NodeDrainRow] = [
        {"node": node.name, "reason": "broken", "actor": "benchmark", "since": now}
        for node in given.nodes
        if not node.available
    ]
    async with store.transaction() as session:
        for kind, values in rows.items():
            await session.execute(insert(kind), values)
    await store.close()


@contextmanager
def _running(waiting: int, nodes: int) -> Iterator[tuple[RunningHub, str]]:
    specs = [
        {"name": f"n{at:05}", "gpu_type": TYPE, "simulated": True, "labels": labels_of(at)}
        for at in range(nodes)
    ]
    fleet = f"c.GpuDev.nodes = {specs!r}"
    hub = RunningHub(service_config=f"{r5.STAND_IN}\n{_CONFIG}\n{fleet}\n")
    try:
        hub.data_dir.mkdir(mode=0o700)
        url = f"sqlite+aiosqlite:///{hub.data_dir / 'gpudev.sqlite'}"
        asyncio.run(fill(url, waiting, nodes))
        hub.start()
        compiled.verify(hub.process("service"))
        r5.until_planned(url)
        yield hub, url
    finally:
        hub.remove()


@dataclass
class Service:
    """One event of each kind at a time; each method prepares one, and what it returns is it."""

    hub: RunningHub
    url: str
    http: httpx.Client
    nodes: int
    rng: random.Random

    def __post_init__(self) -> None:
        self._closed: str | None = None
        given = queue(10_000, self.nodes, seed=2)
        self._new = ((demand, given.labels.get(demand.id)) for demand in given.demands)
        self._people = [
            self.hub.user(f"new-{at}", *([LIMITED] if at % 2 == 0 else [])) for at in range(PEOPLE)
        ]
        (last,) = asyncio.run(r5.scalars(self.url, _LAST))
        self._last = {"Authorization": f"token {self.hub.user(last)}"}

    def arrival(self) -> Callable[[], object]:
        demand, labels = next(self._new)
        person = self.rng.choice(self._people[0 if demand.quotas else 1 :: 2])
        asked: dict[str, Any] = {
            "gpu_type": TYPE,
            "gpus": demand.nodes * demand.units_per_node,
            "hours": (demand.duration_ms - TURNOVER) / HOUR,
            "node_labels": labels,
        }
        header = {"Authorization": f"token {person}"}
        return lambda: self._done("POST", "/reservations", json=asked, headers=header)

    def early_end(self) -> Callable[[], object]:
        key = self._one(State.ACTIVE)

        def work() -> None:
            with self.http.stream("GET", f"/reservations/{key}/events") as stream:
                for line in stream.iter_lines():
                    if line.startswith(": this was the present state"):
                        self._begun = time.monotonic()
                        self._done("DELETE", f"/reservations/{key}")
                    if '"kind":"server"' in line:
                        return
            raise RuntimeError(f"{key} ended, and nobody said that its GPUs were given back")

        return work

    def extension(self) -> Callable[[], object]:
        """Of a lease that the service says can be extended: what it refuses is none."""
        keys = asyncio.run(r5.scalars(self.url, _IN, state=State.ACTIVE.value))
        for key in self.rng.sample(keys, min(_TRIES, len(keys))):
            path = f"/reservations/{key}/extension"
            possible = self._done("GET", path).json()["possible_hours"]
            if possible:
                hours = min(self.rng.choice((0.25, 0.5, 1)), possible)
                return lambda: self._done("POST", path, json={"hours": hours})
        raise RuntimeError(f"none of {_TRIES} leases can be extended: there is nothing to measure")

    def cordon(self) -> Callable[[], object]:
        if self._closed is not None:
            self._done("DELETE", f"/cluster/nodes/{self._closed}/drain")
        open_nodes = [node.name for node in queue(0, self.nodes).nodes if node.available]
        node = self._closed = self.rng.choice(open_nodes)
        return lambda: self._done("PUT", f"/cluster/nodes/{node}/drain", json={"reason": "broken"})

    def cancel(self) -> Callable[[], object]:
        key = self._one(State.QUEUED)
        return lambda: self._done("DELETE", f"/reservations/{key}")

    def look(self) -> Callable[[], object]:
        """What a panel shows of a lease, with how long it could be kept."""
        key = self._one(State.ACTIVE)
        return lambda: self._done("GET", f"/reservations/{key}")

    def form(self) -> Callable[[], object]:
        """What the Hub's form shows: when each number of GPUs could be had."""
        return lambda: self._done("GET", "/availability?hours=2")

    def fleet(self) -> Callable[[], object]:
        """The first nodes and the first of the queue, for somebody who waits at its end."""
        return lambda: self._done("GET", "/cluster", headers=self._last)

    def listing(self) -> Callable[[], object]:
        """A page of everybody's reservations."""
        return lambda: self._done("GET", "/reservations?user=*")

    def seconds(self, kind: str) -> float:
        """What one event of a kind took."""
        work = getattr(self, kind.replace(" ", "_"))()
        self._begun = time.monotonic()
        work()
        return time.monotonic() - self._begun

    def _done(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self.http.request(method, path, **given).raise_for_status()

    def _one(self, state: State) -> str:
        keys = asyncio.run(r5.scalars(self.url, _IN, state=state.value))
        return str(self.rng.choice(keys))


@contextmanager
def _arrivals(service: Service) -> Iterator[list[float]]:
    """One after the other, as long as it lasts; the seconds of each so far."""
    taken: list[float] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            arrive, begun = service.arrival(), time.monotonic()
            arrive()
            taken.append(time.monotonic() - begun)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of wall time of each event, by kind; of each question beside arrivals, by kind, and
    of these arrivals."""

    events: dict[str, list[float]]
    questions: dict[str, list[float]]


def measure(kinds: list[str], waiting: int, nodes: int, events: int) -> Measured:
    with _running(waiting, nodes) as (hub, url):
        headers = {"Authorization": f"token {hub.token(ADMIN)}"}
        base = f"http://127.0.0.1:{hub.ports.service}/services/gpudev/api/v1"
        with httpx.Client(
            trust_env=False, timeout=_PATIENCE, base_url=base, headers=headers
        ) as http:
            service = Service(hub, url, http, nodes, random.Random(1))
            found = {kind: [service.seconds(kind) for _ in range(events)] for kind in kinds}
            asked: dict[str, list[float]] = {}
            with _arrivals(service) as arrivals:
                for kind in QUESTIONS:
                    asked[kind] = [service.seconds(kind) for _ in range(events)]
            return Measured(found, {**asked, "arrival": arrivals})
