"""Between a WebSocket with ordinary frames and an sshd.

Each direction reads only when what it read before has been taken: a slow reader slows its writer,
and nothing grows here. A Close from one side ends that direction; the other one goes on until it
has said everything.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import struct

from tornado.iostream import IOStream, StreamClosedError

from gpudev_client.ssh import frames

log = logging.getLogger("gpudev_lab.sshd")

CHUNK = 256 * 1024
#: Seconds without data from either side after which a ping keeps proxies from cutting.
PING_EVERY = 30.0
#: Seconds that the client has to take our Close and to answer it.
GRACE = 10.0
#: Seconds between looks at whether sshd has ended, and those for which a client may take nothing of
#: what is still on its way then.
LOOK = 1.0
LINGER = 30.0


async def run(stream: IOStream, sshd: socket.socket) -> None:
    """Relays until both directions have ended; closes both."""
    await Relay(stream, sshd).run()


class Relay:
    """One connection. `stream` is the WebSocket after the handshake, `sshd` one end of a pair."""

    def __init__(self, stream: IOStream, sshd: socket.socket) -> None:
        sshd.setblocking(False)
        stream.read_chunk_size = CHUNK
        self._stream, self._sshd = stream, sshd
        self._decoder = frames.Decoder(from_client=True)
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._code = frames.NORMAL
        #: When the client last took something.
        self._moved = 0.0

    async def run(self) -> None:
        pings = self._loop.create_task(self._ping())
        up = self._loop.create_task(self._up())
        watch = self._loop.create_task(self._watch())
        try:
            await self._down()
            async with asyncio.timeout(GRACE):
                await self._close()
                await asyncio.shield(up)
        except (StreamClosedError, OSError, TimeoutError):
            log.debug("an SSH connection was cut")
        finally:
            for task in (pings, up, watch):
                task.cancel()
            await asyncio.gather(pings, up, watch, return_exceptions=True)
            self._sshd.close()
            self._stream.close()

    async def _up(self) -> None:
        """From the client to sshd."""
        try:
            while True:
                data = await self._stream.read_bytes(CHUNK, partial=True)
                for opcode, payload in self._decoder.feed(data):
                    if opcode == frames.BINARY:
                        await self._to_sshd(payload)
                    elif opcode == frames.PING:
                        await self._send(frames.PONG, payload)
                    elif opcode == frames.CLOSE:
                        return
        except frames.Violation as violation:
            self._code = violation.code
        except (StreamClosedError, OSError):
            # Nobody is there any more to whom anything could be said.
            self._stream.close()
        finally:
            self._end_of_input()

    async def _to_sshd(self, payload: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._sshd, payload)
        except (BrokenPipeError, ConnectionResetError):
            return  # sshd has ended; what it said before still goes down

    async def _down(self) -> None:
        """From sshd to the client, until sshd ends."""
        while True:
            try:
                data = await self._loop.sock_recv(self._sshd, CHUNK)
            except ConnectionResetError:
                return
            if not data:
                return
            await self._send(frames.BINARY, data)
            self._moved = self._loop.time()

    async def _watch(self) -> None:
        """Cuts the connection of a client that takes nothing more after sshd has ended: `_down`
        waits for it, and would not see that end."""
        end = select.poll()
        end.register(self._sshd, 0)  # only for POLLHUP
        while not end.poll(0):  # noqa: ASYNC110 - a system's state, which no event tells
            await asyncio.sleep(LOOK)
        self._moved = self._loop.time()
        while (left := self._moved + LINGER - self._loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)
        log.info("an SSH client that takes nothing was cut off")
        if not self._stream.closed():
            now = struct.pack("ii", 1, 0)
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            self._stream.close()

    async def _send(self, opcode: int, payload: bytes) -> None:
        async with self._writing:
            if not self._closed:
                await self._stream.write(frames.encode(opcode, payload))

    async def _close(self) -> None:
        async with self._writing:
            self._closed = True
            await self._stream.write(frames.encode(frames.CLOSE, frames.closing(self._code)))

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY)
            try:
                await self._send(frames.PING, b"")
            except StreamClosedError:
                return

    def _end_of_input(self) -> None:
        try:
            self._sshd.shutdown(socket.SHUT_WR)
        except OSError:
            return  # sshd has gone before
