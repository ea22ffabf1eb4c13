"""A flood of anonymous requests, and what was taken away: what others, log and memory notice.

300 requests a second without a token, with nonsense for one, with giant names and paths go through
the Hub's proxy from a process of their own, while somebody with a token asks service and Hub as
before: once all at the service, once half of them at the Hub's own pages and API. The memory of
service, Hub and proxy is looked at all the time, and each path is asked by itself for what it
leaves in the logs. Then people are removed and leases end (benchmarks/revocation.py).

Hub and proxy are not ours: where they go beyond a limit by themselves, the last line says so beside
the verdict on what is ours. `FLOOD_SECONDS` changes the length, `PARTS=flood` or `revocation` does
one of them.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks import anonymous, campaign, revocation
from benchmarks.anonymous import HUB, RATE, SERVICE
from benchmarks.campaign import SMALL, machine, percentile, size
from benchmarks.ssh_peers import here
from gpudev_service.config import GpuDevWeb
from tests.fixtures.hub import RunningHub

SECONDS = size("FLOOD_SECONDS", 300, 10)
PARTS = os.environ.get("PARTS", "flood,revocation").split(",")
#: What share of each flood is the Hub's.
SHARES = {"service": 0.0, "half Hub": 0.5}
#: How often somebody else asks service and Hub each, per second.
OTHERS = 10
#: Seconds between two looks at the memory, and in which a log line is written for sure.
SAMPLE, WRITTEN = 0.25, 0.3
#: How often each path is asked for its log alone.
ALONE = 3
GOAL_RATIO, GOAL_BYTES, GOAL_MEMORY, GOAL_REVOKED = 2.0, 1024.0, 50.0, 5.0
PROXY = "proxy"
MEGABYTE = 2**20


@dataclass(frozen=True)
class Figure:
    """One measured value and its limit; `ours` is what this project answers for."""

    name: str
    value: float
    goal: float
    unit: str
    ours: bool

    @property
    def good(self) -> bool:
        return self.value <= self.goal

    def __str__(self) -> str:
        return f"{self.name}={self.value:.{0 if self.unit == 'B' else 2}f}{self.unit}"


def verdict(figures: list[Figure], *, full: bool) -> str:
    """The end of the last line: what holds of ours, and where Hub or proxy go beyond a limit."""
    good = all(each.good for each in figures if each.ours)
    beyond = [str(each) for each in figures if not each.good and not each.ours]
    said = campaign.verdict(good=good, full=full)
    ours = [str(each) for each in figures if not each.good and each.ours]
    said += f"; beyond: {' '.join(ours)}" if ours else ""
    return f"{said}; beyond by Hub and proxy themselves: {' '.join(beyond) or 'nothing'}"


@dataclass
class Flood:
    """What one flood did. `ratio` is by whom others asked, `grown` by part in MB, `written` by
    whose lines they are in bytes, `asked` how often each was asked, by others too."""

    rate: float
    ratio: dict[str, float]
    grown: dict[str, float]
    written: dict[str, int]
    asked: dict[str, int] = field(default_factory=dict)

    def each(self, part: str) -> float:
        """Bytes of log for a request to it; the proxy passes all of them on."""
        asked = sum(self.asked.values()) if part == PROXY else self.asked[part]
        return self.written[part] / max(1, asked)


class Logs:
    """What service, Hub and proxy write, in bytes. The first two share a file: the service's lines
    are JSON objects, each of one line."""

    def __init__(self, hub: RunningHub) -> None:
        self._files = {part: hub.home / f"{part}.log" for part in (HUB, PROXY)}
        self._read = dict.fromkeys(self._files, 0)
        self.since()

    def since(self) -> dict[str, int]:
        """The bytes since the last question."""
        found = dict.fromkeys((SERVICE, HUB, PROXY), 0)
        for part, path in self._files.items():
            with path.open("rb") as lines:
                lines.seek(self._read[part])
                for line in lines:
                    found[whose(part, line)] += len(line)
                self._read[part] = lines.tell()
        return found


def whose(part: str, line: bytes) -> str:
    """Who has written a line of a log. The Hub's own JSON has a brace alone in its line."""
    return SERVICE if part == HUB and line.startswith(b'{"') else part


