"""SSH for clients that know nothing of gpudev: jupyter-server-proxy's raw socket at `sshd/`.

`ssh -o ProxyCommand='websocat --binary ...'` works against it with the Hub's own authentication.
The backend is a socket in the file system that belongs to this account alone; who comes in is told
from the key, which has to be one of the owner's or of a collaborator's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import daemon, places
from .sessions import Full

if TYPE_CHECKING:
    from .endpoint import Host

log = logging.getLogger("gpudev_lab.sshd")

_BACKLOG = 128
#: Seconds without accepting after something that the server lacks, such as memory or descriptors.
_PAUSE = 1.0


@cache
def socket_path() -> Path:
    """The backend's place, one for this process, in a directory that only this account enters."""
    return places.make() / "socket"


def server_proxy() -> dict[str, Any]:
    """The entry point `jupyter_serverproxy_servers`. Without a command the backend is one that is
    there already: it lives in the server itself and ends with it."""
    return {
        "command": [],
        "unix_socket": str(socket_path()),
        "raw_socket_proxy": True,
        "launcher_entry": {"enabled": False},
        "new_browser_tab": False,
    }


def serve(host: Host) -> asyncio.Task[None]:
    """Accepts connections for as long as the server runs. Nothing is started before one comes."""
    path = socket_path()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    os.chmod(path, 0o600)  # noqa: PTH101 - a socket's path
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return host.sessions.keep(_accept(host, listener, path))


async def _accept(host: Host, listener: socket.socket, path: Path) -> None:
    loop = asyncio.get_running_loop()
    try:
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
                connection.setblocking(True)
                await _serve(host, connection)
            except OSError as error:
                log.warning("an SSH connection was not served: %s", error.strerror or error)
                await asyncio.sleep(_PAUSE)
    finally:
        listener.close()
        shutil.rmtree(path.parent, ignore_errors=True)


async def _serve(host: Host, connection: socket.socket) -> None:
    try:
        await host.ensure()
        keys = {name: one.keys for name, one in host.sessions.people().items()}
        await host.sessions.serve(connection, keys, user=None)
    except (daemon.Unavailable, Full) as reason:
        log.warning("an SSH connection was not served: %s", reason or "there are too many")
    finally:
        connection.close()  # sshd has its own by now, or there is none
