"""Leases end on time: with Hub and proxy dead, and while the machine's clock is set by an hour.

The time is measured here, by the monotonic clock, from the answer that said how long the lease
lasts to the moment when no process of its server is left. The service's clock is stepped in its
own process, since the machine's is not ours to set. With `CLUSTER=1` the leases are pods of a real
cluster, and its API server, etcd and kubelet die, too, which is measured from their return.
`LEASES` and `LEASE_SECONDS` change the number per case and their length.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from benchmarks import on_cluster
from benchmarks.campaign import machine, size, verdict
from benchmarks.ssh_peers import here
from gpudev_client.models import Reservation
from gpudev_client.states import FINAL, State
from tests.e2e.conftest import LIGHT_SERVERS, SHORT
from tests.e2e.database import Database
from tests.e2e.invariants import marked
from tests.e2e.people import Person
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub

GOAL = 5.0
#: Leases in each case, and seconds of each.
FULL = 4, 60
LEASES, SECONDS = size("LEASES", FULL[0], 1), size("LEASE_SECONDS", FULL[1], 40)
#: The service reads the time of day with the offset that stands in a file.
CLOCK = """
import os, pathlib
from datetime import datetime, timedelta
from gpudev_service import clock as _clock

_STEP = pathlib.Path(os.environ["GPUDEV_TESTS_DIR"]) / "step"

class _Stepped(datetime):
    @classmethod
    def now(cls, tz=None):
        step = float(_STEP.read_text()) if _STEP.exists() else 0.0
        return datetime.now(tz) + timedelta(seconds=step)

_clock.datetime = _Stepped
"""


def lease(hub: RunningHub, name: str) -> tuple[Reservation, float]:
    """A lease whose server is up, and the monotonic moment of its end."""
    person = Person(hub, name)
    made = person.reserve(gpu_type="cpu-x86", gpus=0, hours=SECONDS / 3600)
    found = person.until_state(made.id, State.ACTIVE)
    assert found.expires_at is not None
    left = (found.expires_at - datetime.now(UTC)).total_seconds()
    return found, time.monotonic() + left


def case(name: str, number: int, happens: Callable[[RunningHub], None]) -> float:
    """The latest end of some leases during which something happens, in seconds after their time;
    infinite where one did not end."""
    hub = RunningHub(hub_config=LIGHT_SERVERS, service_config=f"{SHORT}\n{CLOCK}")
    try:
        hub.start()
        database = Database(hub)
        leases = [lease(hub, f"person-{at}") for at in range(number)]
        happens(hub)
        ended: dict[str, float] = {}

        def look() -> bool:
            running = marked(hub)
            for found, end in leases:
                if found.id not in running and found.id not in ended:
                    ended[found.id] = time.monotonic() - end
            return len(ended) == len(leases)

        until(look, "all have ended", patience=2 * SECONDS + 30, pause=0.05)
        until(lambda: _over(database), "the database says so", patience=30)
        database.close()
        late, early = max(ended.values()), min(ended.values())
        print(
            f"{name}: {number} leases of {SECONDS} s ended between {early:+.2f} and {late:+.2f} s"
        )
        return late if early > -GOAL else float("inf")
    except AssertionError as error:
        print(f"{name}: {error}")
        return float("inf")
    finally:
        hub.remove()


def _over(database: Database) -> bool:
    rows = database.rows("SELECT state FROM reservations")
    return all(State(row["state"]) in FINAL for row in rows)


def both_dead(hub: RunningHub) -> None:
    hub.end("proxy", signal.SIGKILL)
    hub.end("hub", signal.SIGKILL)


def stepped(seconds: float) -> Callable[[RunningHub], None]:
    def step(hub: RunningHub) -> None:
        (hub.home / "step").write_text(str(seconds))

    return step


def main() -> int:
    here()
    print(machine())
    return main_on_cluster(LEASES) if on_cluster.WANTED else main_here(LEASES)


def main_on_cluster(number: int) -> int:
    latest = on_cluster.ends(number, SECONDS)
    worst = max(latest.values())
    told = " ".join(f"{name.replace(' ', '-')}={late:+.2f}s" for name, late in latest.items())
    print(
        f"R4 latest-end={worst:+.2f}s {told} cases={len(latest)}x{number} (real cluster)"
        f" load={os.getloadavg()[0]:.1f} goal {GOAL:.0f}s {judged(worst)}"
    )
    return 0 if worst <= GOAL else 1


def main_here(number: int) -> int:
    cases = {
        "Hub and proxy dead": both_dead,
        "clock an hour ahead": stepped(3600),
        "clock an hour behind": stepped(-3600),
    }
    latest = {name: case(name, number, happens) for name, happens in cases.items()}
    worst = max(latest.values())
    print(
        f"R4 latest-end={worst:+.2f}s cases={len(cases)}x{number} api-server=CLUSTER=1 goal"
        f" {GOAL:.0f}s {judged(worst)} (without a cluster)"
    )
    return 0 if worst <= GOAL else 1


def judged(worst: float, number: int = LEASES, seconds: int = SECONDS) -> str:
    """Only the full size meets the goal."""
    return verdict(good=worst <= GOAL, full=number >= FULL[0] and seconds >= FULL[1])


if __name__ == "__main__":
    sys.exit(main())