@contextmanager
def memory(hub: RunningHub) -> Iterator[dict[str, float]]:
    """By how much each part grew at most, in MB, which is there after the end."""
    parts = {part: hub.process(part) for part in (SERVICE, HUB, PROXY)}
    before = {part: process.memory_info().rss for part, process in parts.items()}
    grown, over = dict.fromkeys(parts, -math.inf), threading.Event()

    def look() -> None:
        while True:
            for part, process in parts.items():
                now = (process.memory_info().rss - before[part]) / MEGABYTE
                grown[part] = max(grown[part], now)
            if over.wait(SAMPLE):
                return

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield grown
        finally:
            over.set()
        looking.result()


def others(hub: RunningHub, token: str, seconds: float) -> dict[str, list[float]]:
    """How long each call of somebody with a token took, at the service and at the Hub."""
    urls = {SERVICE: f"{hub.service}/api/v1/reservations", HUB: f"{hub.url}/hub/api/user"}
    with ThreadPoolExecutor(len(urls)) as pool:
        asking = {at: pool.submit(_calls, url, token, seconds) for at, url in urls.items()}
        return {at: calls.result() for at, calls in asking.items()}


def _calls(url: str, token: str, seconds: float) -> list[float]:
    taken, end = [], time.monotonic() + seconds
    with httpx.Client(trust_env=False, timeout=anonymous.PATIENCE) as http:
        while time.monotonic() < end:
            begin = time.monotonic()
            http.get(url, headers={"Authorization": f"token {token}"}).raise_for_status()
            taken.append(time.monotonic() - begin)
            time.sleep(max(0.0, 1 / OTHERS - taken[-1]))
    return taken


def cpu(hub: RunningHub) -> dict[str, float]:
    """Processor seconds that each part has used."""
    used = {part: hub.process(part).cpu_times() for part in (SERVICE, HUB, PROXY)}
    return {part: times.user + times.system for part, times in used.items()}


def p99(taken: list[float]) -> float:
    return percentile(taken, 0.99)


def flooded(
    hub: RunningHub, token: str, name: str, alone: dict[str, list[float]], logs: Logs
) -> Flood:
    """One flood, and what others notice beside it."""
    logs.since()
    spent = cpu(hub)
    # A process of its own from its beginning: this one has threads by now.
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    arguments = (hub.url, SECONDS, theirs, SHARES[name])
    flooding = context.Process(target=anonymous.flood, args=arguments)
    with memory(hub) as grown:
        flooding.start()
        try:
            told(mine, "begun")
            beside = others(hub, token, SECONDS)
            answers: Counter[tuple[str, str]] = told(mine, "ended")
        finally:
            flooding.terminate()
            flooding.join()
    busy = {part: (after - spent[part]) / SECONDS for part, after in cpu(hub).items()}
    time.sleep(WRITTEN)
    asked = {at: len(taken) for at, taken in beside.items()}
    for (at, _), times in answers.items():
        asked[at] += times
    ratio = {at: p99(beside[at]) / p99(alone[at]) for at in beside}
    found = Flood(answers.total() / SECONDS, ratio, grown, logs.since(), asked)
    statuses = ", ".join(f"{at} {said}: {n}" for (at, said), n in sorted(answers.items()))
    print(f"{name}: {answers.total()} anonymous requests in {SECONDS} s, answers {statuses}")
    for at in beside:
        print(
            f"  others at the {at}: p50 {statistics.median(alone[at]) * 1e3:.1f} and"
            f" {statistics.median(beside[at]) * 1e3:.1f} ms, p99 {p99(alone[at]) * 1e3:.1f} and"
            f" {p99(beside[at]) * 1e3:.1f} ms ({ratio[at]:.2f}x)"
        )
    for part, share in busy.items():
        print(
            f"  {part}: {share:.2f} of a core, {grown[part]:+.1f} MB at most,"
            f" {found.each(part):.0f} bytes of log a request"
        )
    return found


