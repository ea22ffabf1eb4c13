"""Several replicas of the service on one PostgreSQL, behind what a Kubernetes Service would be.

The Hub does not manage the service here. Each replica is a process of its own, with a data
directory and port of its own, kept by its keeper as in a pod. The Hub, its spawner and people come
through one address, which leads each connection to a replica that is ready.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import make_url

from gpudev_hub_config import roles
from gpudev_hub_config.secrets import secret
from tests.fixtures.hub import _MARK, RunningHub, _end_with_parent
from tests.fixtures.postgres import PostgresServer
from tests.tiers import ROOT
from tools.ports import free_ports

from .database import Database
from .waiting import until

#: Seconds without a sign of life after which a leader is followed.
LEAD_SECONDS = 3.0
#: The service is started by the tests.
_UNMANAGED = """
for service in c.JupyterHub.services:
    if service["name"] == "gpudev":
        del service["command"], service["environment"]
"""
_PROBE_SECONDS = 0.5


class Replica:
    """One process of the service with its keeper."""

    def __init__(
        self, hub: RunningHub, number: int, port: int, db_url: str, lead_seconds: float
    ) -> None:
        self.name = f"replica-{number}"
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        database = make_url(db_url)
        assert database.port is not None
        self.wire = Wire(database.port)
        self._hub, self._lead_seconds = hub, lead_seconds
        self._db_url = database.set(port=self.wire.port).render_as_string(hide_password=False)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(trust_env=False, timeout=10.0)
        self.data_dir = hub.home / self.name

    def start(self) -> None:
        environment = {
            **os.environ,
            _MARK: str(self._hub.home),
            "PYTHONPATH": str(ROOT),
            "GPUDEV_DB_URL": self._db_url,
            "JUPYTERHUB_API_TOKEN": secret(self._hub.home / "secrets", "service_token"),
            "JUPYTERHUB_API_URL": self._hub.ports.url(self._hub.ports.hub) + "/hub/api",
            "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_CLIENT_ID": f"service-{roles.SERVICE}",
            "JUPYTERHUB_SERVICE_NAME": roles.SERVICE,
            "JUPYTERHUB_SERVICE_PREFIX": f"/services/{roles.SERVICE}/",
            "JUPYTERHUB_SERVICE_URL": self.url,
        }
        command = [
            sys.executable,
            *("-m", "gpudev_service", f"--config={self._hub.home / 'gpudev_config.py'}"),
            f"--data-dir={self.data_dir}",
            f"--GpuDevWeb.lead_seconds={self._lead_seconds}",
        ]
        with self.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                command,
                cwd=self._hub.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - set before any thread runs
            )

    def revive(self) -> None:
        """Thaws what a test has left frozen, and mends its wire."""
        self.wire.mend()
        if self._keeper is None:
            return
        self.free_keeper()
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
            for process in psutil.Process(self._keeper.pid).children():
                process.resume()

    @property
    def log(self) -> Path:
        return self._hub.home / f"{self.name}.log"

    @property
    def process(self) -> psutil.Process:
        """The service itself, below its keeper."""
        assert self._keeper is not None
        keeper = psutil.Process(self._keeper.pid)
        return until(lambda: next(iter(keeper.children()), None), f"{self.name} runs")

    def health(self, timeout: float = 10.0) -> dict[str, object] | None:
        """What readiness says; None where nothing answers or it is not ready."""
        try:
            answer = self._http.get(f"{self.url}/services/gpudev/api/v1/health", timeout=timeout)
        except httpx.TransportError:
            return None
        return dict(answer.json()) if answer.is_success else None

    def leads(self) -> bool:
        found = self.health()
        return found is not None and bool(found["leader"])

    def until_ready(self) -> None:
        until(self.health, f"{self.name} is ready", seen=lambda: self.log.read_text()[-3000:])

    def hold_keeper(self) -> None:
        """The keeper does nothing until `free_keeper`: a service that has ended stays so."""
        assert self._keeper is not None
        self._keeper.send_signal(signal.SIGSTOP)

    def free_keeper(self) -> None:
        assert self._keeper is not None
        self._keeper.send_signal(signal.SIGCONT)

    def lose(self) -> None:
        """SIGKILL of all that belongs to it, as when its node is gone."""
        assert self._keeper is not None
        service = self.process
        self._keeper.kill()
        self._keeper.wait(10)
        with contextlib.suppress(psutil.NoSuchProcess):
            service.kill()
        psutil.wait_procs([service], timeout=10)
        self._keeper = None

    def close(self) -> None:
        """Once its processes have ended: what this process holds of it."""
        if self._keeper is not None:
            self._keeper.wait(10)
        self._http.close()
        self.wire.close()

    def ask_to_end(self) -> subprocess.Popen[bytes]:
        """Begins an orderly end; what can be waited for."""
        keeper, self._keeper = self._keeper, None
        assert keeper is not None
        keeper.send_signal(signal.SIGTERM)
        return keeper


class Wire:
    """What is between a replica and the database; when it is cut, nobody is told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._whole = threading.Event()
        self._whole.set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._whole.set()
        _close(self._socket)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(
                target=_join, args=(client, self._target, self._whole), daemon=True
            ).start()


