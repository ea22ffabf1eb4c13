"""The PostgreSQL of a running service is killed while people ask for GPUs, and comes back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fixtures.hub import RunningHub
from tests.fixtures.postgres import PostgresServer

from .conftest import LIGHT_SERVERS, SHORT
from .database import Database
from .invariants import assert_sound
from .people import Person
from .waiting import until

pytestmark = [pytest.mark.hub, pytest.mark.postgres, pytest.mark.slow]

#: How many are accepted on either side of the kill.
_MANY = 12


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that keeps what it has committed, as a real one does."""
    own = PostgresServer(durable=True)
    try:
        own.start()
        yield own
    finally:
        own.remove()


def test_what_was_accepted_outlives_a_killed_database(server: PostgresServer) -> None:
    url = server.url(server.create_database())
    hub = RunningHub(
        hub_config=LIGHT_SERVERS, service_config=f"{SHORT}\nc.GpuDev.db_url = {url!r}\n"
    )
    accepted: list[str] = []
    odd: list[tuple[int, str]] = []
    over = threading.Event()

    def asks(person: Person) -> None:
        while not over.is_set():
            answer = person.ask(hours=1)
            if answer.status_code == httpx.codes.CREATED:
                accepted.append(answer.json()["id"])
            elif answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                odd.append((answer.status_code, answer.text))

    try:
        hub.start()
        people = [Person(hub, f"asks-{number}") for number in range(3)]
        before = hub.process("service")
        with ThreadPoolExecutor(len(people)) as pool:
            asking = [pool.submit(asks, person) for person in people]
            try:
                until(lambda: len(accepted) >= _MANY, "some are accepted")
                server.stop(signal.SIGKILL)
                server.start()
                come = len(accepted)
                until(lambda: len(accepted) >= come + _MANY, "others are accepted afterwards")
            finally:
                over.set()
            for one in asking:
                one.result()
        assert not odd
        assert hub.process("service") == before, "it goes on without a start"
        database = Database(hub, url)
        try:
            assert_sound(hub, database, accepted)
        finally:
            database.close()
    finally:
        over.set()
        hub.remove()
