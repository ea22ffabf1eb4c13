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

from gpudev_client.models import Reservation, ReservationRequest, ServerReport
from gpudev_client.states import LIVE, State
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.fleet import StaticFleet
from gpudev_service.loops import driving, expiry, reconcile, retention, starts, warnings
from gpudev_service.operations import capacity, disks, extension, reservations, servers, snapshots
from gpudev_service.settings import GpuTypeSpec, NodeSpec, Settings, Times
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import ManualClock

from .doubles import (
    Chance,
    Crash,
    HubRow,
    InTurn,
    Machine,
    MortalStore,
    Trouble,
    TroubledDisks,
    TroubledHub,
    TroubledServers,
)
from .invariants import Checker, Violation

USERS = ("ada", "grace", "linus", "edsger", "barbara")
ADMIN = Actor("root-admin", admin=True)
SPAWNER = Actor("gpudev-spawner")
HOURS = (5 / 60, 0.25, 0.5, 1, 2, 3.5)
TYPES = {
    "t4": GpuTypeSpec(name="t4", gpus_per_node=4, cpus=48, memory_gb=192, max_nodes=2),
    "h100": GpuTypeSpec(name="h100", gpus_per_node=2, cpus=96, memory_gb=512),
    "cpu": GpuTypeSpec(name="cpu", gpus_per_node=0, shares_per_node=2, cpus=8, memory_gb=32),
}
NODES: tuple[NodeSpec, ...] = (
    NodeSpec(name="t4-1", gpu_type="t4", simulated=True),
    NodeSpec(name="t4-2", gpu_type="t4", simulated=True),
    NodeSpec(name="h100-1", gpu_type="h100", simulated=True),
    NodeSpec(name="cpu-1", gpu_type="cpu", simulated=True),
)
#: What may go wrong by itself; anything else that is raised is a finding.
EXPECTED = (Trouble, StoreUnavailable)
#: Rounds after which a world without faults must have ended what is due.
BOUND = 12

Step = Callable[["Life"], Awaitable[None]]


