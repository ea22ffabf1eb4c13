"""Two at once for what only one can have: the last GPU, one disk. On both databases.

Requests go through the proxy with tokens of the Hub. Only the start of servers is left out, by a
line in the service's configuration: what is tested is who gets the lease, two hundred times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.fixtures.hub import RunningHub

from .database import Database, moment
from .invariants import of_database
from .people import Person
from .waiting import until

pytestmark = [pytest.mark.hub, pytest.mark.slow]

ROUNDS = 200
DISK_ROUNDS = 40

_NO_SERVERS = """
from gpudev_service.loops import driving

async def _nobody_starts(ctx, key):
    return None

driving.begin = _nobody_starts
"""


class Race:
    """A Hub on one database, with two people who ask for the same at the same moment."""

    def __init__(self, hub: RunningHub, database: Database) -> None:
        self.hub, self.database = hub, database
        self.people = (Person(hub, "ada"), Person(hub, "grace"))
        self._pool = ThreadPoolExecutor(2)

    def both(self, *asks: Callable[[], httpx.Response]) -> list[httpx.Response]:
        """The answers to two requests that are sent at the same moment."""
        start = Barrier(len(asks))

        def send(ask: Callable[[], httpx.Response]) -> httpx.Response:
            start.wait(30)
            return ask()

        return list(self._pool.map(send, asks))

    def held(self) -> list[str]:
        """Whose the GPU is: one entry per held unit of a t4-small."""
        rows = self.database.rows(
            "SELECT reservation_id FROM lease_units WHERE gpu_type = 't4-small'"
        )
        return [row["reservation_id"] for row in rows]

    def until_free(self, *owners: str) -> None:
        """Waits until none of these holds anything and all of them are over."""
        until(
            lambda: not self._live(owners),
            "what was cancelled is over",
            patience=30,
            pause=0.01,
            seen=lambda: self._live(owners),
        )

    def _live(self, owners: tuple[str, ...]) -> list[Any]:
        rows = self.database.rows("SELECT id, state FROM reservations WHERE ended_at IS NULL")
        return [row for row in rows if row["id"] in owners]

    def close(self) -> None:
        self._pool.shutdown()
        self.database.close()


@pytest.fixture
def race(database_url: str) -> Iterator[Race]:
    hub = RunningHub(service_config=f"c.GpuDev.db_url = {database_url!r}\n{_NO_SERVERS}")
    database = Database(hub, database_url.replace("+aiosqlite", ""))
    try:
        hub.start()
        racing = Race(hub, database)
        yield racing
        racing.close()
    finally:
        hub.remove()


def test_the_last_gpu_goes_to_exactly_one(race: Race) -> None:
    ada, grace = race.people
    wins = {ada.name: 0, grace.name: 0}
    for number in range(ROUNDS):
        answers = race.both(lambda: ada.ask(hours=1), lambda: grace.ask(hours=1))
        assert [a.status_code for a in answers] == [201, 201], [a.text for a in answers]
        found = [Reservation.model_validate(a.json()) for a in answers]
        assert sorted(r.state for r in found) == [State.PREPARING, State.QUEUED]
        winner, loser = sorted(found, key=lambda r: r.state)
        assert race.held() == [winner.id]
        assert of_database(race.database) == []
        wins[winner.user] += 1
        _release(race, winner, loser, inherits=bool(number % 2))
        assert race.held() == []
        assert of_database(race.database) == []
    rows = race.database.rows("SELECT count(*) AS number FROM reservations")
    assert rows[0]["number"] == 2 * ROUNDS
    # If one of them always came first, nobody would have raced.
    assert min(wins.values()) > 0, wins


def _release(race: Race, winner: Reservation, loser: Reservation, *, inherits: bool) -> None:
    """Frees the GPU; in every second round the one who waits gets it first."""
    owners = {person.name: person for person in race.people}
    if not inherits:
        owners[loser.user].cancel(loser.id)
    owners[winner.user].cancel(winner.id)
    if inherits:
        until(lambda: race.held() == [loser.id], "the next in line starts", pause=0.01)
        row = race.database.rows(
            "SELECT starts_at, first_promise FROM reservations WHERE id = :id", id=loser.id
        )[0]
        start, promise = moment(row["starts_at"]), moment(row["first_promise"])
        assert start is not None
        assert promise == loser.promised_start
        assert promise is not None
        assert start <= promise
        assert of_database(race.database) == []
        owners[loser.user].cancel(loser.id)
    race.until_free(winner.id, loser.id)


def test_a_disk_goes_to_exactly_one(race: Race) -> None:
    ada, grace = race.people[0], race.people[1]
    assert ada.call("POST", "/disks", {"name": "thesis"}).status_code == httpx.codes.CREATED
    for number in range(DISK_ROUNDS):
        # An existing disk, and every second time one that both would create.
        disk = "thesis" if number % 2 else f"new-{number}"

        def ask(disk: str = disk) -> httpx.Response:
            return ada.ask(gpu_type="t4", gpus=1, hours=1, disk=disk, create_disk=True)

        answers = race.both(ask, ask)
        assert sorted(a.status_code for a in answers) == [201, 409], [a.text for a in answers]
        won, lost = sorted(answers, key=lambda a: a.status_code)
        error = lost.json()["error"]
        assert (error["code"], error["field"]) == ("disk_in_use", "disk")
        assert won.json()["id"] in error["message"]
        assert of_database(race.database) == []
        ada.cancel(won.json()["id"])
        race.until_free(won.json()["id"])
    assert grace.reservations() == []
