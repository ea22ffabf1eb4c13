"""Many people who wait in the queue at once: the Hub stays quick, and nobody asks on their own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from gpudev_client.states import State
from tests.fixtures.hub import RunningHub

from .conftest import LIGHT_SERVERS, SHORT
from .people import Person
from .waiting import until

pytestmark = [pytest.mark.hub, pytest.mark.slow]

PEOPLE, EACH = 20, 10
#: Seconds for which the waiting is watched. The spawner may look at everything once in between.
WATCHED, REQUESTS = 15.0, 10

#: Connections that the client keeps for its next requests, however many wait.
POOL = 20

_AT_ONCE = """
# The answer to a start comes at once, not after ten seconds in which it might be through.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
"""


@pytest.fixture
def crowded() -> Iterator[RunningHub]:
    hub = RunningHub(hub_config=f"{LIGHT_SERVERS}\n{_AT_ONCE}", service_config=SHORT)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


def test_two_hundred_wait_and_the_hub_answers(crowded: RunningHub) -> None:
    holder = Person(crowded, "holder")
    held = holder.reserve(hours=1)
    holder.until_state(held.id, State.ACTIVE)
    people = [Person(crowded, f"waiter-{number}") for number in range(PEOPLE)]

    _wait(people[0], 0)
    until(lambda: _queued(holder) == 1, "the first one waits")
    alone = _connections(crowded)
    places = [(one, number) for one in people for number in range(EACH)][1:]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda place: _wait(*place), places))
    until(
        lambda: _queued(holder) == PEOPLE * EACH, "all of them wait", seen=lambda: _queued(holder)
    )

    # What they came with has been answered; now they only wait.
    _until_quiet(crowded)
    until(
        lambda: _connections(crowded) <= alone + POOL,
        "the connections of those who came are gone",
        seen=lambda: _connections(crowded),
    )
    before = _asked(crowded)
    _watch(crowded)
    assert _asked(crowded) - before <= REQUESTS
    assert _connections(crowded) <= alone + POOL
    pending = [
        name
        for one in people
        for name, row in crowded.api("GET", f"users/{one.name}")["servers"].items()
        if row["pending"] == "spawn"
    ]
    assert len(pending) == PEOPLE * EACH

    # The right one wakes up, and only that one.
    holder.cancel(held.id)
    first = people[0].of_server("s0")
    assert first is not None
    people[0].until_state(first.id, State.ACTIVE)
    assert _queued(holder) == PEOPLE * EACH - 1


def _wait(person: Person, number: int) -> None:
    answer = person.start(f"s{number}", {"gpu_type": "t4-small", "hours": 1})
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text


def _queued(anybody: Person) -> int:
    offers = anybody.call("GET", "/availability?gpu_type=t4-small").json()["items"]
    return int(offers[0]["queue_length"])


def _connections(hub: RunningHub) -> int:
    """Open connections of the Hub's process to the service."""
    return sum(
        1
        for connection in hub.process("hub").net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
        and connection.raddr
        and connection.raddr.port == hub.ports.service
    )


def _asked(hub: RunningHub) -> int:
    """How many requests of the Hub's spawner the service has logged."""
    lines = (line for line in hub.logs().splitlines() if '"gpudev.access"' in line)
    return sum(1 for line in lines if json.loads(line)["caller"] == "service:gpudev-spawner")


def _until_quiet(hub: RunningHub) -> None:
    """Waits until two looks in a row find no new request: a start asks three times in all."""
    seen = -1

    def quiet() -> bool:
        nonlocal seen
        before, seen = seen, _asked(hub)
        return seen == before

    until(quiet, "those who came have been answered", pause=2, seen=lambda: seen)


def _watch(hub: RunningHub) -> None:
    """Asks the Hub again and again while everybody waits; a Hub that is held up does not answer."""
    end = time.monotonic() + WATCHED

    def ask() -> bool:
        assert hub.api("GET", "")["version"]
        return time.monotonic() >= end

    until(ask, "the watch is over", patience=3 * WATCHED)