class Life:
    """One run. `step` does one thing and checks; `end_well` lets the world be kind, and checks."""

    def __init__(self, seed: int, folder: Path, url: str) -> None:
        self.seed, self._folder, self._url = seed, folder, url
        self.chance = Chance(random.Random(seed))
        self.clock = ManualClock()
        self.machine = Machine(self.chance)
        self.hub = TroubledHub(self.machine, self._between)
        self.checker = Checker(self.machine)
        self.late: list[tuple[str, ServerReport]] = []
        self.log: list[str] = []
        self.crashes = 0
        self._deep = False
        self._nodes = NODES
        self.ctx = self._context()

    @property
    def rng(self) -> random.Random:
        return self.chance.rng

    # --- the service ----------------------------------------------------------------------------

    def _context(self) -> Context:
        settings = Settings(
            gpu_types=TYPES,
            nodes=self._nodes,
            times=Times(hub_patience=5.0),
            data_dir=self._folder,
            public_url="http://hub.example",
        )
        self.store = MortalStore(self._url, self.chance)
        self._disks = TroubledDisks(self._folder / "disks", self.chance)
        self.background = InTurn(self.chance)
        return Context(
            settings=settings,
            store=self.store,
            clock=self.clock,
            fleet=StaticFleet(settings),
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
        broken = self.rng.choice(NODES).name if self.chance.strikes(0.2) else ""
        self._nodes = tuple(
            node.model_copy(update={"ready": node.name != broken, "reason": "broken"})
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
        await self._restart()
        for node in NODES:
            await capacity.undrain(self.ctx, node.name, ADMIN)
        limit = self.clock.now()
        for _ in range(BOUND):
            await self._sweep()
            await self._spawn_all()
            await self._hear_late()
            await self._look()
            self._pass(timedelta(seconds=1))
        await self._sweep()
        await self._look()
        await self._nothing_left(limit)

    async def _nothing_left(self, limit: datetime) -> None:
        rows = await self._rows()
        live = {row.id: row for row in rows if State(row.state) in LIVE}
        for row in live.values():
            if row.expires_at is not None and row.expires_at <= limit:
                raise Violation(f"{row.id} is {row.state} long after {row.expires_at}")
            if row.state == State.STOPPING:
                raise Violation(f"{row.id} never stops")
            if row.state in {State.QUEUED, State.SCHEDULED} and row.planned_start is None:
                raise Violation(f"{row.id} waits without a promise: {row.state}, {row.booked_for}")
        orphans = self.machine.processes.keys() - live.keys()
        if orphans:
            raise Violation(f"servers without a lease: {orphans}")
        servers_ = {(row.user, row.server_name) for row in live.values()}
        for key, row_ in self.hub.rows.items():
            if (row_.ready or row_.pending) and key not in servers_:
                raise Violation(f"the Hub still runs {key}")

    # --- what happens ---------------------------------------------------------------------------

    async def _between(self) -> None:
        """While the service waits for somebody, others go on."""
        if self._deep or not self.chance.strikes(0.12):
            return
        self._deep = True
        try:
            happens = self.rng.choice((cancel, extend, submit, report, hear_late, die, spawn))
            self.log.append(f"   meanwhile: {happens.__name__}")
            with suppress(Refusal, *EXPECTED):
                await happens(self)
        finally:
            self._deep = False

    async def _rows(self, *states: State) -> list[ReservationRow]:
        query = select(ReservationRow).order_by(ReservationRow.submitted_at, ReservationRow.id)
        if states:
            query = query.where(ReservationRow.state.in_(states))
        async with self.ctx.store.reading() as session:
            return list(await session.scalars(query))

    async def pick(self, *states: State) -> ReservationRow | None:
        rows = await self._rows(*states)
        return self.rng.choice(rows) if rows else None

    def _pass(self, span: timedelta) -> None:
        self.clock.pass_time(seconds=span.total_seconds())

    async def _sweep(self, *, thorough: bool = True) -> datetime | None:
        """One run of the loops; when they want to be run again. What one raises stops no other."""
        loops = [expiry.run, starts.run, driving.run, warnings.run]
        if thorough:
            loops += [reconcile.run]
        if thorough and (self.chance.calm or self.rng.random() < 0.2):
            loops += [retention.run]
        dues = []
        for run in loops:
            try:
                dues.append(await run(self.ctx))
            except EXPECTED as error:
                self.log.append(f"   {run.__module__}: {type(error).__name__}")
            except ExceptionGroup as group:
                self.log.append(f"   {run.__module__}: {group}")
                if group.split(EXPECTED)[1] is not None:
                    raise
        await self.background.settle()
        self._judge_background()
        return min((due for due in dues if due is not None), default=None)

    async def _live_through(self, span: timedelta) -> None:
        """Time passes while the loops run when they asked for it, as in a healthy service."""
        end = self.clock.now() + span
        for _ in range(40):
            due = await self._sweep(thorough=self.rng.random() < 0.3)
            stop = min(end, max(due, self.clock.now()) if due else end)
            self.clock.pass_time(seconds=(stop - self.clock.now()).total_seconds())
            if stop >= end:
                break
        await self._sweep()

    async def _spawn_all(self) -> None:
        for key in list(self.hub.rows):
            await bring_up(self, key)

    async def _hear_late(self) -> None:
        while self.late:
            await hear_late(self)


# --- what people, servers and operators do ------------------------------------------------------


async def submit(life: Life) -> None:
    rng = life.rng
    kind = rng.choice(list(TYPES.values()))
    user = rng.choice(USERS)
    values: dict[str, object] = {}
    if rng.random() < 0.3:
        values["starts_at"] = life.clock.now() + timedelta(minutes=rng.choice((1, 20, 90, 400)))
    if rng.random() < 0.25:
        values |= {"disk": rng.choice(("work", "data")), "create_disk": True}
    by_form = rng.random() < 0.4
    if by_form:
        values["server_name"] = rng.choice(("", "lab"))
    request = ReservationRequest.model_validate(
        {
            "gpu_type": kind.name,
            "gpus": rng.choice(kind.valid_counts),
            "hours": rng.choice(HOURS),
            **values,
        }
    )
    made = await reservations.submit(life.ctx, Actor(user), request, ())
    if by_form:  # the Hub waits in the start of the server
        life.hub.rows[user, made.server_name] = HubRow("spawn", reservation=made.id)


async def cancel(life: Life) -> None:
    row = await life.pick()
    if row is not None:
        await reservations.cancel(life.ctx, row.id, Actor(row.user))


async def extend(life: Life) -> None:
    row = await life.pick(*LIVE)
    if row is not None:
        hours = life.rng.choice((0.01, 0.25, 1, 5, 30))
        if life.rng.random() < 0.5:
            offer = await extension.offer(life.ctx, row.id)
            hours = offer.possible_hours or hours
            await extension.extend(life.ctx, row.id, Actor(row.user), hours)
        else:
            await extension.extend(life.ctx, row.id, Actor(row.user), hours)


async def report(life: Life) -> None:
    """Somebody says something, which may be old or untrue."""
    row = await life.pick()
    if row is not None:
        status = life.rng.choice(("running", "failed", "stopped", "left", "starting", "running"))
        said = ServerReport.model_validate({"status": status, "handle": row.server_handle})
        if status == "stopped":
            life.machine.processes.pop(row.id, None)
        await servers.report(life.ctx, row.id, SPAWNER, said)


async def hear_late(life: Life) -> None:
    if life.late:
        key, said = life.late.pop(life.rng.randrange(len(life.late)))
        await servers.report(life.ctx, key, SPAWNER, said)


async def spawn(life: Life) -> None:
    """The Hub goes on with a start that is pending there."""
    pending = [key for key, row in life.hub.rows.items() if row.pending]
    if pending:
        await bring_up(life, life.rng.choice(pending))


async def bring_up(life: Life, key: tuple[str, str]) -> None:
    row = life.hub.rows.get(key)
    if row is None or row.pending != "spawn" or row.reservation is None:
        return
    reservation = row.reservation
    view = await reservations.get(life.ctx, reservation)
    if view.state in {State.QUEUED, State.SCHEDULED}:
        return
    try:
        await servers.launch(life.ctx, reservation)
    except Refusal:
        row.pending = None
        return
    if not life._deep and life.chance.strikes(0.25):
        # The lease ends between the Hub's question and the start of the process.
        await reservations.cancel(life.ctx, reservation, Actor(view.user))
        await life._sweep()
    if life.chance.strikes(0.1):
        row.pending = None
        await _say(life, reservation, ServerReport(status="failed", message="It did not start."))
        return
    handle = life.machine.start(reservation, leased=await _holds(life, reservation))
    answer = await _say(life, reservation, ServerReport(status="starting", handle=dict(handle)))
    if answer is not None and answer.state not in {State.PREPARING, State.ACTIVE}:
        row.pending = row.reservation = None
        if not life.chance.strikes(0.7):  # else the Hub was killed before it could end it
            life.machine.processes.pop(reservation, None)
        return
    if life.chance.strikes(0.1):
        return  # stays pending; the process is there
    if life.hub.rows.get(key) is row and row.pending:
        row.pending, row.ready = None, True
    await _say(life, reservation, ServerReport(status="running"))


async def _holds(life: Life, key: str) -> bool:
    view = await reservations.get(life.ctx, key)
    return view.state in {State.PREPARING, State.ACTIVE}


async def _say(life: Life, key: str, said: ServerReport) -> Reservation | None:
    """A report that arrives, arrives twice, arrives later, or never."""
    if life.chance.strikes(0.15):
        life.late.append((key, said))
        return None
    if life.chance.strikes(0.05):
        return None
    if life.chance.strikes(0.1):
        life.late.append((key, said))
    return await servers.report(life.ctx, key, SPAWNER, said)


async def die(life: Life) -> None:
    if life.machine.processes:
        key = life.rng.choice(list(life.machine.processes))
        del life.machine.processes[key]
        for row in life.hub.rows.values():
            if row.reservation == key:
                row.ready, row.pending = False, None


async def start_again(life: Life) -> None:
    """The owner of a crashed server starts it again from the Hub's home page."""
    row = await life.pick(State.ACTIVE)
    if row is not None and row.id not in life.machine.processes:
        life.hub.rows[row.user, row.server_name] = HubRow("spawn", reservation=row.id)
        await bring_up(life, (row.user, row.server_name))


async def stop_button(life: Life) -> None:
    row = await life.pick(State.ACTIVE)
    if row is not None:
        life.machine.processes.pop(row.id, None)
        life.hub.rows.pop((row.user, row.server_name), None)
        await _say(life, row.id, ServerReport(status="stopped"))


async def drain(life: Life) -> None:
    await capacity.drain(life.ctx, life.rng.choice(NODES).name, "cooling", ADMIN)


async def undrain(life: Life) -> None:
    for node in NODES:
        await capacity.undrain(life.ctx, node.name, ADMIN)


async def maintain(life: Life) -> None:
    name = life.rng.choice(list(TYPES))
    if life.rng.random() < 0.3:
        await capacity.set_maintenance(life.ctx, name, "upgrade", ADMIN)
    else:
        await capacity.end_maintenance(life.ctx, name, ADMIN)


async def use_disk(life: Life) -> None:
    user, name = life.rng.choice(USERS), life.rng.choice(("work", "data"))
    match life.rng.randrange(4):
        case 0:
            await snapshots.take(life.ctx, user, name, None, Actor(user))
        case 1:
            await disks.delete(life.ctx, user, name, (), Actor(user))
        case 2:
            await disks.undelete(life.ctx, user, name, (), Actor(user))
        case _:
            await disks.rename(life.ctx, user, name, "work", Actor(user))


async def sweep(life: Life) -> None:
    await life._sweep()


async def live_seconds(life: Life) -> None:
    await life._live_through(timedelta(seconds=life.rng.choice((1, 5, 40))))


async def live_hours(life: Life) -> None:
    await life._live_through(timedelta(minutes=life.rng.choice((4, 15, 45, 200))))


async def stand_still(life: Life) -> None:
    """Time passes and nothing runs: the machine was busy, or the service was away."""
    life._pass(timedelta(seconds=life.rng.choice((0.5, 7, 50, 90, 1200, 9000))))


async def arm_crash(life: Life) -> None:
    life.store.crash_in = life.rng.choice((0, 0, 1, 2, 3, 5))
    life.store.crash_after_commit = life.rng.random() < 0.5


async def hub_comes_and_goes(life: Life) -> None:
    life.hub.away = not life.hub.away


async def database_goes_and_comes(life: Life) -> None:
    life.store.away = not life.store.away and life.rng.random() < 0.5


STEPS: dict[str, tuple[int, Step]] = {
    "submit": (24, submit),
    "cancel": (4, cancel),
    "extend": (8, extend),
    "report": (5, report),
    "hear_late": (6, hear_late),
    "spawn": (16, spawn),
    "die": (3, die),
    "start_again": (3, start_again),
    "stop_button": (3, stop_button),
    "drain": (2, drain),
    "undrain": (3, undrain),
    "maintain": (2, maintain),
    "use_disk": (4, use_disk),
    "sweep": (8, sweep),
    "live_seconds": (14, live_seconds),
    "live_hours": (8, live_hours),
    "stand_still": (5, stand_still),
    "arm_crash": (4, arm_crash),
    "hub": (3, hub_comes_and_goes),
    "database": (4, database_goes_and_comes),
}
