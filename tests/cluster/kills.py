"""A site whose parts, and the cluster's, are killed in the midst of a lease's life.

The servers' processes are seen in this machine's own process table, so that what runs is known
while no API server answers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import httpx
import psutil

from gpudev_client import Client
from gpudev_client.ids import MARK
from gpudev_client.kubernetes import LABEL_RESERVATION
from gpudev_client.models import Reservation
from gpudev_client.processes import variable
from gpudev_client.states import FINAL, LIVE, State
from tests.e2e import crash_points
from tests.e2e.database import Database, moment
from tests.e2e.invariants import HubApi, of_servers
from tests.e2e.waiting import until
from tools.cluster.kubectl import Kubectl, KubectlError

from .site import FLEET, Site

#: Parts of the cluster, and of the installation.
CLUSTER = ("kube-apiserver", "etcd", "kubelet")
INSTALLATION = ("hub", "service")
#: Points of a lease's life: accepted and placed, its pod is there and does not run yet, its server
#: can be used, its end has begun.
PLACED, STARTING, RUNNING, ENDING = POINTS = ("placed", "starting", "running", "ending")
#: What must be left of a short lease when its server is up.
SPARE = timedelta(seconds=5)
#: How long an installation may take to be in order.
PATIENCE = 120.0
#: Leases may be seconds long.
SERVICE = f"""{FLEET}
c.GpuDev.policy = {{"min_hours": 0.0005, "default": {{"max_hours": 24}}}}
c.GpuDev.times = {{"turnover": 6, "reconcile": 2, "crash_grace": 60, "warnings": []}}
{crash_points.FOR_SERVICE}
"""
#: JupyterHub's own server without JupyterLab, which takes a third of the time to start.
HUB = """
c.KubeSpawner.environment["JUPYTERHUB_SINGLEUSER_APP"] = "jupyter_server.serverapp.ServerApp"
"""


class Hub(HubApi, Protocol):
    """What is asked of a Hub and of the service behind it."""

    def call(self, method: str, path: str, token: str | None = None) -> httpx.Response: ...

    def logs(self) -> str: ...


class Place(Protocol):
    """An installation, as its people and whoever operates it see it."""

    @property
    def hub(self) -> Hub: ...

    @property
    def kubectl(self) -> Kubectl: ...

    @property
    def client(self) -> Client: ...

    @property
    def token(self) -> str: ...

    def reserve(self, **asked: Any) -> Reservation: ...

    def pods(self, reservation: Reservation) -> list[dict[str, Any]]: ...


class Lives:
    """Leases of one installation that is killed, and what was accepted there."""

    def __init__(self, place: Place, database: Database) -> None:
        self._place, self.database = place, database
        self.accepted: list[str] = []

    def lease(self, point: str, **asked: object) -> Reservation:
        """A new lease that has just come to this point of its life."""
        made = self._place.reserve(**asked)
        self.accepted.append(made.id)
        if point == STARTING:
            until(lambda: self._place.pods(made), f"the pod of {made.id} is there", pause=0)
        if point in (RUNNING, ENDING):
            made = self.until_state(made.id, State.ACTIVE)
        if point == ENDING:
            self._place.client.cancel(made.id)
        return made

    def short_lease(self, seconds: float) -> tuple[str, datetime]:
        """A lease of so many seconds whose server is up before it ends, and its end; longer where
        a busy machine needs that."""
        for factor in (1, 2, 4):
            lease = self.lease(PLACED, hours=factor * seconds / 3600)
            self.until_state(lease.id, State.ACTIVE, *FINAL)
            end = self.expires(lease.id)
            if self.state(lease.id) is State.ACTIVE and datetime.now(UTC) + SPARE < end:
                return lease.id, end
        raise AssertionError(f"no server comes up within {seconds:g} seconds and four times that")

    def answers(self) -> bool:
        """Whether the service does."""
        try:
            return self._place.hub.call("GET", "/health/live").is_success
        except httpx.TransportError:
            return False

    def wrong(self) -> list[str]:
        """What is not in order, pods without a lease among it; a part that does not answer yet is
        not either."""
        try:
            return of_servers(self._place.hub, self.database, self.running(), self.accepted)
        except (httpx.HTTPError, KubectlError) as error:
            return [f"{type(error).__name__}: {error}"]

    def assert_sound(self, patience: float = PATIENCE) -> None:
        until(
            lambda: not self.wrong(),
            "everything is in order",
            patience=patience,
            pause=0.5,
            seen=self.wrong,
        )

    def running(self) -> set[str]:
        """Reservations of which the cluster has a pod that is not over."""
        found = self._place.kubectl.get("pods", "-l", LABEL_RESERVATION)["items"]
        return {
            str(pod["metadata"]["labels"][LABEL_RESERVATION])
            for pod in found
            if pod["status"].get("phase") not in ("Succeeded", "Failed")
        }

    def state(self, key: str) -> State:
        rows = self.database.rows("SELECT state FROM reservations WHERE id = :id", id=key)
        return State(rows[0]["state"])

    def until_state(self, key: str, *states: State) -> Reservation:
        """Waits by the database alone, for when nothing else answers."""
        until(
            lambda: self.state(key) in states,
            f"{key} is {' or '.join(states)}",
            patience=PATIENCE,
            seen=lambda: (self.state(key), self._place.hub.logs()[-3000:]),
        )
        return self._place.client.reservation(key)

    def expires(self, key: str) -> datetime:
        rows = self.database.rows("SELECT expires_at FROM reservations WHERE id = :id", id=key)
        found = moment(rows[0]["expires_at"])
        assert found is not None
        return found

    def settle(self) -> None:
        """Checks that everything is in order, ends what still lives, and checks again."""
        self.assert_sound()
        for key in self.accepted:
            if self.state(key) in LIVE:
                self._place.hub.call("DELETE", f"/reservations/{key}", self._place.token)
        until(
            lambda: all(self.state(key) not in LIVE for key in self.accepted),
            "all are over",
            patience=PATIENCE,
        )
        self.assert_sound()
        until(lambda: not self.running(), "no pod is left", patience=PATIENCE)

    def close(self) -> None:
        self.database.close()


class Killed(Lives):
    """A site of which parts are killed, and parts of its cluster."""

    def __init__(self, site: Site) -> None:
        super().__init__(site, Database(site.hub))
        self.site = site

    def kill(self, victim: str) -> None:
        """Kills it with SIGKILL and starts it again at once; returns when it works."""
        hub = self.site.hub
        match victim:
            case "hub":
                hub.end("hub", signal.SIGKILL)
                hub.start_hub()
            case "service":
                # Its keeper starts it again.
                service = hub.process("service")
                service.kill()
                until(lambda: not service.is_running(), "the service has ended")
                until(self.answers, "the service is back")
            case part:
                self.site.cluster.restart(part, signal.SIGKILL)


def processes(keys: Sequence[str]) -> set[str]:
    """Those of the reservations of which a process runs on this machine, in whatever container."""
    return {mark for mark, _ in _marked() if mark in keys}


def processes_of(key: str) -> list[psutil.Process]:
    """Those of one reservation."""
    return [process for mark, process in _marked() if mark == key]


def _marked() -> Iterator[tuple[str, psutil.Process]]:
    for process in psutil.process_iter():
        if mark := variable(process.pid, MARK):
            yield mark, process
