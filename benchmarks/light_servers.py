"""Thousands of servers as the Hub knows them, with one small process behind all of them.

The Hub has a row for each, with its address and its reservation, and looks at each as at any other:
it asks its spawner whether it runs, connects to it, keeps a route for it in the proxy, and gives
the lease back when it stops it. Only that there is no process for the spawner to look for, and that
every address is the same program's.

As a program, with a port, it answers whatever it is asked.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from jupyterhub import __version__, orm
from jupyterhub.spawner import Spawner
from sqlalchemy import insert

from gpudev_client.states import State
from gpudev_spawner.mixin import GpuDevMixin
from tests.client.models import reservation
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub, _end_with_parent
from tools.ports import free_ports

#: Lines for the Hub's configuration. The Hub looks at all of its servers at once when it starts,
#: and ends those that have not answered within `http_timeout`, whoever kept them waiting.
HUB_CONFIG = """
c.JupyterHub.spawner_class = "benchmarks.light_servers.LightSpawner"
c.Spawner.http_timeout = 900
"""
_ANSWER = (
    f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-JupyterHub-Version: {__version__}\r\n"
    "Content-Length: 2\r\nConnection: close\r\n\r\n{}"
).encode()
_PAGE = 200


class _Light(Spawner):
    """Its server runs until it is stopped."""

    async def start(self) -> str:
        raise RuntimeError("nothing is started here")

    async def poll(self) -> int | None:
        return None

    async def stop(self, now: bool = False) -> None:
        self.clear_state()  # type: ignore[no-untyped-call]  # the Hub is not typed


class LightSpawner(GpuDevMixin, _Light):
    """The server of a reservation."""


@contextmanager
def answering() -> Iterator[int]:
    """The port at which the program listens."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", __name__, str(port)]
    process = subprocess.Popen(command, preexec_fn=_end_with_parent)  # noqa: PLW1509
    try:
        until(lambda: _listens(port), "the light servers answer")
        yield port
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def fill(hub: RunningHub, port: int, servers: Sequence[tuple[str, str]]) -> None:
    """Writes servers, by user and name, into the database of a Hub that has not been started."""
    session = orm.new_session_factory(f"sqlite:///{hub.home / 'jupyterhub.sqlite'}")()
    now = datetime.now(UTC).replace(tzinfo=None)
    users = {name: at for at, name in enumerate(sorted({user for user, _ in servers}), 1)}
    rows: dict[type, list[dict[str, Any]]] = {orm.User: [], orm.Server: [], orm.Spawner: []}
    for name, at in users.items():
        rows[orm.User].append({"id": at, "name": name, "cookie_id": f"cookie-{at}", "created": now})
    for at, (user, name) in enumerate(servers, 1):
        address = {"proto": "http", "ip": "127.0.0.1", "port": port}
        lease = reservation(State.ACTIVE, id=name, server_name=name, user=user)
        rows[orm.Server].append({"id": at, "base_url": f"/user/{user}/{name}/", **address})
        rows[orm.Spawner].append(
            {
                "id": at,
                "user_id": users[user],
                "server_id": at,
                "name": name,
                "state": {"gpudev_reservation": lease.model_dump(mode="json")},
                "user_options": {"reservation": name},
                "started": now,
                "last_activity": now,
            }
        )
    with session.begin():
        for kind, values in rows.items():
            session.execute(insert(kind), values)
    session.get_bind().dispose()


def ready(hub: RunningHub) -> int:
    """How many servers the Hub says are ready; none while it does not answer."""
    found, offset = 0, 0
    try:
        while page := hub.api("GET", f"users?state=active&limit={_PAGE}&offset={offset}"):
            found += sum(server["ready"] for user in page for server in user["servers"].values())
            offset += _PAGE
    except httpx.TransportError:
        return 0
    return found


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_ANSWER)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
