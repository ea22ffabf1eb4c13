"""A proxy that does nothing but CONNECT, as a company's network has it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Self

from .listening import CHUNK, Listening

_PASSED = 200


class ConnectProxy(Listening):
    """Runs in threads of its own.

    Args:
        login: what it wants to see in Proxy-Authorization.
        status: what it answers to everybody; 200 lets them through.
    """

    def __init__(self, login: str | None = None, status: int = _PASSED) -> None:
        super().__init__()
        self.login, self.status = login, status
        #: Whom it was asked for, in order.
        self.asked: list[str] = []
        #: Bytes that went through after the CONNECT, to the server and from it.
        self.up = self.down = 0
        self.netloc = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def accepted(self, client: socket.socket) -> None:
        self._start(self._answer, client)

    def _answer(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(CHUNK)
        first, *lines = head.decode().split("\r\n")
        method, target, _ = first.split(" ")
        self.asked.append(target)
        status = self.status if method == "CONNECT" else 405
        if self.login is not None and f"Proxy-Authorization: {self.login}" not in lines:
            status = 407
        client.sendall(f"HTTP/1.1 {status} said\r\nVia: test\r\n\r\n".encode())
        if status != _PASSED:
            client.close()
            return
        host, _, port = target.rpartition(":")
        server = socket.create_connection((host.strip("[]"), int(port)))
        self._open.append(server)
        self._start(self._pass_up, client, server)
        self._pass_down(server, client)

    def _pass_up(self, client: socket.socket, server: socket.socket) -> None:
        for passed in _pass(client, server):
            self.up += passed

    def _pass_down(self, server: socket.socket, client: socket.socket) -> None:
        for passed in _pass(server, client):
            self.down += passed


def _pass(source: socket.socket, target: socket.socket) -> Iterator[int]:
    """How many bytes, each time that some went through."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
            yield len(data)
        target.shutdown(socket.SHUT_WR)
