"""A proxy that does to calls what networks do: twice, late, out of order, cut in the middle.

It speaks HTTP/1.1 with one call per connection, which is all that a benchmark's client needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

#: What becomes of a call, and how often.
FAULTS = {
    "passed": 40,  # nothing happens to it
    "repeated": 12,  # delivered twice at once
    "answer cut": 12,  # delivered; half of the answer comes back
    "answer lost": 12,  # delivered; nothing comes back
    "request cut": 6,  # half of the call gets there
    "request lost": 6,  # it never gets there
    "late": 8,  # the client hears nothing, and it gets there after calls that were made later
    "again later": 4,  # as if passed, and the same once more after later calls
}


class Faulty:
    """Between clients and a service at `port`."""

    def __init__(self, port: int, seed: int) -> None:
        self._target, self._rng = port, random.Random(seed)
        self._server: asyncio.Server | None = None
        self._held: list[bytes] = []
        self._tasks: set[asyncio.Task[bytes]] = set()
        self.counts: Counter[str] = Counter()
        self.delivered = 0

    async def start(self) -> int:
        """Listens; the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Delivers what is still held back, and ends."""
        while self._held:
            self._release()
        await asyncio.gather(*self._tasks)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            fault = self._rng.choices(list(FAULTS), list(FAULTS.values()))[0]
            call = await _call(reader)
            self.counts[fault] += 1
            await self._do(fault, call, writer)
        writer.close()
        if self._held and self._rng.random() < 0.3:
            self._release()

    async def _do(self, fault: str, call: bytes, writer: asyncio.StreamWriter) -> None:
        match fault:
            case "passed":
                writer.write(await self._deliver(call))
            case "repeated":
                both = await asyncio.gather(self._deliver(call), self._deliver(call))
                writer.write(self._rng.choice(both))
            case "answer cut":
                answer = await self._deliver(call)
                writer.write(answer[: len(answer) // 2])
            case "answer lost":
                await self._deliver(call)
            case "request cut":
                await self._deliver(call[: len(call) * 2 // 3], whole=False)
            case "late":
                self._held.append(call)
            case "again later":
                writer.write(await self._deliver(call))
                self._held.append(call)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    def _release(self) -> None:
        """Lets one of those that are held back go, whichever."""
        call = self._held.pop(self._rng.randrange(len(self._held)))
        task = asyncio.create_task(self._deliver(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, call: bytes, *, whole: bool = True) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            writer.write(call)
            if not whole:
                writer.write_eof()
            await writer.drain()
            answer = await reader.read()
            self.delivered += 1
            return answer
        except ConnectionError:
            return b""
        finally:
            writer.close()


async def _call(reader: asyncio.StreamReader) -> bytes:
    """One call, as bytes; the connection is for it alone."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = 0
    kept = []
    for line in lines[:-2]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        if name.lower() != b"connection":
            kept.append(line)
    body = await reader.readexactly(length) if length else b""
    return b"\r\n".join([*kept, b"Connection: close", b"", b""]) + body
