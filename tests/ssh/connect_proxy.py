"""A proxy that does nothing but CONNECT, as a company's network has it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

_CHUNK = 64 * 1024
_PASSED = 200


class ConnectProxy:
    """Runs in threads of its own.

    Args:
        login: what it wants to see in Proxy-Authorization.
        status: what it answers to everybody; 200 lets them through.
    """

    def __init__(self, login: str | None = None, status: int = _PASSED) -> None:
        self.login, self.status = login, status
        #: Whom it was asked for, in order.
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.netloc = "{}:{}".format(*self._listener.getsockname())
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(30)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                self._start(self._answer, client)

    def _answer(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(_CHUNK)
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
        self._start(_pass, client, server)
        _pass(server, client)


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
