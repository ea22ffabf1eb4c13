"""A flood of anonymous requests: what others, the log and the memory notice of it.

300 requests a second without a token, with nonsense for one, with giant names and paths go through
the Hub's proxy from a process of their own, while somebody with a token asks as before. Revocation
within five seconds is tested in tests/ssh and tests/lab. `FLOOD_SECONDS` changes the length.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import httpx

from benchmarks.campaign import machine, percentile, size
from benchmarks.ssh_peers import here
from gpudev_service.config import GpuDevWeb
from tests.fixtures.hub import RunningHub

RATE = 300
SECONDS = size("FLOOD_SECONDS", 300, 10)
CONNECTIONS = 30
#: How often somebody else asks, per second.
OTHERS = 10
GOAL_RATIO, GOAL_BYTES, GOAL_MEMORY = 2.0, 1024, 50.0
PATHS = (
    "/services/gpudev/api/v1/reservations",
    "/services/gpudev/api/v1/reservations?user=" + "x" * 4_000,
    "/services/gpudev/api/v1/users/" + "y" * 2_000 + "/ssh-keys",
    "/services/gpudev/api/v1/nothing",
    "/services/gpudev/api/v1/health",
    "/services/gpudev/reservations",
)
TOKENS = ("", "Authorization: token nonsense\r\n", f"Authorization: token {'z' * 3_000}\r\n")


def flood(url: str, seconds: float, told: Connection) -> None:
    """Asks for `seconds` and tells how often, with which answers."""
    told.send(asyncio.run(_flood(url, seconds)))


async def _flood(url: str, seconds: float) -> Counter[str]:
    parts, answers = urlsplit(url), Counter[str]()
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        at = time.monotonic() + number / RATE
        while at < end:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            at += CONNECTIONS / RATE
            path, token = PATHS[number % len(PATHS)], TOKENS[number % len(TOKENS)]
            number += 7
            try:
                status = await _ask(parts.hostname or "", parts.port or 80, path, token)
            except OSError as error:
                status = type(error).__name__
            answers[status] += 1

    await asyncio.gather(*map(one, range(CONNECTIONS)))
    return answers


async def _ask(host: str, port: int, path: str, token: str) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{token}\r\n"
        writer.write(head.encode())
        answer = await reader.read()
        return answer[9:12].decode() or "nothing"
    finally:
        writer.close()


def others(hub: RunningHub, token: str, seconds: float) -> list[float]:
    """How long each call of somebody with a token took."""
    taken, end = [], time.monotonic() + seconds
    url = f"{hub.service}/api/v1/reservations"
    with httpx.Client(trust_env=False, timeout=60) as http:
        while time.monotonic() < end:
            begin = time.monotonic()
            http.get(url, headers={"Authorization": f"token {token}"}).raise_for_status()
            taken.append(time.monotonic() - begin)
            time.sleep(max(0.0, 1 / OTHERS - taken[-1]))
    return taken


def cpu(hub: RunningHub) -> dict[str, float]:
    """Processor seconds that each part has used."""
    used = {part: hub.process(part).cpu_times() for part in ("service", "hub", "proxy")}
    return {part: times.user + times.system for part, times in used.items()}


def p99(taken: list[float]) -> float:
    return percentile(taken, 0.99)


def main() -> int:
    here()
    print(machine())
    limits = (
        f"c.GpuDevWeb.anonymous_rate = {GpuDevWeb.anonymous_rate.default_value}\n"
        f"c.GpuDevWeb.anonymous_burst = {GpuDevWeb.anonymous_burst.default_value}\n"
    )
    hub = RunningHub(service_config=limits)
    try:
        hub.start()
        token = hub.user("ada")
        others(hub, token, 2)
        alone = others(hub, token, SECONDS)
        service, log = hub.process("service"), hub.home / "hub.log"
        memory, written = service.memory_info().rss, log.stat().st_size
        spent = cpu(hub)
        mine, theirs = multiprocessing.Pipe()
        flooding = multiprocessing.Process(target=flood, args=(hub.url, SECONDS, theirs))
        flooding.start()
        beside = others(hub, token, SECONDS)
        answers: Counter[str] = mine.recv()
        flooding.join()
        busy = {part: (after - spent[part]) / SECONDS for part, after in cpu(hub).items()}
        grown = (service.memory_info().rss - memory) / 2**20
        own = len(beside)
        bytes_each = (log.stat().st_size - written) / max(answers.total() + own, 1)
    finally:
        hub.remove()
    ratio = p99(beside) / p99(alone)
    rate = answers.total() / SECONDS
    print(
        f"{answers.total()} anonymous requests in {SECONDS} s, answers {dict(answers)}; others"
        f" p50 {statistics.median(alone) * 1e3:.1f} and {statistics.median(beside) * 1e3:.1f} ms,"
        f" p99 {p99(alone) * 1e3:.1f} and {p99(beside) * 1e3:.1f} ms; of a core used meanwhile:"
        f" {', '.join(f'{part} {share:.2f}' for part, share in busy.items())}"
    )
    good = ratio <= GOAL_RATIO and bytes_each <= GOAL_BYTES and grown <= GOAL_MEMORY
    full = SECONDS >= 300 and rate >= 0.95 * RATE
    print(
        f"R12 p99-ratio={ratio:.2f} log={bytes_each:.0f}B/request memory={grown:+.1f}MB"
        f" rate={rate:.0f}/s for {SECONDS}s goal {GOAL_RATIO:.0f}x,{GOAL_BYTES}B,"
        f"{GOAL_MEMORY:.0f}MB at {RATE}/s for 300s {'met' if full and good else 'missed'}"
        f"{' (within, in this size)' if good and not full else ''}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
