"""How soon another replica answers in the place of the one that led, by what became of that.

Two replicas with the default times on one PostgreSQL, and a real Hub. The clock runs from the
signal (or the cut) to the answer of the one that stood by to a request that only a leader answers,
which is sent at once. `ROUNDS` is how often each is done.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import httpx

from benchmarks.campaign import machine, size
from tests.e2e.conftest import LIGHT_SERVERS, SHORT
from tests.e2e.replicas import Replica, ReplicatedHub, replicated
from tests.e2e.waiting import until
from tests.fixtures.postgres import PostgresServer

ROUNDS = size("ROUNDS", 10, 3)
LEAD_SECONDS = 6.0


def _killed(leader: Replica) -> Callable[[], None]:
    leader.lose()
    return leader.start


def _frozen(leader: Replica) -> Callable[[], None]:
    process = leader.process
    process.suspend()
    return process.resume


def _cut_off(leader: Replica) -> Callable[[], None]:
    leader.wire.cut()
    return leader.wire.mend


def _ended(leader: Replica) -> Callable[[], None]:
    ending = leader.ask_to_end()

    def again() -> None:
        ending.wait(30)
        leader.start()

    return again


WAYS = {"killed": _killed, "frozen": _frozen, "cut off": _cut_off, "ended": _ended}


def _round(hub: ReplicatedHub, token: str, way: Callable[[Replica], Callable[[], None]]) -> float:
    leader, standby = hub.leader(), hub.standby()
    url = f"{standby.url}/services/gpudev/api/v1/reservations"
    own = {"Authorization": f"token {token}"}
    begun = time.monotonic()
    back = way(leader)
    until(
        lambda: httpx.get(url, headers=own, timeout=60, trust_env=False).is_success,
        "it is answered",
        pause=0.01,
    )
    until(standby.leads, "the other leads", pause=0.01)
    took = time.monotonic() - begun
    back()
    until(lambda: not leader.leads() and leader.health() is not None, "it stands by")
    return took


def main() -> int:
    print(machine(), flush=True)
    server = PostgresServer()
    try:
        server.start()
        with replicated(
            server, hub_config=LIGHT_SERVERS, service_config=SHORT, lead_seconds=LEAD_SECONDS
        ) as hub:
            token = hub.user("ada")
            for name, way in WAYS.items():
                took = sorted(_round(hub, token, way) for _ in range(ROUNDS))
                print(
                    f"{name}: median {statistics.median(took):.2f} s,"
                    f" {took[0]:.2f} to {took[-1]:.2f} s in {ROUNDS} rounds",
                    flush=True,
                )
    finally:
        server.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
