"""Two replicas of the service: one leads, the other takes over, and nothing happens twice."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping

import httpx
import psutil
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.fixtures.hub import ADMIN
from tests.fixtures.postgres import PostgresServer

from . import crash_points
from .conftest import MORTAL_HUB, MORTAL_SERVICE
from .invariants import of_database
from .people import Person
from .replicas import Replica, ReplicatedHub, replicated
from .waiting import until

pytestmark = [pytest.mark.hub, pytest.mark.slow]

#: The moments at which a leader is killed or frozen while a lease ends, and the next one begins.
POINTS = (crash_points.STOP_BEGUN, crash_points.SERVER_GONE, crash_points.TRANSACTION_BEGUN)
#: What a reservation goes through that runs and is cancelled.
WHOLE = ["queued", "preparing", "active", "stopping", "cancelled"]
#: Nobody comes twice.
_NUMBERS = itertools.count(1)


class Site:
    """The Hub with its replicas, and the people of a test."""

    def __init__(self, hub: ReplicatedHub) -> None:
        self.hub = hub
        self.epoch = 0

    def person(self) -> Person:
        return Person(self.hub, f"person-{next(_NUMBERS)}")

    def reserve(self, person: Person) -> Reservation:
        """The one t4-small, or a place in the queue for it."""
        return person.reserve(hours=1)

    def remember(self) -> None:
        self.epoch = self._epoch()

    def followed_once(self) -> None:
        """Since `remember`, one leader has followed the one before, and nobody that one."""
        assert self._epoch() == self.epoch + 1

    def passes_through(self, reservation_id: str) -> list[str]:
        """The states of a reservation, in order, as its history has them."""
        rows = self.hub.database.rows(
            "SELECT state FROM history WHERE reservation_id = :id AND kind = 'transition'"
            " ORDER BY id",
            id=reservation_id,
        )
        return [row["state"] for row in rows]

    def settle(self) -> None:
        """Ends what still lives; then everything is in order, both replicas are ready, and the
        Hub runs nothing."""
        crash_points.disarm(self.hub.home)
        for replica in self.hub.replicas:
            replica.revive()
        for replica in self.hub.replicas:
            replica.until_ready()
        token = self.hub.token(ADMIN)
        for key in self._live():
            assert ask(self.hub.leader(), token, "DELETE", f"/reservations/{key}").is_success
        until(lambda: not self._live(), "all are over", seen=self._live)
        assert not of_database(self.hub.database)
        until(lambda: not self._running(), "no server runs", seen=self._running)

    def _live(self) -> list[str]:
        rows = self.hub.database.rows("SELECT id FROM reservations WHERE ended_at IS NULL")
        return [row["id"] for row in rows]

    def _running(self) -> list[str]:
        users = self.hub.api("GET", "users")
        return [name for user in users for name, row in user["servers"].items() if row["ready"]]

    def _epoch(self) -> int:
        return int(str(self.hub.lead()["epoch"]))


@pytest.fixture(scope="module")
def hub(postgres_server: PostgresServer) -> Iterator[ReplicatedHub]:
    with replicated(
        postgres_server,
        hub_config=MORTAL_HUB,
        service_config=MORTAL_SERVICE,
    ) as running:
        yield running


@pytest.fixture
def site(hub: ReplicatedHub) -> Iterator[Site]:
    made = Site(hub)
    made.remember()
    yield made
    made.settle()


def ask(
    replica: Replica,
    token: str,
    method: str,
    path: str,
    json: object = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """A call of one replica's own address."""
    return httpx.request(
        method,
        f"{replica.url}/services/gpudev/api/v1{path}",
        json=json,
        headers={"Authorization": f"token {token}", **(headers or {})},
        timeout=60,
        trust_env=False,
    )


def test_either_replica_can_be_asked(site: Site) -> None:
    ada = site.person()
    for replica in site.hub.replicas:
        made = ask(replica, ada.token, "POST", "/reservations", {"gpu_type": "cpu-x86", "hours": 1})
        assert made.status_code == httpx.codes.CREATED, made.text
        assert ask(replica, ada.token, "GET", f"/reservations/{made.json()['id']}").is_success
        assert ask(replica, ada.token, "DELETE", f"/reservations/{made.json()['id']}").is_success
        unknown = ask(replica, ada.token, "GET", "/reservations/0000000000000000")
        assert unknown.json()["error"]["code"] == "not_found"
        assert (
            ask(replica, "nobody", "GET", "/reservations").status_code == httpx.codes.UNAUTHORIZED
        )
    assert sorted(replica.leads() for replica in site.hub.replicas) == [False, True]


def test_what_prometheus_reads_of_both(site: Site) -> None:
    token = site.hub.token(ADMIN)

    def metrics(replica: Replica) -> str:
        return httpx.get(
            f"{replica.url}/services/gpudev/metrics",
            headers={"Authorization": f"token {token}"},
            trust_env=False,
        ).text

    leads, stands_by = metrics(site.hub.leader()), metrics(site.hub.standby())
    assert "gpudev_leader 1.0" in leads
    assert "gpudev_reservations{" in leads
    assert "gpudev_leader 0.0" in stands_by
    assert "gpudev_reservations{" not in stands_by


def test_a_stream_through_the_standby_ends_with_its_leader(site: Site) -> None:
    ada = site.person()
    leader, standby = site.hub.leader(), site.hub.standby()
    url = f"{standby.url}/services/gpudev/api/v1/events"
    own = {"Authorization": f"token {ada.token}"}
    with httpx.stream("GET", url, headers=own, timeout=60, trust_env=False) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        made = site.reserve(ada)
        assert any(made.id in line for line in lines), "it hears of the leader's events"
        leader.lose()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert site.hub.leader() is standby
    leader.start()
    site.followed_once()


