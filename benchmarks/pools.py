"""The proxy keeps each connection to what is behind it for the next request: as many as there were
requests at once, for an hour. Whoever counts connections before and after a load has to have asked
for the same number at once both times, and for more than the load ever does.
"""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

import psutil

from tests.e2e.waiting import until


def fill(url: str, behind: psutil.Process, size: int) -> None:
    """Sends `size` requests to `url` through the proxy that are all under way at the same time.

    Args:
        behind: who answers them; its connections are looked at.
    """
    address = urlsplit(url)
    with contextlib.ExitStack() as held:
        asked: list[socket.socket] = []
        for _ in range(size):
            sock = socket.create_connection((address.hostname, address.port), 60)
            asked.append(held.enter_context(sock))
            # With half of a body: it is passed on, and cannot be answered yet.
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
