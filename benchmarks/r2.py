"""Kill -9 of service, Hub, proxy and PostgreSQL at named and at random moments, on real processes.

People reserve, cancel and extend while it happens. After each kill the part is started again, and
everything has to be in order: nothing that was accepted is lost, nothing runs without a lease, no
GPU is held by what is over. A point of the code (`tests/e2e/crash_points.py`) is armed, and leases
live until a process has come by and is dead: only that is a kill. Where none comes by in time the
point is disarmed, and counted as not reached. `KILLS` and `SEED` change it. `CLUSTER=1` kills API
server, etcd, kubelet, Hub and service of a site on a real cluster instead, and container and pod of
the service in a release of the chart.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import psutil
from sqlalchemy.exc import DBAPIError

from benchmarks import on_cluster
from benchmarks.campaign import machine, size
from benchmarks.ssh_peers import here
from gpudev_client.states import State
from tests import tiers
from tests.e2e import crash_points
from tests.e2e.conftest import MORTAL_HUB, MORTAL_SERVICE
from tests.e2e.database import Database
from tests.e2e.invariants import marked, of_machine
from tests.e2e.people import Person
from tests.e2e.waiting import until
from tests.fixtures.hub import ADMIN, RunningHub
from tests.fixtures.postgres import PostgresServer

GOAL_KILLS, GOAL_SECONDS = 1000, 30.0
#: Of them, those that take a cluster.
CLUSTER_KILLS = 200
#: How long an installation may take to be in order before the campaign gives up on it.
PATIENCE = 180.0
#: How long lives go on until somebody has come by an armed point, and how long one is waited for.
REACH, LIFE = 150.0, 40.0
#: How long a process that was sent a SIGKILL may still be there.
GRACE = 10.0
#: Of which every life of a lease with a disk comes by the most, and one with many files by all.
POINTS = (*crash_points.IN_SERVICE, crash_points.TRANSACTION_BEGUN, *crash_points.IN_HUB)
#: More than the snapshot copies before it is interrupted.
FILES = 3 * crash_points.HALF


@dataclass
class Campaign:
    """One installation that is killed again and again.

    Attributes:
        victims: the kills that happened, by what was killed.
        unreached: by point, how often it was armed and nobody came by.
    """

    hub: RunningHub
    database: Database
    postgres: PostgresServer | None
    rng: random.Random
    reach: float = REACH
    accepted: list[str] = field(default_factory=list)
    victims: Counter[str] = field(default_factory=Counter)
    unreached: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)
    people: int = 0
    deck: list[str] = field(default_factory=list)

    def round(self) -> None:
        """Some life, one kill in the middle of it, and a look at everything."""
        victim = self._choose()
        if victim in POINTS:
            self.at_point(victim)
        else:
            self._at_random(victim)
        began = time.monotonic()
        until(lambda: not self._wrong(), "everything is in order", patience=PATIENCE, pause=0.5)
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        print(f"kill {self.victims.total()}: {victim}, in order after {took:.1f} s", flush=True)
        if took > GOAL_SECONDS:
            self.wrong.append(f"in order only {took:.0f} s after the return of {victim}")

    def _choose(self) -> str:
        """Each in turn, in an order that the seed decides anew each time."""
        if not self.deck:
            parts = ["service", "hub", "proxy"]
            if self.postgres is not None:
                parts += ["postgresql"] * 3
            self.deck = [*parts, *POINTS]
            self.rng.shuffle(self.deck)
        return self.deck.pop()

    def _person(self) -> Person:
        self.people += 1
        return Person(self.hub, f"person-{self.people}")

    def _at_random(self, victim: str) -> None:
        person = self._person()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self._live, person)
            time.sleep(self.rng.uniform(0, 1.5))
            self._kill(victim)
            asked.result()
        self.victims[victim] += 1

    def at_point(self, point: str) -> bool:
        """Leases live until a process has died at a point; whether one has."""
        part = "hub" if point in crash_points.IN_HUB else "service"
        process = self.hub.process(part)
        crash_points.arm(self.hub.home, point)
        end = time.monotonic() + self.reach
        while crash_points.is_armed(self.hub.home, point) and time.monotonic() < end:
            self._life(point, end)
        if crash_points.is_armed(self.hub.home, point):
            crash_points.disarm(self.hub.home)
            self.unreached[point] += 1
            return False
        if part == "hub":
            self.hub.reap("hub")
            self.hub.start_hub()
        else:
            process.wait(GRACE)
        self.victims[f"{part} at {point}"] += 1
        return True

    def _life(self, point: str, end: float) -> None:
        """Somebody's short lease from its beginning to its end, or until it is cut off."""

        def struck() -> bool:
            return not crash_points.is_armed(self.hub.home, point)

        begin = time.monotonic()
        try:
            key = self._ask(self._person(), self.rng.choice((8, 12, 20)))
            if key is not None and point == crash_points.SNAPSHOT_HALF:
                self._fill(key)
        except httpx.HTTPError:
            return  # cut off by the kill: not accepted as far as this person knows
        while not struck() and time.monotonic() < min(end, begin + LIFE):
            time.sleep(0.05)

    def _fill(self, key: str) -> None:
        """Puts files onto the disk of a lease."""
        query = "SELECT disk_id FROM reservations WHERE id = :id"
        disk = self.database.rows(query, id=key)[0]["disk_id"]
        home = self.hub.data_dir / "disks" / "disks" / str(disk) / "home"
        until(home.is_dir, f"the disk of {key} is there", patience=LIFE)
        for number in range(FILES):
            (home / f"file-{number}").write_text(f"content {number}")

    def _ask(self, person: Person, seconds: int) -> str | None:
        answer = person.ask(gpu_type="t4", hours=seconds / 3600, disk="work", create_disk=True)
        if answer.status_code != httpx.codes.CREATED:
            return None
        key = str(answer.json()["id"])
        self.accepted.append(key)
        return key

    def _live(self, person: Person) -> None:
        """Asks for a lease that ends soon, and changes something; any call may be cut off."""
        try:
            self._ask(person, self.rng.choice((8, 20, 45)))
            if len(self.accepted) > 1 and self.rng.random() < 0.5:
                key = self.rng.choice(self.accepted[-4:])
                self.hub.call("DELETE", f"/reservations/{key}", self.hub.token(ADMIN))
        except httpx.HTTPError:
            return  # cut off by the kill: not accepted as far as this person knows

    def _kill(self, victim: str) -> None:
        match victim:
            case "service":
                process = self.hub.process("service")
                process.send_signal(signal.SIGKILL)
                process.wait(GRACE)
            case "hub":
                self.hub.end("hub", signal.SIGKILL)
                self.hub.start_hub()
            case "proxy":
                self.hub.end("proxy", signal.SIGKILL)
                self.hub.start_proxy()
            case "postgresql":
                assert self.postgres is not None
                self.postgres.stop(signal.SIGKILL)
                time.sleep(self.rng.uniform(0, 3))
                self.postgres.start()

    def _wrong(self) -> list[str]:
        """What is not in order; a part that does not answer yet is not either."""
        try:
            if not self.hub.call("GET", "/health").is_success:
                return ["the service is not ready"]
            return of_machine(self.hub, self.database, self.accepted)
        except (httpx.HTTPError, DBAPIError) as error:
            # The connection that looks into the database dies with PostgreSQL, too.
            return [f"{type(error).__name__}"]

    def settle(self) -> None:
        """Ends what still lives; nothing may be left."""
        token = self.hub.token(ADMIN)
        for row in self._living():
            self.hub.call("DELETE", f"/reservations/{row['id']}", token)
        until(lambda: not self._living(), "all are over", patience=PATIENCE, seen=self._living)
        until(lambda: not self._wrong(), "everything is in order", patience=PATIENCE)
        self.wrong += [f"{key} still runs" for key in marked(self.hub)]

    def _living(self) -> list[dict[str, object]]:
        query = "SELECT id, state FROM reservations WHERE ended_at IS NULL"
        return [dict(row) for row in self.database.rows(query)]

    def outcomes(self) -> dict[str, int]:
        rows = self.database.rows(
            "SELECT state, count(*) AS number FROM reservations GROUP BY state"
        )
        return {str(State(row["state"])): row["number"] for row in rows}


