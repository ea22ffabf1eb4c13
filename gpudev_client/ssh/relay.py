"""Between `ssh` and the WebSocket: handing the connection over, or carrying bytes.

One loop, nothing in it waits, and each direction holds at most `LIMIT` bytes: while its reader is
slow, nothing more is read from its writer.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING

from . import frames
from .problems import Problem

if TYPE_CHECKING:
    from .tls import TlsSocket

    Network = socket.socket | TlsSocket

LIMIT = 512 * 1024
CHUNK = 256 * 1024
#: Of the pipe to `ssh`, where the system lets it grow: with the usual 64 KiB we would be woken for
#: each piece that `ssh` takes.
PIPE = 512 * 1024
#: Seconds that the other side has to finish after we have.
GRACE = 10.0
#: Seconds for which nothing at all may come before the server's first words. What lets WebSockets
#: through lets a server's pings through, each 30 seconds, however long its first words take.
SILENCE = 60.0
#: How an SSH server begins.
_FIRST_WORDS = b"SSH-"
#: Seconds; a timeout of 0 would mean not to wait at all.
_LEAST = 0.01
_GONE = select.POLLERR | select.POLLNVAL
_READABLE = select.POLLIN | select.POLLHUP


class Way:
    """A WebSocket that is open: what its bytes mean. `early` has come already."""

    #: Whether `finish` says it. Else the end of the connection's own direction does, which many a
    #: program on the way takes for the end of both.
    says_so = False

    def __init__(self, sock: Network) -> None:
        self.sock = sock
        self.early = b""
        #: Whether anything came at all.
        self.heard = False
        #: To be sent whatever else happens: answers to pings, our Close.
        self.replies = b""
        self.ended = False

    def plain_socket(self) -> socket.socket | None:
        """The socket, where it is what `ssh` itself may have."""
        return None

    def outgoing(self, data: bytes) -> bytes:
        """`data` as it goes over the network."""
        raise NotImplementedError

    def finish(self) -> bytes:
        """What says that nothing more comes from us."""
        raise NotImplementedError

    def incoming(self, data: memoryview) -> bytes | memoryview:
        """The data in what came over the network. `data` is good until more is read."""
        raise NotImplementedError


class Raw(Way):
    """One endless frame each way. It is of use once `speaks` has found that it comes through."""

    def __init__(self, sock: Network, rest: bytes) -> None:
        super().__init__(sock)
        self._rest = rest

    def plain_socket(self) -> socket.socket | None:
        return self.sock if isinstance(self.sock, socket.socket) and not self.early else None

    def speaks(self, seconds: float) -> bool:
        """Whether the server's header and first words come through. Something on the way may hold
        them back, close the connection, or cut it."""
        deadline = time.monotonic() + seconds
        try:
            self.sock.sendall(frames.CLIENT_OPENING)
            wanted = len(frames.SERVER_OPENING)
            while len(self._rest) < wanted:
                piece = self._receive(wanted - len(self._rest), deadline)
                if not piece:
                    return False
                self._rest += piece
            self.early = self._rest[wanted:]
            if not self._rest.startswith(frames.SERVER_OPENING):
                return False
            plain = self.plain_socket()
            if plain is not None:
                plain.settimeout(_left(deadline))
                first = plain.recv(len(_FIRST_WORDS), socket.MSG_PEEK)
            else:
                self.early = first = self.early or self._receive(CHUNK, deadline)
        except OSError:
            return False
        return bool(first) and first.startswith(_FIRST_WORDS[: len(first)])

    def _receive(self, most: int, deadline: float) -> bytes:
        self.sock.settimeout(_left(deadline))
        return self.sock.recv(most)

    def outgoing(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""

    def incoming(self, data: memoryview) -> memoryview:
        return data


class Framed(Way):
    """Ordinary frames, masked as a client masks them."""

    says_so = True

    def __init__(self, sock: Network, rest: bytes) -> None:
        super().__init__(sock)
        self._decoder = frames.Decoder(from_client=False)
        self._finished = False
        self.early = self.incoming(memoryview(rest))

    def outgoing(self, data: bytes) -> bytes:
        return frames.encode(frames.BINARY, data, os.urandom(4))

    def finish(self) -> bytes:
        if self._finished:
            return b""
        self._finished = True
        return frames.encode(frames.CLOSE, frames.closing(), os.urandom(4))

    def incoming(self, data: memoryview) -> bytes:
        pieces = []
        try:
            for opcode, payload in self._decoder.feed(bytes(data)):
                if opcode == frames.BINARY:
                    pieces.append(payload)
                elif opcode == frames.PING and not self._finished:
                    self.replies += frames.encode(frames.PONG, payload, os.urandom(4))
                elif opcode == frames.CLOSE:
                    self.ended = True
        except frames.Violation as violation:
            raise Problem(f"The connection was not understood: {violation}.") from violation
        return b"".join(pieces)


def pass_socket(sock: socket.socket) -> None:
    """Gives the connection to `ssh`, which waits for it at our standard output."""
    sock.settimeout(None)
    with socket.socket(fileno=os.dup(1)) as out:
        socket.send_fds(out, [b"\0"], [sock.fileno()])


def run_behind(way: Way) -> int:
    """Gives `ssh` one end of a pair and relays from the other in a process of its own, because
    `ssh` waits for the end of this one."""
    ours, theirs = socket.socketpair()
    pass_socket(theirs)
    theirs.close()
    if os.fork():
        return 0
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    return run(way, ours.fileno(), ours.fileno())


def run(way: Way, fd_in: int, fd_out: int) -> int:
    """Relays until one side has gone; 1 where the other one went, or stays, without a word."""
    before = {fd: os.get_blocking(fd) for fd in (fd_in, fd_out)}
    for fd in before:
        os.set_blocking(fd, False)
    _widen(fd_out)
    loop = _Loop(way, fd_in, fd_out)
    try:
        loop.run()
    except (BrokenPipeError, ConnectionResetError):
        # `ssh` or the server has gone; after its first words `ssh` says what there is to say.
        loop.gone_first = loop.gone_first or loop.in_open
    finally:
        way.sock.close()
        for fd, blocking in before.items():
            os.set_blocking(fd, blocking)
    return 1 if loop.cut else 0


class _Loop:
    """The state of one relay."""

    def __init__(self, way: Way, fd_in: int, fd_out: int) -> None:
        self.way, self.fd_in, self.fd_out = way, fd_in, fd_out
        self.net = _Net(way.sock)
        self.space = memoryview(bytearray(CHUNK))
        self.to_net, self.to_out = bytearray(), bytearray(way.early)
        self.in_open, self.net_open, self.gone_first = True, True, False
        self.told, self.shut = False, False
        way.heard = bool(way.early)
        #: When something last moved; counts once our side has ended.
        self.progress = 0.0
        #: When the network is taken for gone; counts until the first words.
        self.silent_until = time.monotonic() + SILENCE

    @property
    def cut(self) -> bool:
        """Whether the network went before anything came, while `ssh` was there."""
        return self.gone_first and not self.way.heard

    def run(self) -> None:
        while True:
            self._collect()
            if not self._unfinished():
                return
            ready = self._poll()
            if ready.get(self.fd_out, 0) & _GONE:
                return
            if self._may_read_in() and ready.get(self.fd_in, 0) & _READABLE:
                self._read_in()
            if self._may_read_net() and self.net.readable(ready):
                self._read_net()
            if self._has_for_net() and self.net.writable(ready):
                self._write_net()
            if self.to_out and ready.get(self.fd_out, 0) & select.POLLOUT:
                self._moved(self.to_out, _write(self.fd_out, self.to_out))
            # Whoever waits for us may be stopped for hours; the network may not. Its time begins
            # with our end being told, however long nothing had moved before.
            if self.told and not self.to_out and time.monotonic() > self.progress + GRACE:
                return
            # `ssh` itself would wait for ever.
            if self.in_open and not self.way.heard and time.monotonic() > self.silent_until:
                self.gone_first = True
                return

    def _unfinished(self) -> bool:
        return self.net_open or bool(self.to_out) or self._has_for_net()

    def _has_for_net(self) -> bool:
        return bool(self.to_net or self.net.unsent)

    def _collect(self) -> None:
        """Puts in line what the protocol itself wants to say."""
        if self.way.replies:
            self.to_net += self.way.replies
            self.way.replies = b""
        if self.way.ended:
            self.gone_first = self.gone_first or self.in_open
            self.net_open = self.in_open = False
        if not self.in_open and not self.told:
            self.told = True
            self.progress = time.monotonic()
            self.to_net += self.way.finish()
        if self.told and not self._has_for_net() and not self.shut:
            self.shut = True
            if not self.way.says_so:
                self.net.finish_writing()

    def _may_read_in(self) -> bool:
        return self.in_open and len(self.to_net) < LIMIT

    def _may_read_net(self) -> bool:
        return self.net_open and len(self.to_out) < LIMIT

    def _moved(self, waiting: bytearray, count: int) -> None:
        if count:
            del waiting[:count]
            self.progress = time.monotonic()

    def _poll(self) -> dict[int, int]:
        wanted: dict[int, int] = {}
        if self._may_read_in():
            wanted[self.fd_in] = select.POLLIN
        # Without anything to write it is only watched for its end.
        if self.to_out or self._may_read_in():
            wanted[self.fd_out] = wanted.get(self.fd_out, 0) | (
                select.POLLOUT if self.to_out else 0
            )
        net = select.POLLIN if self._may_read_net() else 0
        if net or self._has_for_net():
            wanted[self.net.fd] = net | (select.POLLOUT if self._has_for_net() else 0)
        poll = select.poll()
        for fd, what in wanted.items():
            poll.register(fd, what)
        return dict(poll.poll(self._patience()))

    def _patience(self) -> int | None:
        """Milliseconds to wait for something to move."""
        if self._may_read_net() and self.net.pending:
            return 0
        if not self.in_open:
            return int(GRACE * 1000)
        if self.way.heard:
            return None
        return max(0, int((self.silent_until - time.monotonic()) * 1000) + 1)

    def _read_in(self) -> None:
        count = _read(self.fd_in, self.space)
        data = bytes(self.space[: count or 0])
        if count == 0:
            self.in_open = False
        elif data:
            self.to_net += self.way.outgoing(data)
            # It will most often be taken at once, without asking whether it would be.
            self._write_net()

    def _write_net(self) -> None:
        before = self.net.unsent
        self._moved(self.to_net, self.net.write(self.to_net))
        if self.net.unsent != before:
            self.progress = time.monotonic()

    def _read_net(self) -> None:
        data = self.net.read()
        if data is None:
            return
        if not data:
            self.gone_first = self.gone_first or self.in_open
            self.net_open = self.in_open = False
            return
        self.progress = time.monotonic()
        self.silent_until = self.progress + SILENCE
        content = self.way.incoming(data)
        self.way.heard = self.way.heard or bool(content)
        # The same here, and then nothing is copied.
        taken = 0 if self.to_out or not content else _write(self.fd_out, content)
        self.to_out += content[taken:]


class _Net:
    """The network's socket."""

    def __init__(self, sock: Network) -> None:
        sock.setblocking(False)
        self._sock, self.fd = sock, sock.fileno()
        self._tls = None if isinstance(sock, socket.socket) else sock
        self._space = memoryview(bytearray(CHUNK))

    @property
    def unsent(self) -> int:
        """Bytes for the network of what `write` has taken."""
        return 0 if self._tls is None else self._tls.unsent

    @property
    def pending(self) -> bool:
        return self._tls is not None and self._tls.pending

    def readable(self, ready: dict[int, int]) -> bool:
        return bool(ready.get(self.fd, 0) & (_READABLE | select.POLLERR)) or self.pending

    def writable(self, ready: dict[int, int]) -> bool:
        return bool(ready.get(self.fd, 0) & (select.POLLOUT | _GONE))

    def read(self) -> memoryview | None:
        """What is there, until the next call; None where nothing is, empty at the end."""
        try:
            return self._space[: self._sock.recv_into(self._space)]
        except BlockingIOError:
            return None

    def write(self, data: bytearray) -> int:
        """How much of `data` was taken. With nothing, what was taken before goes on its way."""
        try:
            return self._sock.send(memoryview(data)[:CHUNK])
        except BlockingIOError:
            return 0

    def finish_writing(self) -> None:
        """No more from us; a server that still has something to say may say it."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # it has gone: that is no news
                raise


def _widen(fd: int) -> None:
    """Makes a pipe hold more. It is of use only: what is no pipe, and systems and limits that do
    not have it, stay as they are."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE)
        except OSError:
            return


def _left(deadline: float) -> float:
    return max(_LEAST, deadline - time.monotonic())


def _read(fd: int, space: memoryview) -> int | None:
    """How much was read; None where nothing is there. Into the same space each time: the system
    would otherwise hand out and take back the memory for what may be a few bytes."""
    try:
        return os.readv(fd, [space])
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return 0


def _write(fd: int, data: bytes | bytearray | memoryview) -> int:
    try:
        return os.write(fd, memoryview(data)[:CHUNK])
    except BlockingIOError:
        return 0
