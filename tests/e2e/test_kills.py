"""SIGKILL of service, Hub and proxy at the worst moments that we can name.

Afterwards nothing is lost, nothing runs without a lease, no GPU is held by what is over, and leases
have ended on time: the times compared are those in the service's own history.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.fixtures.hub import ADMIN, RunningHub

from . import crash_points
from .conftest import MORTAL_HUB, MORTAL_SERVICE
from .database import Database, moment
from .invariants import assert_sound, marked
from .people import Person
from .waiting import until

pytestmark = [pytest.mark.hub, pytest.mark.slow]

#: How late a lease may end, whatever is dead.
LATEST = timedelta(seconds=5)
#: What must be left of a short lease when its server is up, for what the test does meanwhile.
SPARE = timedelta(seconds=4)
#: More than the snapshot copies before it is interrupted.
FILES = 3 * crash_points.HALF


class Killed:
    """A Hub with crash points, and its database."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub, self.database = hub, Database(hub)
        self.accepted: list[str] = []
        self._people = 0

    def person(self) -> Person:
        """Somebody new."""
        self._people += 1
        return Person(self.hub, f"person-{self._people}")

    def reserve(self, person: Person, hours: float = 1, **values: object) -> Reservation:
        made = person.reserve(hours=hours, **values)
        self.accepted.append(made.id)
        return made

    def short_lease(self, **values: object) -> tuple[Person, Reservation]:
        """Somebody's lease of seconds whose server is up in time to be there when it ends; the
        lease is as long as this needs on a busy machine."""
        for seconds in (12, 24, 48, 96):
            person = self.person()
            lease = self.reserve(person, hours=seconds / 3600, **values)
            found = self._settled(person, lease.id)
            if found.state is State.ACTIVE:
                assert found.expires_at is not None
                if datetime.now(UTC) + SPARE < found.expires_at:
                    return person, found
            # Also one whose server came up too late is over in a moment.
            until(lambda: not self._live(), "the next try is alone", seen=self._live)
        raise AssertionError("no server comes up within a lease of seconds")

    def _settled(self, person: Person, reservation_id: str) -> Reservation:
        """The reservation once its server is up, or is not going to be."""

        def settled() -> Reservation | None:
            found = person.look(reservation_id)
            return found if found.state not in (State.QUEUED, State.PREPARING) else None

        return until(settled, "the server is up or has failed")

    def arm(self, point: str) -> None:
        crash_points.arm(self.hub.home, point)

    def until_crashed(self, point: str) -> None:
        until(lambda: not crash_points.is_armed(self.hub.home, point), f"it crashes at {point}")

    def until_back(self) -> None:
        """Waits until the service answers again."""

        def answers() -> bool:
            try:
                return self.hub.call("GET", "/health/live").is_success
            except httpx.TransportError:
                return False

        until(answers, "the service is back")

    def row(self, reservation_id: str) -> dict[str, object]:
        rows = self.database.rows("SELECT * FROM reservations WHERE id = :id", id=reservation_id)
        return dict(rows[0])

    def until_row(self, reservation_id: str, *states: State) -> dict[str, object]:
        """Waits by the database alone, for when nothing else answers."""
        return until(
            lambda: next(
                (r for r in [self.row(reservation_id)] if State(str(r["state"])) in states), None
            ),
            f"{reservation_id} is {' or '.join(states)}",
            seen=lambda: self.row(reservation_id)["state"],
        )

    def ended_on_time(self, reservation_id: str) -> None:
        """By the history: the end began at the lease's end, and the GPUs were back soon after."""
        end = moment(self.row(reservation_id)["expires_at"])
        entries = self.database.rows(
            "SELECT at, kind, state FROM history WHERE reservation_id = :id ORDER BY id",
            id=reservation_id,
        )
        begun = next(moment(e["at"]) for e in entries if e["state"] == "stopping")
        freed = next(
            moment(e["at"]) for e in entries if e["state"] == "stopping" and e["kind"] == "server"
        )
        assert end is not None
        assert begun is not None
        assert freed is not None
        assert end <= begun <= end + LATEST
        assert freed <= end + LATEST

    def settle(self) -> None:
        """Checks that everything is in order, ends what still lives, and checks again."""
        assert_sound(self.hub, self.database, self.accepted)
        admin = self.hub.token(ADMIN)
        for key in self.accepted:
            self.hub.call("DELETE", f"/reservations/{key}", admin)
        until(lambda: not self._live(), "all are over", seen=self._live)
        assert_sound(self.hub, self.database, self.accepted)
        assert not marked(self.hub)

    def _live(self) -> list[Mapping[str, object]]:
        return self.database.rows("SELECT id, state FROM reservations WHERE ended_at IS NULL")


@pytest.fixture(scope="module")
def killed() -> Iterator[Killed]:
    with RunningHub(hub_config=MORTAL_HUB, service_config=MORTAL_SERVICE) as hub:
        yield Killed(hub)


@pytest.fixture(autouse=True)
def sound_afterwards(killed: Killed) -> Iterator[None]:
    """After each crash everything that was accepted ends as it should, and nothing is left."""
    yield
    killed.settle()


