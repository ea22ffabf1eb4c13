"""How long what was taken away still works: a guest's after their removal, everybody's after the
lease's end.

A real Hub, server and sshd. The owner and two guests have an SSH session and a connection to a
kernel each, and ask with their tokens all the time, so that no cache runs out unasked. One guest is
removed; the lease then ends by its time. `ROUNDS` is how often.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Awaitable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx

from benchmarks.campaign import size
from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.e2e.conftest import LIGHT_SERVERS
from tests.e2e.waiting import PATIENCE, until
from tests.fixtures.hub import RunningHub
from tests.fixtures.processes import marked
from tests.ssh.test_hub import Somebody, closed, ended, into, invite, kernel

FULL = 5
ROUNDS = size("ROUNDS", FULL, 1)
#: Leases of seconds; all other times are as they are where nobody has said anything.
_SERVICE = """
c.GpuDev.policy = {"min_hours": 0.0005, "default": {"max_hours": 24, "max_extension_hours": 24}}
c.GpuDev.times = {"warnings": []}
"""
#: Seconds that a lease has left for the next step, and between two questions with a token.
_LEFT, _PAUSE = 20.0, 0.05
#: By what it was ("removed: SSH"), after how many seconds it had ended, in each round.
Found = dict[str, list[float]]


async def refused(url: str, token: str) -> datetime:
    """Asks until the answer is no. A "too often" is none."""
    login = {"Authorization": f"token {token}"}
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE, headers=login) as http:
        while True:
            answer = await http.get(url)
            now = datetime.now(UTC)
            if not answer.is_success and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                return now
            await asyncio.sleep(_PAUSE)


class Round:
    """One lease and its three people."""

    def __init__(self, hub: RunningHub, folder: Path, number: int, last: ExitStack) -> None:
        self._hub, self._last = hub, last
        self.ada, self.bob, self.eve = (
            Somebody(hub, f"{name}-{number}", folder) for name in ("owner", "removed", "stays")
        )
        for one in (self.ada, self.bob, self.eve):
            one.add_key()
        self.lease = self._lease()
        self._server = f"{hub.url}/user/{self.ada.name}/{self.lease.server_name}"
        self._look = f"{hub.service}/api/v1/reservations/{self.lease.id}"

    def _lease(self) -> Reservation:
        got = self.ada.reserve(gpu_type="t4", hours=0.01)

        def there() -> Reservation | None:
            self.ada.at_least(got.id, _LEFT)
            found = self.ada.look(got.id)
            return found if found.state is State.ACTIVE else None

        return until(there, "the server is there")

    async def measure(self) -> Found:
        """All seconds of this lease."""
        channels = kernel(self.ada, self.lease)
        held: dict[str, dict[str, Awaitable[datetime]]] = {}
        for one in (self.ada, self.bob, self.eve):
            if one is not self.ada:
                invite(self.ada, self.lease, one).raise_for_status()
            one.laptop.host = f"gpudev-{self.lease.id}"
            held[one.name] = await self._hold(one, channels)
        found = {f"removed: {what}": s for what, s in (await self._removed(held)).items()}
        found |= {f"ended: {what}": s for what, s in (await self._ended(held)).items()}
        return found

    async def _hold(self, who: Somebody, channels: str) -> dict[str, Awaitable[datetime]]:
        """A person's session, their connection, and their token, by when each has ended."""
        self.ada.at_least(self.lease.id, _LEFT)
        session = await asyncio.to_thread(who.session, "exec sleep 1000")
        self._last.callback(_end, session)
        self.ada.at_least(self.lease.id, _LEFT)
        connection = await into(who, channels)
        return {
            "SSH": asyncio.create_task(asyncio.to_thread(ended, session)),
            "kernel": asyncio.create_task(closed(connection)),
            "token": asyncio.create_task(refused(f"{self._server}/api/status", who.token)),
        }

    async def _removed(self, held: dict[str, dict[str, Awaitable[datetime]]]) -> Found:
        ends = held[self.bob.name]
        ends["token at the service"] = asyncio.create_task(refused(self._look, self.bob.token))
        self.ada.at_least(self.lease.id, _LEFT)
        await asyncio.sleep(1)
        begun = datetime.now(UTC)
        path = f"/reservations/{self.lease.id}/collaborators/{self.bob.name}"
        answer = await asyncio.to_thread(self.ada.call, "DELETE", path)
        answer.raise_for_status()
        found = await _seconds(ends, begun)
        again = await asyncio.to_thread(self.bob.laptop.ssh, "true")
        assert again.returncode == 255, "who was removed came in again"
        return found

    async def _ended(self, held: dict[str, dict[str, Awaitable[datetime]]]) -> Found:
        own = self._servers_token()
        ends = {
            f"{what} of the {role}": end
            for role, who in (("owner", self.ada), ("guest", self.eve))
            for what, end in held[who.name].items()
        }
        for where, address in (("service", self._look), ("Hub", f"{self._hub.url}/hub/api/user")):
            waits = asyncio.create_task(refused(address, own))
            ends[f"the server's token at the {where}"] = waits
        await asyncio.sleep(1)
        early = [what for what, end in ends.items() if isinstance(end, asyncio.Task) and end.done()]
        over = await asyncio.to_thread(self.ada.look, self.lease.id)
        assert not early, f"ended before its time: {early}"
        assert over.expires_at is not None
        found = await _seconds(ends, over.expires_at)
        await asyncio.to_thread(self.ada.until_over, self.lease.id, State.EXPIRED)
        return found

    def _servers_token(self) -> str:
        """What the server itself asks the Hub and the service with."""
        own = (
            one.environ().get("JUPYTERHUB_API_TOKEN")
            for one in marked("GPUDEV_RESERVATION", self.lease.id)
        )
        return next(token for token in own if token)


async def _seconds(ends: dict[str, Awaitable[datetime]], since: datetime) -> Found:
    async with asyncio.timeout(PATIENCE):
        moments = await asyncio.gather(*ends.values())
    return {what: [(at - since).total_seconds()] for what, at in zip(ends, moments, strict=True)}


def _end(session: subprocess.Popen[bytes]) -> None:
    if session.poll() is None:
        session.kill()
        session.communicate()


def measure() -> Found:
    """What was seen in all rounds."""
    found: Found = {}
    hub = RunningHub(service_config=_SERVICE, hub_config=LIGHT_SERVERS)
    try:
        hub.start()
        for number in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder, ExitStack() as last:
                made = Round(hub, Path(folder), number, last)
                for what, seconds in asyncio.run(made.measure()).items():
                    found.setdefault(what, []).extend(seconds)
    finally:
        hub.remove()
    for what, seconds in found.items():
        print(f"{what} after {' '.join(f'{one:.2f}' for one in sorted(seconds))} s")
    return found