def _run(running: Campaign, kills: int) -> None:
    """Rounds until so many have been killed; who is not reached in half of them ends it, too."""
    for number in range(1, 2 * kills + 1):
        try:
            running.round()
        except (
            AssertionError,
            RuntimeError,
            subprocess.TimeoutExpired,
            psutil.TimeoutExpired,
        ) as error:
            running.wrong.append(f"in round {number}: {error}: {running._wrong()}")
            return
        if running.victims.total() >= kills:
            break
    try:
        running.settle()
    except AssertionError as error:
        running.wrong.append(f"in the end: {error}: {running._wrong()}")


def campaign(kills: int, seed: int, *, on_postgres: bool) -> Campaign:
    postgres = PostgresServer(durable=True) if on_postgres else None
    hub: RunningHub | None = None
    try:
        url = None
        config = MORTAL_SERVICE
        if postgres is not None:
            postgres.start()
            url = postgres.url(postgres.create_database())
            config += f"\nc.GpuDev.db_url = {url!r}"
        hub = RunningHub(hub_config=MORTAL_HUB, service_config=config)
        hub.start()
        running = Campaign(
            hub, Database(hub, url), postgres, random.Random(f"{seed} {on_postgres}")
        )
        _run(running, kills)
        print(
            f"{'postgresql' if on_postgres else 'sqlite'}: {running.victims.total()} kills"
            f" {dict(running.victims)}, armed and not reached {dict(running.unreached) or 'none'},"
            f" {len(running.accepted)} accepted, outcomes {running.outcomes()}, in order again"
            f" after {running.slowest:.1f} s at the latest",
            flush=True,
        )
        running.database.close()
        return running
    finally:
        if hub is not None:
            hub.remove()
        if postgres is not None:
            postgres.remove()


