"""What 1,000 open event streams see of an event with 10,000 waiting, and how long after its answer.

A real Hub and a real service with R5's full database; ten streams for each of 100 people, each with
a token of their own, read by one process beside the service. Nodes are closed and opened again,
which moves promises, and people reserve. Asked directly, not through the Hub's proxy.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from benchmarks import r5
from tests.fixtures.hub import ADMIN, RunningHub

PATH = "/services/gpudev/api/v1"
STREAMS = 1000
PEOPLE = 100
#: Seconds without a message after which an event has been told to everybody.
QUIET = 1.0
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
            self._seen.at += [now] * data.count(b"\ndata: ")
            return
        self._rest = self._rest[-len(_BEGUN) :] + data
        if _BEGUN in self._rest:
            self._live = True
            self._seen.begun += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.lost += 1


@dataclass
class Kind:
    """Of one kind of event: seconds until its answer, messages, seconds from answer to each."""

    answered: list[float] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    after: list[float] = field(default_factory=list)


async def _watched(hub: RunningHub, tokens: list[str], events: int) -> dict[str, Kind]:
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
                await _one(kinds.setdefault(name, Kind()), call, seen)
    print(f"{seen.lost} streams were ended")
    return kinds


async def _one(kind: Kind, call: Any, seen: Seen) -> None:
    seen.at.clear()
    begin = time.monotonic()
    answer = await call
    answered = time.monotonic()
    answer.raise_for_status()
    while time.monotonic() - max([answered, *seen.at[-1:]]) < QUIET:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    kind.answered.append(answered - begin)
    kind.messages.append(len(seen.at))
    kind.after += [max(0.0, at - answered) for at in seen.at]


def measure(events: int) -> float:
    """p99 in seconds from an event's answer to a message about it, over all kinds; prints more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the service, too
    with r5.installation("sqlite") as (hub, url):
        hub.start()
        tokens = [hub.user(f"user-{at}") for at in range(PEOPLE)]
        r5.wait_until(lambda: asyncio.run(r5.unplanned(url)) == 0, time.monotonic())
        kinds = asyncio.run(_watched(hub, tokens, events))
    everything = [after for kind in kinds.values() for after in kind.after]
    for name, kind in kinds.items():
        print(
            f"{name:9}: answered p50 {statistics.median(kind.answered) * 1e3:.0f} ms,"
            f" {statistics.median(kind.messages):.0f} messages,"
            f" after the answer p50 {_p(kind.after, 50):.0f} ms, p99 {_p(kind.after, 99):.0f} ms;"
            f" load {os.getloadavg()[0]:.1f}"
        )
    return _p(everything, 99) / 1e3


def _p(values: list[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    if len(values) < 2:
        return 0.0
    return statistics.quantiles(values, n=100)[percent - 1] * 1e3


if __name__ == "__main__":
    print(json.dumps({"p99": measure(20)}))
