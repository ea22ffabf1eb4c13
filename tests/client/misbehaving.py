"""A real server on loopback that misbehaves on purpose, one way per connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Behaviour = Callable[[socket.socket], None]


def answer(status: str, body: bytes, *headers: str, length: int | None = None) -> Behaviour:
    """An answer; `length` lies about how long it is, so that it is cut."""
    told = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {told}", "Connection: close", *headers]
    head = "\r\n".join([*lines, "", ""]).encode()

    def behave(connection: socket.socket) -> None:
        connection.sendall(head + body)

    return behave


def streamed(*chunks: bytes) -> Behaviour:
    """Server-sent events, then the connection is cut in the middle of the answer."""

    def behave(connection: socket.socket) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        connection.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        for chunk in chunks:
            connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")

    return behave


def slam(connection: socket.socket) -> None:
    """Reads the request and answers nothing."""


class Misbehaving:
    """Behaves for each connection as told, and remembers what it was asked."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.requests: list[str] = []
        self._behaviours = list(behaviours)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/services/gpudev"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # stopped
            with connection:
                connection.settimeout(10)
                self.requests.append(_read(connection))
                if self._behaviours:
                    self._behaviours.pop(0)(connection)


def _read(connection: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower() == "content-length":
            while len(body) < int(value):
                body += connection.recv(65536)
    return head.decode() + "\r\n\r\n" + body.decode()


@contextmanager
def misbehaving(*behaviours: Behaviour) -> Iterator[Misbehaving]:
    """A server that is there for the block."""
    server = Misbehaving(*behaviours)
    server.start()
    try:
        yield server
    finally:
        server.stop()
