"""What 1,000 open event streams see of an event with 10,000 waiting, and how long after its answer.

A real Hub and a real service with R5's full database; ten streams for each of 100 people, each with
a token of their own, read by one process beside the service. Nodes are closed and opened again,
which moves promises, and people reserve. Asked directly, not through the Hub's proxy.

Each new line in the history of somebody who watches is to reach all of their streams: how many are
written down says how many messages have to come, and fewer than these are no figure.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import httpx
from sqlalchemy import func, select

from benchmarks import r5
from benchmarks.campaign import percentile
from gpudev_service.store.engine import Store
from gpudev_service.store.models import HistoryRow, ReservationRow
from tests.fixtures.hub import ADMIN, RunningHub

PATH = "/services/gpudev/api/v1"
STREAMS = 1000
PEOPLE = 100
#: Seconds without a message after which an event has been told to everybody.
QUIET = 1.0
_MESSAGE = b"\ndata: "
_BEGUN = b": this was the present state\n\n"


@dataclass
class Seen:
    """When messages came, of all streams."""

    at: list[float] = field(default_factory=list)
    begun: int = 0
    lost: int = 0


class Stream(asyncio.Protocol):
    """One reader of the event stream."""

    def __init__(self, seen: Seen, token: str) -> None:
        self._seen, self._token, self._rest, self._live = seen, token, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        head = (
            f"GET {PATH}/events HTTP/1.1\r\nHost: x\r\nAuthorization: token {self._token}\r\n\r\n"
        )
        transport.write(head.encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if self._live:
            data = self._rest + data
            self._rest = data[1 - len(_MESSAGE) :]  # the beginning of one, or less
            self._seen.at += [now] * data.count(_MESSAGE)
            return
        self._rest = self._rest[-len(_BEGUN) :] + data
        if _BEGUN in self._rest:
            self._live, self._rest = True, b""
            self._seen.begun += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.lost += 1


@dataclass
class Kind:
    """Of one kind of event: seconds until its answer, messages, seconds from answer to each."""

    answered: list[float] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    missing: int = 0
    after: list[float] = field(default_factory=list)


class Written:
    """How many lines of history of those who watch there are."""

    def __init__(self, url: str, people: list[str]) -> None:
        self._store, self._people = Store(url), people

    async def lines(self) -> int:
        query = (
            select(func.count())
            .select_from(HistoryRow)
            .join(ReservationRow, ReservationRow.id == HistoryRow.reservation_id)
            .where(ReservationRow.user.in_(self._people))
        )
        async with self._store.reading() as session:
            return int(await session.scalar(query) or 0)

    async def close(self) -> None:
        await self._store.close()


async def _watched(
    hub: RunningHub, tokens: list[str], events: int, written: Written
) -> dict[str, Kind]:
    seen, loop, rng = Seen(), asyncio.get_running_loop(), random.Random(1)
    begin = time.monotonic()
    for at in range(STREAMS):
        token = tokens[at % len(tokens)]
        await loop.create_connection(partial(Stream, seen, token), "127.0.0.1", hub.ports.service)
        while at - seen.begun > 32 and not seen.lost:  # noqa: ASYNC110 - what others send is only to be looked at
            await asyncio.sleep(0.01)
    while seen.begun < STREAMS and not seen.lost:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.1)
    if seen.lost:
        raise RuntimeError(f"{seen.lost} streams were ended before all were open")
    print(f"{STREAMS} streams open after {time.monotonic() - begin:.1f} s", flush=True)
    kinds: dict[str, Kind] = {}
    headers = {"Authorization": f"token {hub.token(ADMIN)}"}
    base = f"http://127.0.0.1:{hub.ports.service}{PATH}"
    async with httpx.AsyncClient(trust_env=False, timeout=60, base_url=base) as http:
        for _ in range(events):
            node = f"n{rng.randrange(r5.NODES):05}"
            asked: dict[str, Any] = {"gpu_type": "h100", "gpus": rng.choice((1, 2, 4)), "hours": 1}
            own = {"Authorization": f"token {rng.choice(tokens)}"}
            calls = {
                "cordon": http.put(
                    f"/cluster/nodes/{node}/drain", json={"reason": "broken"}, headers=headers
                ),
                "uncordon": http.delete(f"/cluster/nodes/{node}/drain", headers=headers),
                "arrival": http.post("/reservations", json=asked, headers=own),
            }
            for name, call in calls.items():
                await _one(kinds.setdefault(name, Kind()), call, seen, written)
    await written.close()
    print(f"{seen.lost} streams were ended")
    return kinds


async def _one(kind: Kind, call: Any, seen: Seen, written: Written) -> None:
    before = await written.lines()
    seen.at.clear()
    begin = time.monotonic()
    answer = await call
    answered = time.monotonic()
    answer.raise_for_status()
    while time.monotonic() - max([answered, *seen.at[-1:]]) < QUIET:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    kind.answered.append(answered - begin)
    expected = (await written.lines() - before) * (STREAMS // PEOPLE)
    kind.messages.append(len(seen.at))
    kind.missing += max(0, expected - len(seen.at))
    kind.after += [max(0.0, at - answered) for at in seen.at]


@dataclass(frozen=True)
class Watched:
    """p99 in seconds from an event's answer to a message about it, over all kinds; of how many
    messages, and how many more there should have been."""

    p99: float
    messages: int
    missing: int

    def within(self, goal: float) -> bool:
        """Silence is not quick."""
        return self.messages > 0 and self.missing == 0 and self.p99 <= goal

    def __str__(self) -> str:
        return f"+{self.p99 * 1e3:.0f}ms of {self.messages} messages, {self.missing} missing"


def measure(events: int) -> Watched:
    """What the streams saw of so many events of each kind; prints more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the service, too
    with r5.installation("sqlite") as (hub, url):
        hub.start()
        tokens = [hub.user(f"user-{at}") for at in range(PEOPLE)]
        r5.until_planned(url)
        written = Written(url, [f"user-{at}" for at in range(PEOPLE)])
        kinds = asyncio.run(_watched(hub, tokens, events, written))
    return told(kinds)


def told(kinds: dict[str, Kind]) -> Watched:
    everything = [after for kind in kinds.values() for after in kind.after]
    missing = sum(kind.missing for kind in kinds.values())
    for name, kind in kinds.items():
        print(
            f"{name:9}: answered p50 {statistics.median(kind.answered) * 1e3:.0f} ms,"
            f" {statistics.median(kind.messages):.0f} messages, {kind.missing} missing of all,"
            f" after the answer p50 {_shown(kind.after, 0.5)}, p99 {_shown(kind.after, 0.99)}"
            f" of {len(kind.after)}; load {os.getloadavg()[0]:.1f}"
        )
    return Watched(percentile(everything, 0.99) if everything else inf, len(everything), missing)


def _shown(values: list[float], share: float) -> str:
    return f"{percentile(values, share) * 1e3:.0f} ms" if values else "none"


if __name__ == "__main__":
    print(measure(int(os.environ.get("EVENTS", "20"))))
