"""The service in its hostile world: what people, servers, operators and time do to it.

Everything is drawn from the seed and the number of the step, so that a step does the same again
even when steps before it are left out.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from gpudev_client.models import ServerReport
from gpudev_client.states import State
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.fleet import StaticFleet
from gpudev_service.loops import LOOPS
from gpudev_service.operations import capacity
from gpudev_service.settings import Settings, Times
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.invariants import Invariant
from gpudev_service.store.models import CollaboratorRow, ReservationRow
from tests.fixtures.world import ManualClock

from . import remembered
from .doubles import (
    Chance,
    Crash,
    InTurn,
    Kills,
    Machine,
    MortalStore,
    Trouble,
    TroubledDisks,
    TroubledHub,
    TroubledServers,
)
from .invariants import Checker, Violation, left_over, let_in, sound
from .stage import ADMIN, NODES, OTHERWISE, POLICY, TYPES, FailingFleet, Outside
from .steps import STEPS, bring_up, cancel, die, extend, hear_late, report, spawn, submit

#: What may go wrong by itself; anything else that is raised is a finding.
EXPECTED = (Trouble, StoreUnavailable)
#: Rounds after which a world without faults must have ended what is due.
BOUND = 12
#: Loops that are not run at every moment, and how often a sweep over all runs the last of them.
SLOW, RARELY = {"reconcile", "shares", "sizes", "retention"}, 0.2


class Life:
    """One run. `step` does one thing and checks; `end_well` lets the world be kind, and checks."""

    def __init__(self, seed: int, folder: Path, url: str, kills: Kills | None = None) -> None:
        self.seed, self._folder, self._url = seed, folder, url
        self.kills = kills or Kills()
        self.chance = Chance(random.Random(seed))
        self.clock = ManualClock()
        self.machine = Machine(self.chance)
        self.hub = TroubledHub(self.machine, self._between)
        self.checker = Checker(self.machine)
        self.late: list[tuple[str, ServerReport]] = []
        self.log: list[str] = []
        self.crashes = 0
        #: Calls of operations, runs of loops and pieces of background work.
        self.operations = 0
        #: Plans kept in memory that were compared with the rows.
        self.remembered = 0
        self.deep = False
        self.outside = Outside()
        #: How far the machine's clock is ahead of the one that the service goes by.
        self.machine_ahead = timedelta(0)
        self.nodes = NODES
        self.ctx = self._context()

    @property
    def rng(self) -> random.Random:
        return self.chance.rng

    # --- the service ----------------------------------------------------------------------------

    def _context(self) -> Context:
        settings = Settings(
            gpu_types=TYPES,
            nodes=self.nodes,
            policy=POLICY,
            # That of the event loop's clock: the Hub here always answers in the end, and how quick
            # the machine is decides nothing.
            times=Times(hub_patience=3600.0),
            data_dir=self._folder,
            public_url="http://hub.example",
        )
        self.store = MortalStore(self._url, self.chance, self.kills)
        self._disks = TroubledDisks(self._folder / "disks", self.chance)
        self.background = InTurn(self.chance)
        return Context(
            settings=settings,
            store=self.store,
            clock=self.clock,
            fleet=FailingFleet(StaticFleet(settings), self.outside),
            disks=self._disks,
            servers=TroubledServers(self.machine, self._between),
            hub=self.hub,
            background=self.background,
        )

    async def close(self) -> None:
        self.background.lose()
        await self.store.close()
        self._disks.close()

    async def _restart(self) -> None:
        self.crashes += 1
        await self.close()
        self.clock.pass_time(seconds=self.machine_ahead.total_seconds())
        self.machine_ahead = timedelta(0)
        broken = self.rng.choice(NODES).name if self.chance.strikes(0.2) else ""
        self.nodes = tuple(
            node.model_copy(
                update={
                    "ready": node.name != broken,
                    "reason": "broken",
                    **(OTHERWISE.get(node.name, {}) if self.chance.strikes(0.1) else {}),
                }
            )
            for node in NODES
        )
        self.ctx = self._context()

    # --- one step -------------------------------------------------------------------------------

    async def step(self, number: int) -> None:
        """Does what the seed has for `number` and looks whether everything still holds.

        Raises:
            Violation: something does not.
        """
        self.chance.rng = random.Random(f"{self.seed}:{number}")
        name = self.rng.choices(list(STEPS), [weight for weight, _ in STEPS.values()])[0]
        self.log.append(f"{number}: {name}")
        self.operations += 1
        try:
            await STEPS[name][1](self)
        except Crash:
            self.log.append("   the service was killed")
            await self._restart()
        except Refusal as refusal:
            self.log.append(f"   refused: {refusal.code}")
        except EXPECTED as error:
            self.log.append(f"   {type(error).__name__}")
        self._judge_background()
        away, self.store.away = self.store.away, False
        await self._look()
        self.store.away = away

    async def _look(self) -> None:
        if self.store.dead:
            await self._restart()
        await self.checker.look(self.ctx)
        compared, wrong = await remembered.differences(self.ctx)
        self.remembered += compared
        if wrong:
            memory = Invariant.MEMORY_IS_OF_THE_ROWS
            raise Violation(memory.broken(f"kept in memory: {wrong}"))

    def _judge_background(self) -> None:
        for error in self.background.failures:
            if not isinstance(error, (*EXPECTED, Refusal)):
                raise error
        self.background.failures.clear()

    async def end_well(self) -> None:
        """From here on everything works: what is due must end, and nothing may be left over."""
        self.chance.rng = random.Random(f"{self.seed}:end")
        self.chance.calm = True
        self.store.away = self.hub.away = False
        self.store.crash_in = None
        self.outside.failed.clear()
        self.outside.unseen.clear()
        self.outside.cut_off = False
        await self._restart()
        await self._through(self._undrain_all)
        limit = self.clock.now()
        for number in range(BOUND):
            if number == BOUND // 3 and self.rng.random() < 0.5:
                self.hub.guests.clear()  # an older copy of its database was put back
            for part in (self.sweep, self._spawn_all, self._hear_late):
                await self._through(part)
            await self._look()
            self.pass_time(timedelta(seconds=1))
        await self._through(self.sweep)
        await self._look()
        await self._nothing_left(limit)

    async def _nothing_left(self, limit: datetime) -> None:
        hub = {key for key, row in self.hub.rows.items() if row.ready or row.pending}
        rows = await self._rows()
        sound(left_over(rows, self.machine.processes.keys(), hub, limit))
        invited = [
            (one.reservation_id, one.user) for one in await self.guests() if one.role == "use"
        ]
        sound(let_in(rows, invited, self.hub.guests, self.hub.rows.keys()))

    # --- what happens ---------------------------------------------------------------------------

    async def _between(self) -> None:
        """While the service waits for somebody, others go on."""
        if self.deep or not self.chance.strikes(0.12):
            return
        self.deep = True
        try:
            happens = self.rng.choice((cancel, extend, submit, report, hear_late, die, spawn))
            self.log.append(f"   meanwhile: {happens.__name__}")
            self.operations += 1
            with suppress(Refusal, *EXPECTED):
                await happens(self)
        finally:
            self.deep = False

    async def _rows(self, *states: State) -> list[ReservationRow]:
        query = select(ReservationRow).order_by(ReservationRow.submitted_at, ReservationRow.id)
        if states:
            query = query.where(ReservationRow.state.in_(states))
        async with self.ctx.store.reading() as session:
            return list(await session.scalars(query))

    async def guests(self) -> list[CollaboratorRow]:
        """All who are invited."""
        table = CollaboratorRow
        query = select(table).where(table.removed_at.is_(None))
        async with self.ctx.store.reading() as session:
            return list(await session.scalars(query.order_by(table.reservation_id, table.user)))

    async def pick(self, *states: State) -> ReservationRow | None:
        rows = await self._rows(*states)
        return self.rng.choice(rows) if rows else None

    def pass_time(self, span: timedelta) -> None:
        self.clock.pass_time(seconds=span.total_seconds())

    async def sweep(self, *, thorough: bool = True) -> datetime | None:
        """One run of the loops; when they want to be run again. What one raises stops no other."""
        left_out = set() if thorough else SLOW
        if thorough and not self.chance.calm and self.rng.random() > RARELY:
            left_out = {"retention"}
        dues = []
        for run in [loop.run for name, loop in LOOPS.items() if name not in left_out]:
            self.operations += 1
            try:
                dues.append(await run(self.ctx))
            except EXPECTED as error:
                self.log.append(f"   {run.__module__}: {type(error).__name__}")
            except ExceptionGroup as group:
                self.log.append(f"   {run.__module__}: {group}")
                if group.split(EXPECTED)[1] is not None:
                    raise
        await self.background.settle()
        self.operations += self.background.done
        self.background.done = 0
        self._judge_background()
        return min((due for due in dues if due is not None), default=None)

    async def live_through(self, span: timedelta) -> None:
        """Time passes while the loops run when they asked for it, as in a healthy service."""
        end = self.clock.now() + span
        for _ in range(40):
            due = await self.sweep(thorough=self.rng.random() < 0.3)
            stop = min(end, max(due, self.clock.now()) if due else end)
            self.clock.pass_time(seconds=(stop - self.clock.now()).total_seconds())
            if stop >= end:
                break
        await self.sweep()

    async def _through(self, part: Callable[[], Awaitable[object]]) -> None:
        """Does `part`, and once more where the service was killed in it."""
        try:
            await part()
        except Crash:
            self.log.append("   the service was killed")
            await self._restart()
            await part()

    async def _undrain_all(self) -> None:
        for node in NODES:
            await capacity.undrain(self.ctx, node.name, ADMIN)

    async def _spawn_all(self) -> None:
        for key in list(self.hub.rows):
            await bring_up(self, key)

    async def _hear_late(self) -> None:
        while self.late:
            await hear_late(self)
