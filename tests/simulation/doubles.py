"""What surrounds the service, misbehaving on purpose: machine, Hub, disks, a store that is killed.

What they hold (processes, rows of the Hub) outlives a crash of the service, as in life.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.background import Background
from gpudev_service.disks.base import DiskBusy, DiskFull, Progress, SnapshotInfo
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.hub import Hub, HubAway, HubRefused, HubServer
from gpudev_service.servers.base import Handle
from gpudev_service.store.engine import ATTEMPTS, Store
from gpudev_service.store.errors import OutcomeUnknown, StoreUnavailable

from .inline import at_once

T = TypeVar("T")


class Crash(BaseException):
    """The service is killed here; nothing may catch it, as nothing catches `kill -9`."""


class Trouble(OSError):  # noqa: N818 - the machine's, not an error of ours
    """A fault of the machine that the service did not cause."""


@dataclass
class Chance:
    """Decides whether things go wrong. `calm` is a world in which everything works."""

    rng: random.Random
    calm: bool = False

    def strikes(self, probability: float) -> bool:
        return not self.calm and self.rng.random() < probability


@dataclass
class Process:
    """A server on the machine. It survives `stubborn` attempts to end it."""

    stubborn: int
    began_with_lease: bool
    generation: int


@dataclass
class Machine:
    """The processes that carry a reservation's mark."""

    chance: Chance
    processes: dict[str, Process] = field(default_factory=dict)
    started: int = 0

    def start(self, key: str, *, leased: bool) -> Handle:
        self.started += 1
        stubborn = self.chance.rng.choice((0, 0, 0, 1, 3)) if not self.chance.calm else 0
        self.processes[key] = Process(stubborn, leased, self.started)
        return {"kind": "process", "pid": self.started, "created": float(self.started)}


class TroubledServers:
    """Finds and ends processes of the machine, now and then not."""

    def __init__(self, machine: Machine, between: Callable[[], Awaitable[None]]) -> None:
        self._machine, self._between = machine, between

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        await self._between()
        self._trouble()
        return reservation_id in self._machine.processes

    async def told_gone(self, reservation_id: str) -> None:
        await self._between()
        self._trouble()
        if reservation_id in self._machine.processes:
            await asyncio.Event().wait()

    async def stop(self, reservation_id: str, handle: Handle | None, grace: float) -> bool:
        await self._between()
        self._trouble()
        process = self._machine.processes.get(reservation_id)
        if process is None:
            return True
        if process.stubborn > 0 and not self._machine.chance.calm:
            process.stubborn -= 1
            return False
        del self._machine.processes[reservation_id]
        return True

    async def running(self) -> set[str]:
        await self._between()
        self._trouble()
        return set(self._machine.processes)

    async def give_up(self) -> None:
        await self._between()
        self._trouble()

    async def main_gone(self, reservation_id: str, handle: Handle | None) -> bool:
        await self._between()
        self._trouble()
        return False

    async def is_idle(self, reservation_id: str, handle: Any) -> bool:
        await self._between()
        self._trouble()
        return reservation_id in self._machine.processes

    async def why_gone(self, reservation_id: str) -> str | None:
        self._trouble()
        return None

    async def tell(self, reservation_id: str, text: str) -> int:
        self._trouble()
        return 1

    def _trouble(self) -> None:
        if self._machine.chance.strikes(0.03):
            raise Trouble("the machine does not say")


@dataclass
class HubRow:
    """A server as the Hub has it; `reservation` is what its start was asked for."""

    pending: str | None = None
    ready: bool = False
    reservation: str | None = None


class TroubledHub(Hub):
    """A Hub that may be away, refuse, and do what it was asked without saying so."""

    def __init__(self, machine: Machine, between: Callable[[], Awaitable[None]]) -> None:
        self.machine, self._between = machine, between
        self.rows: dict[tuple[str, str], HubRow] = {}
        #: By server, who else may come in.
        self.guests: dict[tuple[str, str], set[str]] = {}
        self.away = False

    async def close(self) -> None:
        return

    async def server(self, user: str, name: str) -> HubServer | None:
        await self._asked()
        row = self.rows.get((user, name))
        return None if row is None else _shown(user, name, row)

    async def servers(self) -> list[HubServer]:
        await self._asked()
        return [_shown(user, name, row) for (user, name), row in self.rows.items()]

    async def groups(self, user: str) -> tuple[str, ...] | None:
        await self._asked()
        return ()

    async def start(self, user: str, name: str, reservation_id: str) -> None:
        await self._asked()
        if self.machine.chance.strikes(0.02):
            raise HubRefused(403, "not today")
        row = self.rows.setdefault((user, name), HubRow())
        if not row.ready and row.pending is None:
            row.pending, row.reservation = "spawn", reservation_id
        self._answer()

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        await self._asked()
        row = self.rows.get((user, name))
        if row is not None:
            if row.reservation and self.machine.chance.rng.random() < 0.7:
                # The Hub's own stop often works, and sometimes only the Hub believes so.
                process = self.machine.processes.get(row.reservation)
                if process is not None and (process.stubborn == 0 or self.machine.chance.calm):
                    del self.machine.processes[row.reservation]
            row.pending, row.ready, row.reservation = None, False, None
            if remove:
                self.forget(user, name)
        self._answer()

    async def remove(self, user: str, name: str) -> None:
        await self._asked()
        row = self.rows.get((user, name))
        if row is not None and (row.ready or row.pending):
            raise HubRefused(409, "it runs, starts or stops")
        self.forget(user, name)
        self._answer()

    def forget(self, user: str, name: str) -> None:
        """The row goes, and with it who was let in."""
        self.rows.pop((user, name), None)
        self.guests.pop((user, name), None)

    async def share(self, owner: str, name: str, user: str) -> None:
        await self._asked()
        if (owner, name) not in self.rows or self.machine.chance.strikes(0.05):
            raise HubRefused(404, "no such server")
        self.guests.setdefault((owner, name), set()).add(user)
        self._answer()

    async def unshare(self, owner: str, name: str, user: str) -> None:
        await self._asked()
        self.guests.get((owner, name), set()).discard(user)
        self._answer()

    async def shares(self, owner: str, name: str) -> frozenset[str]:
        await self._asked()
        return frozenset(self.guests.get((owner, name), ()))

    async def _asked(self) -> None:
        await self._between()
        if self.away or self.machine.chance.strikes(0.08):
            raise HubAway("ConnectError")

    def _answer(self) -> None:
        if self.machine.chance.strikes(0.08):
            raise HubAway("ReadTimeout")


