"""Something between a laptop and the Hub that looks into WebSockets and does not like them all."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from gpudev_client.ssh import frames

from .listening import CHUNK, Listening
from .site import Site

#: A message is too big, for whoever looks at messages.
_TOO_BIG = 1009


class Middlebox(Listening):
    """Passes HTTP on, and does `how` to a WebSocket whose request has `what` in it, once the
    server's head has gone through:

    holds   nothing of it gets to the client
    closes  the client gets a Close that says it was too big
    resets  the connection is cut
    words   the frame's header gets through, and then nothing
    """

    def __init__(self, how: str, what: bytes) -> None:
        super().__init__()
        self.how, self.what = how, what
        #: How many WebSockets it has been done to.
        self.done = 0
        self.target = 0
        self._start(self._accept)

    def accepted(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:  # the proxy is still starting
            client.close()
            return
        self._open.append(server)
        seen = threading.Event()
        up = self._start(self._up, client, server, seen)
        self._start(self._down, server, client, seen, up)

    def _up(self, client: socket.socket, server: socket.socket, seen: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                if self.what in data:
                    seen.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _down(
        self,
        server: socket.socket,
        client: socket.socket,
        seen: threading.Event,
        up: threading.Thread,
    ) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while data := server.recv(CHUNK):
                if not seen.is_set():
                    client.sendall(data)
                    continue
                head += data
                if b"\r\n\r\n" in head:
                    self._misbehave(head, server, client, up)
                    return
            client.shutdown(socket.SHUT_WR)

    def _misbehave(
        self, head: bytes, server: socket.socket, client: socket.socket, up: threading.Thread
    ) -> None:
        self.done += 1
        end = head.index(b"\r\n\r\n") + 4
        if self.how == "resets":
            client.sendall(head[:end])
            # A connection that another thread reads from is not cut before that has ended,
            # whoever closes it.
            client.shutdown(socket.SHUT_RD)
            up.join()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        more = (
            frames.encode(frames.CLOSE, frames.closing(_TOO_BIG)) if self.how == "closes" else b""
        )
        more = frames.SERVER_OPENING if self.how == "words" else more
        client.sendall(head[:end] + more)
        if self.how == "closes":
            client.shutdown(socket.SHUT_WR)
        while server.recv(CHUNK):
            pass


class BehindOne(Site):
    """A site that is reached through a middlebox."""

    def __init__(self, how: str, what: bytes) -> None:
        super().__init__()
        self.middlebox = Middlebox(how, what)
        self.middlebox.target = self.public
        self.url = f"http://127.0.0.1:{self.middlebox.port}"
        self.service = f"{self.url}/services/gpudev"

    def remove(self) -> None:
        self.middlebox.close()
        super().remove()


@contextlib.contextmanager
def behind(how: str, what: str) -> Iterator[BehindOne]:
    """The site, started."""
    site = BehindOne(how, what.encode())
    try:
        site.start()
        yield site
    finally:
        site.remove()