def test_an_end_in_order_hands_over_at_once(site: Site) -> None:
    ada = site.person()
    lease = site.reserve(ada)
    leader, standby = site.hub.leader(), site.hub.standby()
    ending = leader.ask_to_end()
    # It comes while nobody leads, waits, and is answered.
    assert ask(standby, ada.token, "GET", f"/reservations/{lease.id}").is_success
    assert site.hub.leader() is standby
    site.followed_once()
    assert ending.wait(30) == 0
    leader.start()
    leader.until_ready()
    ada.until_state(lease.id, State.ACTIVE)
    site.followed_once()


def _killed(site: Site, leader: Replica, point: str) -> Callable[[], None]:
    """Arms the point; what brings the dead leader back."""
    leader.hold_keeper()
    crash_points.arm(site.hub.home, point)
    return leader.free_keeper


def _frozen(site: Site, leader: Replica, point: str) -> Callable[[], None]:
    before = leader.process
    crash_points.arm(site.hub.home, point, signal.SIGSTOP)

    def thaw() -> None:
        before.resume()
        psutil.wait_procs([before], timeout=60)
        assert not before.is_running(), "a leader that was followed ends"

    return thaw


STRIKES = {"killed": _killed, "frozen": _frozen}


@pytest.mark.parametrize("how", STRIKES)
@pytest.mark.parametrize("point", POINTS)
def test_a_lease_ends_and_the_next_begins_once(site: Site, how: str, point: str) -> None:
    ada, grace = site.person(), site.person()
    lease = site.reserve(ada)
    ada.until_state(lease.id, State.ACTIVE)
    following = site.reserve(grace)
    assert following.state is State.QUEUED
    leader, standby = site.hub.leader(), site.hub.standby()

    back = STRIKES[how](site, leader, point)
    # Who asks gets no answer where the leader is struck before it has answered, and asks again.
    until(
        lambda: ask(standby, ada.token, "DELETE", f"/reservations/{lease.id}").is_success,
        "the lease is cancelled",
    )
    until(lambda: not crash_points.is_armed(site.hub.home, point), f"it is {how} at {point}")
    until(standby.leads, "the other leads", pause=0.02)
    begun = grace.until_state(following.id, State.ACTIVE)
    assert begun.starts_at is not None
    assert following.promised_start is not None
    assert begun.starts_at <= following.promised_start
    assert site.passes_through(lease.id) == WHOLE

    back()
    until(lambda: leader.health() is not None, "the one before stands by")
    assert not leader.leads()
    site.followed_once()
    grace.cancel(following.id)
    grace.until_over(following.id, State.CANCELLED)
    assert site.passes_through(lease.id) == WHOLE
    assert site.passes_through(following.id) == WHOLE


@pytest.mark.parametrize("how", STRIKES)
def test_a_start_happens_once(site: Site, how: str) -> None:
    ada = site.person()
    leader, standby = site.hub.leader(), site.hub.standby()
    back = STRIKES[how](site, leader, crash_points.START_COMMITTED)
    headers = {"Idempotency-Key": f"for-one-start-{how}"}

    def asked() -> httpx.Response | None:
        body = {"gpu_type": "t4-small", "hours": 1}
        answer = ask(standby, ada.token, "POST", "/reservations", body, headers)
        assert answer.status_code in (httpx.codes.CREATED, httpx.codes.SERVICE_UNAVAILABLE)
        return answer if answer.is_success else None

    made = Reservation.model_validate(until(asked, "it is answered").json())
    assert standby.leads()
    ada.until_state(made.id, State.ACTIVE)
    back()
    until(lambda: leader.health() is not None, "the one before stands by")
    site.followed_once()
    assert [r.id for r in ada.reservations()] == [made.id]
    assert site.passes_through(made.id) == WHOLE[:3]


def test_a_leader_that_is_cut_off_is_followed_and_ends(site: Site) -> None:
    ada, grace = site.person(), site.person()
    lease = site.reserve(ada)
    ada.until_state(lease.id, State.ACTIVE)
    following = site.reserve(grace)
    leader, standby = site.hub.leader(), site.hub.standby()
    before = leader.process
    leader.wire.cut()
    until(standby.leads, "the other leads", pause=0.02)
    assert ask(standby, ada.token, "DELETE", f"/reservations/{lease.id}").is_success
    until(
        lambda: site.passes_through(following.id)[-1] == "active",
        "the next one has begun",
        seen=lambda: site.passes_through(following.id),
    )
    leader.wire.mend()
    psutil.wait_procs([before], timeout=60)
    assert not before.is_running()
    until(lambda: leader.health() is not None, "the one before stands by")
    site.followed_once()
    assert site.passes_through(lease.id) == WHOLE


def test_a_leader_whose_sessions_are_ended_goes_on_or_is_followed(site: Site) -> None:
    ada = site.person()
    lease = site.reserve(ada)
    site.hub.database.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    ada.until_state(lease.id, State.ACTIVE)
    assert site.passes_through(lease.id) == WHOLE[:3]
    until(
        lambda: sum(replica.leads() for replica in site.hub.replicas) == 1,
        "one leads",
    )


def test_how_soon_the_other_answers(site: Site, record_property: Callable[..., None]) -> None:
    """The time from the kill to an answer that only a leader gives is told, not judged."""
    ada = site.person()
    leader, standby = site.hub.leader(), site.hub.standby()
    begun = time.monotonic()
    leader.lose()
    assert ask(standby, ada.token, "GET", "/reservations").is_success
    record_property("takeover_seconds", round(time.monotonic() - begun, 2))
    assert site.hub.leader() is standby
    leader.start()
