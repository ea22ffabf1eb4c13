"""Durable accepted reservations a second through the API, on each database, and parallel `sbatch`.

64 clients on connections that are kept, each with a token of its own of a real Hub, ask the service
for reservations of mixed types, sizes and lengths: each is validated, admitted, planned behind all
before it and committed (SQLite with synchronous=FULL, PostgreSQL with fsync) before it is answered.
Each client has asked for five before. The queue grows meanwhile, as nothing ends; servers are not
started. Asked directly, not through the Hub's proxy. A second figure is with an Idempotency-Key on
each call, as our own clients send it. The databases and `sbatch` take turns, and medians are
compared. `COUNT` changes how many, `DATABASES` on what, `TURNS` how often.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from benchmarks import races, slurm
from benchmarks.campaign import machine, percentile, size, verdict
from benchmarks.cores import Cores
from benchmarks.ssh_peers import here
from tests.fixtures.hub import RunningHub
from tests.fixtures.postgres import PostgresServer

CLIENTS = 64
COUNT = size("COUNT", 5_000, 400)
#: What each client asks for before it is measured.
WARM = 5
KEYED = size("KEYED", 1_000, 200)
SBATCH = size("SBATCH", 1_000, 200)
TURNS = size("TURNS", 3, 1)
GOALS = {"postgresql": 430.0, "sqlite": 300.0}
GOAL_P99 = 0.100
TYPES = ("h100", "a100", "l40s", "t4")
NODES = 25
PATH = "/services/gpudev/api/v1/reservations"
CONFIG = f"""
import asyncio
from gpudev_service.loops import driving

async def _nobody_starts(ctx, key):
    await asyncio.Event().wait()  # as long as a real start takes, and longer

driving.begin = _nobody_starts
c.GpuDev.gpu_types = {{
    name: {{"gpus_per_node": 8, "cpus": 192, "memory_gb": 2048}} for name in {TYPES!r}
}}
c.GpuDev.nodes = [
    {{"name": f"{{name}}-{{at}}", "gpu_type": name, "simulated": True}}
    for name in {TYPES!r} for at in range({NODES})
]
"""


def asked(rng: random.Random) -> bytes:
    """The body of one request."""
    body = {
        "gpu_type": rng.choice(TYPES),
        "gpus": rng.choice((1, 1, 2, 4, 8)),
        "hours": rng.choice((0.5, 1, 2, 4, 8, 24)),
        "name": f"run {rng.randrange(10_000)}",
    }
    return json.dumps(body).encode()


class Load:
    """The clients, in a process of their own."""

    def __init__(self, port: int, tokens: list[str], count: int, *, keyed: bool) -> None:
        self._port, self._tokens, self._left, self._keyed = port, tokens, count, keyed
        self.taken: list[float] = []
        self.answers: Counter[str] = Counter()
        self.began = self.ended = 0.0

    async def run(self) -> None:
        # Some calls each first: connections are open, tokens known and statements prepared, as in
        # the middle of a day.
        await asyncio.gather(*(self._client(at, warm=True) for at in range(CLIENTS)))
        left, self._left = self._left, CLIENTS * WARM
        await asyncio.gather(*(self._client(at, warm=False) for at in range(CLIENTS)))
        self._left = left
        self.taken.clear()
        self.answers.clear()
        self.began = time.monotonic()
        await asyncio.gather(*(self._client(at, warm=False) for at in range(CLIENTS)))
        self.ended = time.monotonic()

    async def _client(self, at: int, *, warm: bool) -> None:
        rng = random.Random(at)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += f"Authorization: token {self._tokens[at]}\r\n"
        while warm or self._left > 0:
            if warm:
                first = f"GET {PATH}?limit=1 HTTP/1.1\r\nHost: x\r\n"
                first += f"Authorization: token {self._tokens[at]}\r\n\r\n"
                await _answer(reader, writer, first.encode())
                break
            self._left -= 1
            body = asked(rng)
            key = f"Idempotency-Key: {uuid.uuid4().hex}\r\n" if self._keyed else ""
            begin = time.monotonic()
            status = await _answer(
                reader, writer, f"{head}{key}Content-Length: {len(body)}\r\n\r\n".encode() + body
            )
            self.taken.append(time.monotonic() - begin)
            self.answers[status] += 1
        writer.close()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> str:
    """Sends a request and reads the whole answer; its status."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next(
        int(line.split(":")[1])
        for line in head.lower().split("\r\n")
        if line.startswith("content-length:")
    )
    await reader.readexactly(length)
    return head[9:12]


def load(port: int, tokens: list[str], count: int, keyed: bool, told: Connection) -> None:
    made = Load(port, tokens, count, keyed=keyed)
    asyncio.run(made.run())
    told.send((made.ended - made.began, made.taken, made.answers))
    told.recv()  # until it has been seen what this process has used


