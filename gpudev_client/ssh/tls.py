"""TLS over a socket, with the records in memory.

A socket of `ssl` asks the network twice for each record of at most 16 KB and sends each by itself,
which wakes everybody on the way as often. Here what the network has is taken in one call, and what
is to be sent goes in one.
"""

from __future__ import annotations

import socket
import ssl

#: Bytes that are taken from the network at once; many more would not stay in a processor's cache.
_TAKEN = 128 * 1024


class TlsSocket:
    """What is used of a socket, after the handshake. Without blocking `send` keeps back what the
    network did not take: `unsent` says so, and `flush` sends it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        # With no new handshake later, reading never waits for writing, nor the reverse.
        context.options |= ssl.OP_NO_RENEGOTIATION
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname=host)
        self._space = memoryview(bytearray(_TAKEN))
        self._rest = memoryview(b"")
        self._ended = self._more = False
        self._shake_hands()

    @property
    def unsent(self) -> int:
        return len(self._rest) + self._going.pending

    @property
    def pending(self) -> bool:
        """Whether there is more to read, whatever the network has."""
        return self._more

    def recv(self, most: int) -> bytes:
        space = bytearray(most)
        got = self.recv_into(memoryview(space))
        return bytes(space[:got])

    def recv_into(self, space: memoryview) -> int:
        """Reads what is there, and waits only where nothing is; 0 is the end."""
        got = self._decrypted(space)
        # Not every piece has a whole record in it, and not every record data.
        while not got and not self._ended:
            self._take()
            got = self._decrypted(space)
        return got

    def sendall(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush_all()

    def send(self, data: memoryview) -> int:
        """Takes all of `data`, or nothing while something of before is left."""
        self.flush()
        if self.unsent or not data:
            return 0
        count = self._tls.write(data)
        self.flush()
        return count

    def flush(self) -> None:
        """Sends as much of what is left as the network takes."""
        if not self._rest:
            self._rest = memoryview(self._going.read())
        if self._rest:
            try:
                self._rest = self._rest[self._sock.send(self._rest) :]
            except BlockingIOError:
                return

    def fileno(self) -> int:
        return self._sock.fileno()

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def setblocking(self, blocking: bool) -> None:
        self._sock.setblocking(blocking)

    def shutdown(self, how: int) -> None:
        """Of the connection. TLS says nothing of it: its own word for the end of one direction is
        for many the end of both."""
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                pass  # the other side's turn
            finally:
                # Also why it failed: the other side is told.
                self._flush_all()
            self._take()

    def _flush_all(self) -> None:
        while self.unsent:
            self.flush()

    def _take(self) -> None:
        count = self._sock.recv_into(self._space)
        if count:
            self._coming.write(self._space[:count])
        else:
            self._coming.write_eof()

    def _decrypted(self, space: memoryview) -> int:
        """Reads from what has been taken."""
        got, self._more = 0, False
        try:
            while got < len(space):
                count = int(self._tls.read(len(space) - got, space[got:]))
                if not count:
                    self._ended = True
                    return got
                got += count
        except ssl.SSLWantReadError:
            return got
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # With or without a farewell: SSH inside knows whether something is missing.
            self._ended = True
            return got
        self._more = True
        return got