def main() -> int:
    here()
    print(machine())
    seed = int(os.environ.get("SEED", "1"))
    return main_on_cluster(seed) if on_cluster.WANTED else main_here(seed)


def main_on_cluster(seed: int) -> int:
    found = on_cluster.kills(size("KILLS", CLUSTER_KILLS, 5), seed, GOAL_SECONDS)
    for line in found.wrong:
        print(line)
    done = found.victims.total()
    outcomes = {str(state): count for state, count in found.outcomes.items()}
    print(f"{dict(sorted(found.victims.items()))}, outcomes {outcomes}")
    print(
        f"R2 kills={done} wrong={len(found.wrong)} in-order-after={found.slowest:.1f}s"
        f" victims={','.join(on_cluster.VICTIMS)} (real cluster) load={os.getloadavg()[0]:.1f}"
        f" goal {CLUSTER_KILLS} kills here, 0 lost, 0 orphans after {GOAL_SECONDS:.0f}s"
        f" {'met' if done >= CLUSTER_KILLS and not found.wrong else 'missed'}"
        f"{'' if done >= CLUSTER_KILLS or found.wrong else ' (none in this size)'}"
    )
    return 1 if found.wrong else 0


def main_here(seed: int) -> int:
    kills = size("KILLS", GOAL_KILLS, 6)
    places = [False, True] if tiers.postgres_bin() is not None else [False]
    found = [campaign(kills // len(places), seed, on_postgres=place) for place in places]
    wrong = [line for one in found for line in one.wrong]
    for line in wrong:
        print(line)
    done = sum(one.victims.total() for one in found)
    slowest = max(one.slowest for one in found)
    missed = sum(one.unreached.total() for one in found)
    struck = {name.rpartition(" at ")[2] for one in found for name in one.victims}
    never = [point for point in POINTS if point not in struck]
    full = done >= GOAL_KILLS and not never
    print(
        f"R2 kills={done} wrong={len(wrong)} in-order-after={slowest:.1f}s"
        f" armed-and-not-reached={missed} points-killed-at={len(POINTS) - len(never)}-of"
        f"-{len(POINTS)}"
        f" victims=service,hub,proxy{',postgresql' if len(places) > 1 else ''}"
        f" (API server, etcd, kubelet: CLUSTER=1) goal"
        f" {GOAL_KILLS} kills, 0 lost, 0 orphans after {GOAL_SECONDS:.0f}s"
        f" {'met' if full and not wrong else 'missed'}"
        f"{'' if full or wrong else ' (none in this size)'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