class Door:
    """One address for all replicas. A replica that is not ready gets no new connections."""

    def __init__(self, port: int, replicas: list[Replica]) -> None:
        self._replicas, self._ready = replicas, [False] * len(replicas)
        self._open = True
        self._socket = socket.create_server(("127.0.0.1", port))
        for work in (self._accept, self._probe):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        self._open = False
        _close(self._socket)

    def _probe(self) -> None:
        while self._open:
            for number, replica in enumerate(self._replicas):
                self._ready[number] = replica.health(timeout=1.0) is not None
            time.sleep(_PROBE_SECONDS)

    def _accept(self) -> None:
        turn = 0
        while self._open:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            ready = [r for r, is_ready in zip(self._replicas, self._ready, strict=True) if is_ready]
            turn += 1
            port = ready[turn % len(ready)].port if ready else None
            threading.Thread(target=_join, args=(client, port), daemon=True).start()


def _close(listener: socket.socket) -> None:
    """Whoever accepts in another thread is told: a mere `close` leaves them at it for ever, and the
    connections that still come to them are nobody's."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _join(client: socket.socket, port: int | None, whole: threading.Event | None = None) -> None:
    """Relays between a connection and a new one to `port`."""
    if port is None:
        client.close()
        return
    try:
        server = socket.create_connection(("127.0.0.1", port), timeout=5)
    except OSError:
        client.close()
        return
    server.settimeout(None)
    back = threading.Thread(target=_pump, args=(server, client, whole), daemon=True)
    back.start()
    _pump(client, server, whole)
    back.join()
    client.close()
    server.close()


def _pump(source: socket.socket, sink: socket.socket, whole: threading.Event | None) -> None:
    try:
        while data := source.recv(65536):
            if whole is not None:
                whole.wait()
            sink.sendall(data)
    except OSError:
        pass
    if whole is not None:
        whole.wait()
    for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(how)


class ReplicatedHub(RunningHub):
    """A Hub whose service is several replicas on one PostgreSQL."""

    def __init__(
        self,
        server: PostgresServer,
        *,
        hub_config: str,
        service_config: str,
        lead_seconds: float = LEAD_SECONDS,
        count: int = 2,
    ) -> None:
        super().__init__(hub_config=hub_config + _UNMANAGED, service_config=service_config)
        self._server, self._name = server, server.create_database()
        self.db_url = server.url(self._name)
        self.replicas = [
            Replica(self, number, port, self.db_url, lead_seconds)
            for number, port in enumerate(free_ports(count))
        ]
        self.database = Database(self, self.db_url)
        self._door: Door | None = None

    def start_hub(self) -> None:
        config = self.home / "jupyterhub_config.py"
        self._launch("hub", [str(self._python), "-m", "jupyterhub", f"--config={config}"], {})
        self._wait_for(f"{self.url}/hub/api")
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            replica.until_ready()
        self._door = Door(self.ports.service, self.replicas)
        self._wait_for(f"{self.service}/api/v1/health/live")
        self.leader()

    def _ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """At the door, by a connection of its own: the proxy keeps some open, and one to a replica
        that is frozen answers only when that is killed or goes on."""
        return httpx.request(
            method,
            f"{self.ports.url(self.ports.service)}/services/gpudev/api/v1{path}",
            **given,
            timeout=30,
            trust_env=False,
        )

    def leader(self) -> Replica:
        """The replica that leads, once there is one."""
        return until(
            lambda: next((r for r in self.replicas if r.leads()), None),
            "somebody leads",
            pause=0.02,
            seen=lambda: "\n".join(r.log.read_text()[-1500:] for r in self.replicas),
        )

    def standby(self) -> Replica:
        leader = self.leader()
        return next(r for r in self.replicas if r is not leader)

    def lead(self) -> dict[str, object]:
        """Who leads as the database has it."""
        return dict(self.database.rows("SELECT * FROM lead")[0])

    def logs(self, part: str = "hub") -> str:
        replicas = "".join(r.log.read_text(errors="replace") for r in self.replicas)
        return super().logs(part) + replicas

    def remove(self) -> None:
        with contextlib.ExitStack() as last:  # from its end, each whatever became of the others
            last.callback(self._server.drop_database, self._name)
            for replica in self.replicas:
                last.callback(replica.close)
            last.callback(self.database.close)
            last.callback(super().remove)
            if self._door is not None:
                last.callback(self._door.close)
            for replica in self.replicas:  # what is frozen would not end
                last.callback(replica.revive)


@contextlib.contextmanager
def replicated(
    server: PostgresServer,
    *,
    hub_config: str,
    service_config: str,
    lead_seconds: float = LEAD_SECONDS,
) -> Iterator[ReplicatedHub]:
    with ReplicatedHub(
        server, hub_config=hub_config, service_config=service_config, lead_seconds=lead_seconds
    ) as hub:
        yield hub