def _home(hub: RunningHub, reservation: Reservation) -> Path:
    """The directory that the running server has as its home."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if environment.get("GPUDEV_RESERVATION") == reservation.id:
            return Path(environment["HOME"])
    raise AssertionError(f"nothing runs of {reservation.id}")


@pytest.mark.parametrize("point", crash_points.IN_SERVICE[1:])
def test_service_killed_while_a_lease_ends(killed: Killed, point: str) -> None:
    ada, grace = killed.person(), killed.person()
    lease = killed.reserve(ada, disk="work", create_disk=True)
    ada.until_state(lease.id, State.ACTIVE)
    home = _home(killed.hub, lease)
    for number in range(FILES):
        (home / f"file-{number}").write_text(f"content {number}")
    following = killed.reserve(grace)
    assert following.state is State.QUEUED

    killed.arm(point)
    ada.cancel(lease.id)
    killed.until_crashed(point)

    killed.until_back()
    ada.until_over(lease.id, State.CANCELLED)
    assert lease.id not in marked(killed.hub)
    _whole_snapshot(ada)
    begun = grace.until_state(following.id, State.ACTIVE)
    assert begun.starts_at is not None
    assert following.promised_start is not None
    assert begun.starts_at <= following.promised_start


def _whole_snapshot(person: Person) -> None:
    """One snapshot, complete, with every file as it was."""
    found = person.call("GET", "/disks/work/snapshots").json()["items"]
    assert [(s["cause"], s["state"]) for s in found] == [("end", "ready")]
    names: set[str] = set()
    cursor: str | None = ""
    while cursor is not None:
        path = f"/disks/work/contents?snapshot={found[0]['id']}&limit=200&cursor={cursor}"
        page = person.call("GET", path).json()
        names |= {entry["name"] for entry in page["items"]}
        cursor = page["next_cursor"]
    assert {f"file-{number}" for number in range(FILES)} <= names


def test_service_killed_between_a_start_and_its_first_word_about_it(killed: Killed) -> None:
    ada = killed.person()
    killed.arm(crash_points.START_COMMITTED)
    answer = ada.ask(hours=1)
    killed.until_crashed(crash_points.START_COMMITTED)
    killed.until_back()
    # The caller got no answer; whoever asks again with the same name learns that it worked.
    assert not answer.is_success
    rows = killed.database.rows('SELECT id FROM reservations WHERE "user" = :u', u=ada.name)
    assert len(rows) == 1
    killed.accepted.append(rows[0]["id"])
    ada.until_state(rows[0]["id"], State.ACTIVE)


def test_service_killed_just_before_a_lease_ends(killed: Killed) -> None:
    ada, lease = killed.short_lease()
    assert lease.expires_at is not None
    almost = lease.expires_at - timedelta(seconds=0.2)
    until(lambda: datetime.now(UTC) >= almost, "the lease has almost ended", pause=0.01)
    killed.hub.process("service").kill()
    killed.until_back()
    ada.until_over(lease.id, State.EXPIRED)
    killed.ended_on_time(lease.id)


@pytest.mark.parametrize("point", crash_points.IN_HUB)
def test_hub_killed_while_one_starts_and_one_waits(killed: Killed, point: str) -> None:
    ada, grace = killed.person(), killed.person()
    killed.arm(point)
    lease = killed.reserve(ada)
    waiting = killed.reserve(grace)
    killed.until_crashed(point)
    killed.hub.reap("hub")
    assert lease.id in marked(killed.hub), "the server lives on"
    assert killed.until_row(waiting.id, State.QUEUED)

    killed.hub.start_hub()
    ada.until_state(lease.id, State.ACTIVE)
    until(
        lambda: (ada.server(lease.server_name) or {}).get("ready"),
        "the Hub has the server",
        seen=lambda: (ada.server(lease.server_name), killed.row(lease.id)),
    )
    assert ada.inside(lease, "status").is_success
    assert grace.look(waiting.id).state is State.QUEUED
    ada.cancel(lease.id)
    grace.until_state(waiting.id, State.ACTIVE)


def test_hub_and_proxy_dead_across_a_leases_end(killed: Killed) -> None:
    ada, lease = killed.short_lease(disk="work", create_disk=True)
    grace = killed.person()
    waiting = killed.reserve(grace)
    assert waiting.state is State.QUEUED
    killed.hub.end("proxy", signal.SIGKILL)
    killed.hub.end("hub", signal.SIGKILL)

    killed.until_row(lease.id, State.EXPIRED)
    killed.ended_on_time(lease.id)
    assert lease.id not in marked(killed.hub)
    row = killed.until_row(waiting.id, State.PREPARING)
    start, promise = moment(row["starts_at"]), moment(row["first_promise"])
    assert start is not None
    assert promise is not None
    assert start <= promise

    killed.hub.start()
    killed.until_back()
    grace.until_state(waiting.id, State.ACTIVE)
    found = ada.call("GET", "/disks/work/snapshots").json()["items"]
    assert [(s["cause"], s["state"]) for s in found] == [("end", "ready")]


def test_proxy_killed_while_servers_run_and_wait(killed: Killed) -> None:
    ada, grace = killed.person(), killed.person()
    lease = killed.reserve(ada)
    waiting = killed.reserve(grace)
    ada.until_state(lease.id, State.ACTIVE)
    killed.hub.end("proxy", signal.SIGKILL)
    killed.hub.start_proxy()
    killed.until_back()
    until(lambda: ada.inside(lease, "status").is_success, "the server can be reached again")
    assert grace.look(waiting.id).state is State.QUEUED
    ada.cancel(lease.id)
    grace.until_state(waiting.id, State.ACTIVE)