def told(flooding: Connection, what: str) -> Any:
    """What the flood says next."""
    assert flooding.poll(2 * anonymous.PATIENCE), f"the flood has not {what}"
    return flooding.recv()


def longest(hub: RunningHub, logs: Logs) -> dict[str, float]:
    """For service and Hub, the most that one kind of request leaves in all logs together."""
    address = urlsplit(hub.url)
    found: dict[str, dict[str, float]] = {SERVICE: {}, HUB: {}}
    for one in anonymous.asks(hub.url):
        logs.since()
        for _ in range(ALONE):
            asyncio.run(anonymous.ask(address.hostname or "", address.port or 80, one))
        time.sleep(WRITTEN)
        found[one.at][one.name] = sum(logs.since().values()) / ALONE
    for at, named in found.items():
        ordered = sorted(named.items(), key=lambda item: -item[1])[:4]
        shown = ", ".join(f"{name} {each:.0f}" for name, each in ordered)
        print(f"bytes of log for one request to the {at}, the most: {shown}")
    return {at: max(named.values()) for at, named in found.items()}


def floods() -> tuple[list[Figure], float]:
    """The figures of both floods, and the lower rate of the two."""
    limits = (
        f"c.GpuDevWeb.anonymous_rate = {GpuDevWeb.anonymous_rate.default_value}\n"
        f"c.GpuDevWeb.anonymous_burst = {GpuDevWeb.anonymous_burst.default_value}\n"
    )
    hub = RunningHub(service_config=limits)
    try:
        hub.start()
        token, logs = hub.user("ada"), Logs(hub)
        most = longest(hub, logs)
        others(hub, token, 2)
        alone = others(hub, token, SECONDS)
        done = [flooded(hub, token, name, alone, logs) for name in SHARES]
    finally:
        hub.remove()
    return judged(done, most), min(each.rate for each in done)


def judged(done: list[Flood], most: dict[str, float]) -> list[Figure]:
    """The worst of all floods for each limit."""
    figures = []
    for part in (SERVICE, HUB, PROXY):
        ours = part == SERVICE
        if part != PROXY:
            worst = max(each.ratio[part] for each in done)
            figures.append(Figure(f"{part}-p99", worst, GOAL_RATIO, "x", ours))
        written = max(each.each(part) for each in done)
        figures.append(Figure(f"{part}-log", written, GOAL_BYTES, "B", ours))
        if part != PROXY:
            figures.append(Figure(f"{part}-log-of-one", most[part], GOAL_BYTES, "B", ours))
        grown = max(each.grown[part] for each in done)
        figures.append(Figure(f"{part}-memory", grown, GOAL_MEMORY, "MB", ours))
    return figures


def revoked() -> list[Figure]:
    """The slowest of each kind, after a removal and after a lease's end."""
    worst: dict[str, float] = {}
    for what, seconds in revocation.measure().items():
        moment, kind = what.split(": ")
        name = f"{moment}-{next(one for one in ('SSH', 'kernel', 'token') if one in kind)}"
        worst[name] = max(worst.get(name, -math.inf), *seconds)
    return [Figure(name, value, GOAL_REVOKED, "s", ours=True) for name, value in worst.items()]


def main() -> int:
    here()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    figures: list[Figure] = []
    full, rate = not SMALL and {"flood", "revocation"} <= set(PARTS), ""
    if "flood" in PARTS:
        figures, lowest = floods()
        rate = f" rate={lowest:.0f}/s for {SECONDS}s"
        full = full and SECONDS >= 300 and lowest >= 0.95 * RATE
    if "revocation" in PARTS:
        figures += revoked()
        full = full and revocation.ROUNDS >= revocation.FULL
    print(
        f"R12 {' '.join(map(str, figures))}{rate} goal {GOAL_RATIO:.0f}x,{GOAL_BYTES:.0f}B,"
        f"{GOAL_MEMORY:.0f}MB at {RATE}/s for 300s, revoked in {GOAL_REVOKED:.0f}s"
        f" {verdict(figures, full=full)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