def _shown(user: str, name: str, row: HubRow) -> HubServer:
    stopped = not row.ready and row.pending is None
    return HubServer(user, name, row.ready, row.pending, stopped, None, None)


class TroubledDisks(DirectoryDisks):
    """Real directories on a file system that is full, busy or broken now and then."""

    def __init__(self, root: Path, chance: Chance) -> None:
        super().__init__(root)
        self._chance = chance

    async def create(self, disk_id: str, size_gb: int | None = None) -> None:
        if self._chance.strikes(0.05):
            raise DiskFull("there is no room left for disks")
        await super().create(disk_id, size_gb)

    async def snapshot(
        self, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> SnapshotInfo:
        if self._chance.strikes(0.1):
            raise self._chance.rng.choice(
                (DiskFull("there is no room left for disks"), DiskBusy("busy"), Trouble("torn"))
            )
        return await super().snapshot(disk_id, snapshot_id, progress)


@dataclass
class Kills:
    """At which commit of a life the service is killed, and at which places it has been.

    `at` counts all commits of a life from 1; `after` says on which side of it.
    """

    at: int | None = None
    after: bool = False
    commits: int = 0
    #: Where transactions come from.
    sites: Counter[str] = field(default_factory=Counter)
    #: The same with the side on which they were killed.
    struck: Counter[str] = field(default_factory=Counter)

    def next(self, work: Callable[..., Any]) -> str:
        self.commits += 1
        work = getattr(work, "func", work)  # of a `partial`
        site = f"{work.__module__}.{work.__qualname__}".replace("<locals>.", "")
        self.sites[site] += 1
        return site


class MortalStore(Store):
    """A real store of a service that is killed before or after one of its commits."""

    def __init__(self, url: str, chance: Chance, kills: Kills) -> None:
        super().__init__(url)
        at_once(self._engines)
        self._chance, self._kills = chance, kills
        #: Commits until the kill; None: it lives.
        self.crash_in: int | None = None
        self.crash_after_commit = False
        self.away = False
        self.dead = False

    async def run(
        self, work: Callable[[AsyncSession], Awaitable[T]], *, attempts: int = ATTEMPTS
    ) -> T:
        self._breathe()
        site = self._kills.next(work)
        now, after = self.crash_in == 0, self.crash_after_commit
        if self.crash_in is not None:
            self.crash_in -= 1
        if self._kills.at == self._kills.commits:
            now, after = True, self._kills.after
        if now and not after:
            self._die(f"before {site}")
        if self._chance.strikes(0.005):
            raise OutcomeUnknown("The database cannot be used at the moment.")
        result = await super().run(work, attempts=attempts)
        if now:
            self._die(f"after {site}")
        if self._chance.strikes(0.005):
            # Nobody knows of the commit, nor of what would be kept of it.
            self.memory.forget()
            self.memory.count = None
            raise OutcomeUnknown("The database cannot be used at the moment.")
        return result

    def reading(self) -> Any:
        self._breathe()
        return super().reading()

    def _breathe(self) -> None:
        if self.dead:
            raise Crash
        if self.away:
            raise StoreUnavailable("The database cannot be used at the moment.")

    def _die(self, where: str) -> None:
        self._kills.struck[where] += 1
        self.dead = True
        raise Crash(where)


class InTurn(Background):
    """Background work that begins when it is told to, one after the other in an order that the
    seed decides: so that a run can be repeated exactly."""

    def __init__(self, chance: Chance) -> None:
        super().__init__()
        self._chance = chance
        self._waiting: dict[str, Coroutine[Any, Any, None]] = {}
        self.failures: list[Exception] = []
        #: Pieces of work that were done.
        self.done = 0

    @property
    def waiting(self) -> int:
        """Pieces of work that are not done."""
        return len(self._waiting)

    def running(self, key: str) -> bool:
        return key in self._waiting

    def start(self, key: str, work: Coroutine[Any, Any, None]) -> bool:
        if key in self._waiting:
            work.close()
            return False
        self._waiting[key] = work
        return True

    async def settle(self) -> None:
        while self._waiting:
            self.done += 1
            key = self._chance.rng.choice(list(self._waiting))
            try:
                await self._waiting[key]
            except Exception as error:  # noqa: BLE001 - judged by whoever runs the simulation
                self.failures.append(error)
            finally:
                self._waiting.pop(key, None)

    def lose(self) -> None:
        """What a crash does to it."""
        for work in self._waiting.values():
            work.close()
        self._waiting.clear()
