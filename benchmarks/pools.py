"""The proxy keeps a connection to what is behind it for the next request: as many as there once
were requests at once, for an hour. Whoever counts connections before and after a load empties these
pools first, since what is in them is not left over.
"""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

import psutil

from tests.e2e.waiting import until


def empty(url: str, behind: psutil.Process, size: int) -> None:
    """Has the proxy use all of its connections to a server at once, each for the last time.

    Args:
        url: is answered by this server, through the proxy.
        behind: its process.
        size: requests at once; more than there ever were, with what else is connected.
    """
    address = urlsplit(url)
    with contextlib.ExitStack() as held:
        asked: list[socket.socket] = []
        for _ in range(size):
            sock = socket.create_connection((address.hostname, address.port), 60)
            asked.append(held.enter_context(sock))
            # With half of a body: it is passed on, and cannot be answered yet. That the connection
            # is to be closed is passed on, too.
            sock.sendall(
                f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
                "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{".encode()
            )
        until(lambda: _connections(behind) >= size, f"{size} requests are under way")
        for sock in asked:
            sock.sendall(b"}")
            while sock.recv(65536):
                pass


def _connections(process: psutil.Process) -> int:
    """How many connections there are to the ports on which a process listens."""
    found = process.net_connections(kind="inet")
    ports = {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port in ports for one in found)