@contextmanager
def installation(name: str) -> Iterator[RunningHub]:
    server = PostgresServer(durable=True) if name == "postgresql" else None
    config = CONFIG
    hub: RunningHub | None = None
    try:
        if server is not None:
            server.start()
            config += f"\nc.GpuDev.db_url = {server.url(server.create_database())!r}\n"
        hub = RunningHub(service_config=config)
        hub.start()
        yield hub
    finally:
        if hub is not None:
            hub.remove()
        if server is not None:
            server.remove()


def once(hub: RunningHub, tokens: list[str], count: int, *, keyed: bool) -> tuple[float, float]:
    """(Accepted reservations a second, p99 in seconds) of `count` calls; prints more."""
    mine, theirs = multiprocessing.Pipe()
    cores = Cores()
    loading = multiprocessing.Process(
        target=load, args=(hub.ports.service, tokens, count, keyed, theirs)
    )
    loading.start()
    seconds, taken, answers = mine.recv()
    parts = cores.since().items()
    mine.send(None)
    loading.join()
    each = ", ".join(f"{name} {1e3 * spent / max(answers['201'], 1):.1f}" for name, spent in parts)
    rate = answers["201"] / seconds
    p50, p90, p99 = (percentile(taken, share) for share in (0.5, 0.9, 0.99))
    print(
        f"  {'with' if keyed else 'without'} keys: {answers['201']} accepted in {seconds:.1f} s:"
        f" {rate:.0f}/s, p50 {p50 * 1e3:.0f} ms, p90 {p90 * 1e3:.0f} ms,"
        f" p99 {p99 * 1e3:.0f} ms of {len(taken)}; answers {dict(answers)}; ms of a core for each:"
        f" {each}; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return rate, p99


def measure(name: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Without keys and with them: (accepted reservations a second, p99 in seconds)."""
    with installation(name) as hub:
        tokens = [hub.user(f"u{at}") for at in range(CLIENTS)]
        print(f"{name}:", flush=True)
        return (
            once(hub, tokens, COUNT, keyed=False),
            once(hub, tokens, KEYED, keyed=True),
        )


def sbatch() -> float | None:
    """Accepted jobs a second of parallel `sbatch`, or None where there is no Slurm."""
    if lacking := slurm.missing():
        print(f"sbatch not measured: not installed: {lacking}")
        return None
    rng = random.Random(1)
    jobs = [
        slurm.Job(1, rng.choice((1, 1, 2, 4, 8)), rng.choice((30, 60, 120, 240)))
        for _ in range(SBATCH)
    ]
    with slurm.Slurm(NODES * len(TYPES)) as controller:
        begin = time.monotonic()
        controller.submit(jobs, at_once=CLIENTS)
        rate = SBATCH / (time.monotonic() - begin)
    print(f"sbatch, {CLIENTS} at once: {rate:.0f}/s; load {os.getloadavg()[0]:.1f}", flush=True)
    return rate


def main() -> int:
    here()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}; {CLIENTS} clients, {NODES} nodes of 8 of")
    print(f"each of {len(TYPES)} types; {COUNT} calls without keys, then {KEYED} with keys")
    wanted = os.environ.get("DATABASES")
    names = wanted.split(",") if wanted else races.databases()
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    keyed: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    peers: list[float] = []
    for _ in range(TURNS):
        for name in names:
            for found, kept in zip(measure(name), (turns, keyed), strict=True):
                kept[name].append(found)
        if (rate := sbatch()) is not None:
            peers.append(rate)
    plain, with_keys = medians(turns), medians(keyed)
    peer = statistics.median(peers) if peers else None
    good = is_good(plain, peer)
    full = COUNT >= 5_000 and TURNS > 1 and len(plain) == len(races.ALL)
    print(
        f"P4 {_shown(plain)} (with keys, not judged: {_shown(with_keys)})"
        f" sbatch={'none' if peer is None else f'{peer:.0f}/s'} medians of {TURNS} turns"
        f" goal {GOALS['postgresql']:.0f}/s,{GOALS['sqlite']:.0f}/s,"
        f"p99 {GOAL_P99 * 1e3:.0f}ms,1x sbatch"
        f" {verdict(good=good, full=full)}"
    )
    return 0


Figures = dict[str, tuple[float, float]]


def medians(turns: dict[str, list[tuple[float, float]]]) -> Figures:
    """Of each database, over the turns."""
    return {
        name: (statistics.median(r for r, _ in each), statistics.median(p for _, p in each))
        for name, each in turns.items()
    }


def is_good(found: Figures, peer: float | None) -> bool:
    within = all(rate >= GOALS[name] and p99 <= GOAL_P99 for name, (rate, p99) in found.items())
    return within and peer is not None and all(rate >= peer for rate, _ in found.values())


def _shown(found: Figures) -> str:
    return " ".join(f"{name}={r:.0f}/s p99={p * 1e3:.0f}ms" for name, (r, p) in found.items())


if __name__ == "__main__":
    sys.exit(main())
