"""A link with a rate and a delay between programs, for kernels without netem.

    python -m benchmarks.link TARGET MBIT MILLISECONDS     prints its port, and carries until killed

Both ends' TCP is answered here, so nothing is lost and no window grows slowly: what remains is how
long bytes are on their way, and how many go through. All connections share one line each way.
"""

from __future__ import annotations

import collections
import contextlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PIECE = 64 * 1024
#: Of each socket, so that the link's own queue is the one that counts.
_BUFFER = 256 * 1024
_ROOT = Path(__file__).parent.parent
_MEGABYTE = 1024 * 1024


class Line:
    """One direction: `rate` bytes per second one after the other, each `delay` seconds later."""

    def __init__(self, rate: float, delay: float) -> None:
        self.rate, self.delay = rate, delay
        self._free = 0.0

    @property
    def room(self) -> int:
        """What may be on its way or wait: a whole round trip's bytes wait beside those that
        travel, which is more than any sender needs to keep the line busy."""
        return int(self.rate * 3 * self.delay) + PIECE

    def arrives(self, now: float, size: int) -> float:
        """When the last of `size` bytes that are sent now is at the other end."""
        self._free = max(now, self._free) + size / self.rate
        return self._free + self.delay


class Lane:
    """One direction of one connection: bytes, and its end, with the moments when they are due."""

    def __init__(self, line: Line, opens: float) -> None:
        self.line, self.opens = line, opens
        self.ended = self.finished = False
        self._pieces: collections.deque[tuple[float, memoryview]] = collections.deque()
        self._held = 0

    def accepts(self, now: float) -> bool:
        return not self.ended and now >= self.opens and self._held < self.line.room

    def put(self, now: float, data: bytes) -> None:
        """Sends `data`; nothing is the end."""
        self.ended = not data
        self._held += len(data)
        self._pieces.append((self.line.arrives(now, len(data)), memoryview(data)))

    def due(self) -> float | None:
        """When the next bytes are there, if any are on their way."""
        return self._pieces[0][0] if self._pieces else None

    def arrived(self, now: float) -> memoryview | None:
        """What is there and was not taken; empty at the end."""
        due = self.due()
        return self._pieces[0][1] if due is not None and due <= now else None

    def take(self, size: int) -> None:
        """The other end has read this much of what has arrived."""
        due, piece = self._pieces.popleft()
        self._held -= size
        if size < len(piece):
            self._pieces.appendleft((due, piece[size:]))
        elif not piece:
            self.finished = True


class _Connection:
    """A client, and later the target, with a lane each way.

    A handshake takes a round trip: the client's first bytes leave after it, and the target hears
    of a connection with its third part.
    """

    def __init__(self, client: socket.socket, up: Line, down: Line, now: float) -> None:
        self.client = client
        self.target: socket.socket | None = None
        self.reaches = now + 2 * up.delay + down.delay
        self.up, self.down = Lane(up, now + up.delay + down.delay), Lane(down, self.reaches)

    def ends(self) -> list[tuple[socket.socket, Lane, Lane]]:
        """Each end that is there, with the lane from it and the one to it."""
        near = [(self.client, self.up, self.down)]
        return near if self.target is None else [*near, (self.target, self.down, self.up)]

    def moments(self) -> list[float | None]:
        """When this connection is to be looked at, whatever its sockets say."""
        opening = [self.up.opens, self.reaches] if self.target is None else []
        return [*opening, self.up.due(), self.down.due()]

    def close(self) -> None:
        for one in (self.client, self.target):
            if one is not None:
                one.close()


class Link:
    """Carries connections to one port of this machine."""

    def __init__(self, target: int, rate: float, delay: float) -> None:
        self._target = target
        self._up, self._down = Line(rate, delay), Line(rate, delay)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[_Connection] = []

    def run(self) -> None:
        while True:
            self.step()

    def step(self) -> None:
        """Waits for the next thing to do and does it."""
        now = time.monotonic()
        reads: dict[socket.socket, Lane] = {}
        writes: dict[socket.socket, Lane] = {}
        moments = []
        for one in self._open:
            for sock, away, here in one.ends():
                if away.accepts(now):
                    reads[sock] = away
                if here.arrived(now) is not None:
                    writes[sock] = here
            moments += [moment for moment in one.moments() if moment is not None and moment > now]
        wait = max(0.0, min(moments) - now) if moments else None
        readable, writable, _ = select.select([self._listener, *reads], list(writes), [], wait)
        now = time.monotonic()
        gone: set[socket.socket] = set()
        for sink in writable:
            _write(sink, writes[sink], gone)
        for source in readable:
            if source is self._listener:
                self._accept(now)
            else:
                _read(source, reads[source], now)
        self._settle(now, gone)

    def close(self) -> None:
        self._listener.close()
        for one in self._open:
            one.close()

    def _accept(self, now: float) -> None:
        client, _ = self._listener.accept()
        self._open.append(_Connection(_ready(client), self._up, self._down, now))

    def _settle(self, now: float, gone: set[socket.socket]) -> None:
        """Reaches the target for those whose time it is, and lets go of those that have ended."""
        for one in list(self._open):
            if one.target is None and now >= one.reaches:
                try:
                    one.target = _ready(socket.create_connection(("127.0.0.1", self._target)))
                except ConnectionRefusedError:
                    gone.add(one.client)
            over = one.up.finished and one.down.finished
            if over or one.client in gone or one.target in gone:
                self._open.remove(one)
                one.close()


def _ready(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, buffer, _BUFFER)
    return sock


def _read(source: socket.socket, lane: Lane, now: float) -> None:
    try:
        lane.put(now, source.recv(PIECE))
    except BlockingIOError:
        return
    except ConnectionResetError:
        lane.put(now, b"")


def _write(sink: socket.socket, lane: Lane, gone: set[socket.socket]) -> None:
    piece = lane.arrived(time.monotonic())
    if piece is None:
        return
    try:
        if piece:
            lane.take(sink.send(piece))
        else:
            lane.take(0)
            sink.shutdown(socket.SHUT_WR)
    except BlockingIOError:
        return
    except OSError:  # whoever was there has gone, and so does the connection
        gone.add(sink)


@contextlib.contextmanager
def link(target: int, mbit: float, milliseconds: float) -> Iterator[int]:
    """A link to a port, in a process of its own; the port of its near end."""
    command = [sys.executable, "-m", "benchmarks.link", str(target), str(mbit), str(milliseconds)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def carried(mbit: float, milliseconds: float, megabytes: int = 128) -> float:
    """Mbit/s of plain TCP through such a link: what this machine's cores make of it at best."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def sending() -> None:
            sock, _ = listener.accept()
            with sock:
                for _ in range(megabytes):
                    sock.sendall(bytes(_MEGABYTE))

        sender = threading.Thread(target=sending)
        with link(listener.getsockname()[1], mbit, milliseconds) as port:
            sender.start()
            began = time.perf_counter()
            with socket.create_connection(("127.0.0.1", port)) as sock:
                while sock.recv(_MEGABYTE):
                    pass
            taken = time.perf_counter() - began
        sender.join()
    return megabytes * _MEGABYTE * 8 / 1e6 / taken


def main(target: str, mbit: str, milliseconds: str) -> None:
    one = Link(int(target), float(mbit) * 1e6 / 8, float(milliseconds) / 1000)
    print(one.port, flush=True)
    with contextlib.closing(one):
        one.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
