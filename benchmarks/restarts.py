"""Kernels and SSH sessions over restarts of the service and of the Hub: none may end.

Real ones: a Jupyter server under a real Hub, kernels in it that are talked to over the websocket of
a page that stays open, and `ssh` with a program that sends back what it gets. The service, then the
Hub, then both are killed with SIGKILL and come back. After each, a kernel has been dropped when it
does not say over the same websocket what it was told before, a session when what it is sent does
not come back.
"""

from __future__ import annotations

import asyncio
import json
import select
import signal
import subprocess
import time
from dataclasses import dataclass

import httpx
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, websocket_connect

from benchmarks.campaign import size
from benchmarks.soak import Place
from tests.e2e import kernel as kernels
from tests.e2e.waiting import until
from tests.fixtures.websocket import hang_up

EACH = size("EACH", 10, 3)
RESTARTS = (("service",), ("hub",), ("service", "hub"))
#: Seconds within which a kernel or a session must have answered.
PATIENCE = 30.0


@dataclass
class Dropped:
    """How many of those that were open before the first restart did not go on after the last."""

    kernels: int
    sessions: int
    of: int

    @property
    def none(self) -> bool:
        return not self.kernels and not self.sessions and self.of > 0

    def __str__(self) -> str:
        return f"{self.kernels}-of-{self.of}-kernels,{self.sessions}-of-{self.of}-ssh"


class Kernel:
    """One kernel, and the websocket of the page that has it open."""

    def __init__(self, connection: WebSocketClientConnection, number: int) -> None:
        self._connection, self._number = connection, number

    @classmethod
    async def begun(cls, place: Place, number: int) -> Kernel:
        base = f"{place.base}/api/kernels"
        async with httpx.AsyncClient(trust_env=False, timeout=60, headers=place.header) as http:
            made = (await http.post(base, json={})).raise_for_status()
        address = f"{base.replace('http', 'ws', 1)}/{made.json()['id']}/channels"
        made_of = HTTPRequest(address, headers=place.header)
        kernel = cls(await websocket_connect(made_of), number)
        await kernel._said(f"kept = {number}; print(kept)")
        return kernel

    async def goes_on(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._said("print(kept)") == f"{self._number}\n"
        except (TimeoutError, WebSocketClosedError):
            return False

    async def _said(self, code: str) -> str:
        """What it prints; nothing when the websocket is closed meanwhile."""
        request = f"{self._number}-{time.monotonic_ns()}"
        await self._connection.write_message(json.dumps(kernels._execute(request, code)))
        printed, awaited = "", {"reply", "idle"}
        while awaited:
            text = await self._connection.read_message()
            if text is None:
                return ""
            message = json.loads(text)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                printed += content["text"]
            elif message["msg_type"] == "execute_reply":
                awaited.discard("reply")
            elif message["msg_type"] == "status":
                awaited.discard(content["execution_state"])
        return printed

    async def close(self) -> None:
        await hang_up(self._connection)


class Session:
    """One `ssh` with a program that sends back what it gets."""

    def __init__(self, place: Place) -> None:
        self._process = subprocess.Popen(
            place.laptop.command(place.laptop.host, "cat"),
            env=place.laptop.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )

    def goes_on(self) -> bool:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b"still there\n")
        except BrokenPipeError:
            return False
        got, end = b"", time.monotonic() + PATIENCE
        while not got.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], end - time.monotonic())
            data = self._process.stdout.read(4096) if ready else b""
            if not data:
                return False
            got += data
        return got == b"still there\n"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def restart(place: Place, part: str) -> None:
    """Kills a part; returns when it is there again."""
    if part == "hub":
        place.hub.end("hub", signal.SIGKILL)
        place.hub.start_hub()
        return
    process = place.hub.process("service")
    process.kill()
    process.wait(PATIENCE)

    def answers() -> bool:
        try:
            return place.hub.call("GET", "/health").is_success
        except httpx.TransportError:
            return False

    until(answers, "the service is there again")


async def _through(place: Place) -> Dropped:
    begun = [await Kernel.begun(place, number) for number in range(EACH)]
    sessions = [await asyncio.to_thread(Session, place) for _ in range(EACH)]
    found = Dropped(0, 0, EACH)
    try:
        for one in sessions:
            if not await asyncio.to_thread(one.goes_on):
                raise RuntimeError("a session does not work before anything is restarted")
        for parts in RESTARTS:
            for part in parts:
                await asyncio.to_thread(restart, place, part)
            alive = [await one.goes_on() for one in begun]
            lively = [await asyncio.to_thread(one.goes_on) for one in sessions]
            found.kernels = max(found.kernels, alive.count(False))
            found.sessions = max(found.sessions, lively.count(False))
            print(
                f"after {' and '.join(parts)} were killed: {sum(alive)} of {EACH} kernels and"
                f" {sum(lively)} of {EACH} SSH sessions go on",
                flush=True,
            )
    finally:
        for kernel in begun:
            await kernel.close()
        for session in sessions:
            session.close()
    return found


def measure() -> Dropped:
    """How many were dropped; prints more."""
    with Place() as place:
        return asyncio.run(_through(place))


if __name__ == "__main__":
    print(measure())
