"""What 1,000 people who wait in the queue cost a real Hub: its latency, memory and connections.

`python -m benchmarks.hub_waiting` starts a Hub with proxy and service of its own on loopback, has
somebody hold the only GPU of a type, and lets everybody else wait for it by the Hub's own spawn.
`GET /hub/api` is timed through the proxy with nobody and with everybody waiting, in one run, one
request after the other. `SIZE=small` lets 100 wait. It ends by itself after a quarter of an hour.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType

import httpx
import psutil

from benchmarks.campaign import percentile
from tests.fixtures.hub import RunningHub

WAITING = 100 if os.environ.get("SIZE") == "small" else 1000
#: Requests that are timed, and those before them that are not.
TIMED, WARM_UP = 1000, 50
#: Seconds: the whole run at most, and a stretch in which nobody asks for anything.
LONGEST, IDLE = 900, 20.0
CLIENTS = 8
#: Users that are made with one call; the Hub answers nobody else meanwhile.
BATCH = 50

#: The answer to a start comes at once, not after the ten seconds in which it might be through, and
#: servers are JupyterHub's own without JupyterLab.
HUB = """
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.Spawner.environment["JUPYTERHUB_SINGLEUSER_APP"] = "jupyter_server.serverapp.ServerApp"
"""
MB = 1e6


@dataclass(frozen=True, slots=True)
class Figures:
    """One state of the Hub. Times are in milliseconds, memory in MB, `busy` in percent of a core
    while nobody asks."""

    p50: float
    p99: float
    worst: float
    hub: float
    service: float
    connections: int
    busy: float


def latencies(hub: RunningHub) -> list[float]:
    with httpx.Client(trust_env=False, timeout=30.0) as http:
        taken = []
        for _ in range(WARM_UP + TIMED):
            begin = time.perf_counter()
            http.get(f"{hub.url}/hub/api").raise_for_status()
            taken.append((time.perf_counter() - begin) * 1000)
    return taken[WARM_UP:]


def look(hub: RunningHub) -> Figures:
    process = hub.process("hub")
    before = process.cpu_times()
    time.sleep(IDLE)
    after = process.cpu_times()
    used = (after.user + after.system) - (before.user + before.system)
    taken = latencies(hub)
    connections = [
        c
        for c in process.net_connections("tcp")
        if c.status == psutil.CONN_ESTABLISHED and c.raddr and c.raddr.port == hub.ports.service
    ]
    return Figures(
        p50=statistics.median(taken),
        p99=percentile(taken, 0.99),
        worst=max(taken),
        hub=process.memory_info().rss / MB,
        service=hub.process("service").memory_info().rss / MB,
        connections=len(connections),
        busy=100 * used / IDLE,
    )


def hold(hub: RunningHub) -> str:
    """Somebody gets the only GPU; their token."""
    token = hub.user("holder")
    asked = {"gpu_type": "t4-small", "hours": 2}
    made = hub.call("POST", "/reservations", token, asked)
    made.raise_for_status()
    path = f"/reservations/{made.json()['id']}"
    while hub.call("GET", path, token).json()["state"] != "active":
        time.sleep(0.2)
    return token


def crowd(hub: RunningHub, token: str) -> float:
    """Lets everybody wait, and returns how many seconds it took until all of them did."""
    names = [f"waiter-{number:04}" for number in range(WAITING)]
    for first in range(0, WAITING, BATCH):
        hub.api("POST", "users", {"usernames": names[first : first + BATCH]})
    begin = time.monotonic()

    def start(name: str) -> None:
        hub.api("POST", f"users/{name}/server", {"gpu_type": "t4-small", "hours": 1})

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(start, names))
    while queued(hub, token) < WAITING:
        time.sleep(0.5)
    return time.monotonic() - begin


def queued(hub: RunningHub, token: str) -> int:
    answer = hub.call("GET", "/availability?gpu_type=t4-small", token)
    answer.raise_for_status()
    return int(answer.json()["items"][0]["queue_length"])


def pending(hub: RunningHub) -> int:
    """How many starts the Hub holds, page by page."""
    found, offset = 0, 0
    while users := hub.api("GET", f"users?state=active&limit=200&offset={offset}"):
        found += sum(row["pending"] == "spawn" for u in users for row in u["servers"].values())
        offset += len(users)
    return found


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {LONGEST} s")


def main() -> int:
    if shutil.which("configurable-http-proxy") is None:
        print("configurable-http-proxy is not on the path; `make setup` installs it")
        return 2
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores; Python {platform.python_version()}")
    hub = RunningHub(hub_config=HUB)
    try:
        hub.start()
        token = hold(hub)
        alone = look(hub)
        took = crowd(hub, token)
        print(f"{WAITING} came in {took:.0f} s by {CLIENTS} clients")
        together = look(hub)
        held = pending(hub)
    finally:
        hub.remove()
    columns = ("p50 ms", "p99 ms", "worst ms", "Hub MB", "service MB", "connections", "Hub busy %")
    print(f"{'waiting':>8}", *(f"{name:>11}" for name in columns))
    for waiting, seen in ((0, alone), (held, together)):
        print(
            f"{waiting:8} {seen.p50:11.1f} {seen.p99:11.1f} {seen.worst:11.1f} {seen.hub:11.0f}"
            f" {seen.service:11.0f} {seen.connections:11} {seen.busy:11.1f}"
        )
    print(
        f"with {held} waiting: p50 {together.p50 / alone.p50:.2f}x, p99"
        f" {together.p99 / alone.p99:.2f}x,"
        f" {1000 * (together.hub - alone.hub) / held:.0f} KB of the Hub each"
    )
    return 0 if held == WAITING else 1


if __name__ == "__main__":
    sys.exit(main())
