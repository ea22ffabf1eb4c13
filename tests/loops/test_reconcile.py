"""What the Hub and the machine have that nobody reserved, and what they have lost."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.hub import Hub, HubAway, HubRefused, HubServer
from gpudev_service.loops import reconcile
from gpudev_service.operations import disks, planning, reservations
from gpudev_service.servers import LocalServers, ServersAway
from gpudev_service.servers.base import Handle
from gpudev_service.store.models import HistoryRow, ReservationRow
from tests.fixtures.world import START, World


class ListingHub(Hub):
    """Shows `shown`; `stopped` and `started` are what it was asked, `refuses` whom it does not
    stop, `away_after` after how many stops it goes away; `away` when it is to start something."""

    def __init__(self, *shown: HubServer) -> None:
        super().__init__("http://127.0.0.1:9/hub/api", "t", patience=0.5)
        self.shown = list(shown)
        self.stopped: list[tuple[str, str, bool]] = []
        self.started: list[str] = []
        self.refuses: set[str] = set()
        self.away_after: int | None = None
        self.away = False

    async def servers(self) -> list[HubServer]:
        return self.shown

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        if self.away_after is not None and len(self.stopped) >= self.away_after:
            self.stopped.append((user, name, remove))
            raise HubAway("ConnectError")
        self.stopped.append((user, name, remove))
        if user in self.refuses:
            raise HubRefused(403, "no")

    async def remove(self, user: str, name: str) -> None:
        await self.stop(user, name, remove=True)

    async def start(self, user: str, name: str, reservation_id: str) -> None:
        self.started.append(reservation_id)
        if self.away:
            raise HubAway("ConnectError")
        if user in self.refuses:
            raise HubRefused(403, "no")


class Machine(LocalServers):
    """Runs what a test has put into `marks`; `stuck` cannot be stopped or even looked at. Of those
    in `headless` only what their server had started runs. Without `there` it is not known."""

    def __init__(self, *marks: str) -> None:
        self.marks = set(marks)
        self.stuck: set[str] = set()
        self.headless: set[str] = set()
        self.idle, self.there = False, True

    async def is_idle(self, reservation_id: str, handle: Handle | None) -> bool:
        return self.idle

    async def running(self) -> set[str]:
        if not self.there:
            raise ServersAway("the API server does not answer")
        return set(self.marks)

    async def main_gone(self, reservation_id: str, handle: Handle | None) -> bool:
        return reservation_id in self.headless

    async def stop(self, reservation_id: str, handle: Handle | None, grace: float) -> bool:
        if reservation_id in self.stuck:
            raise PermissionError("/proc")
        self.marks.discard(reservation_id)
        return True


def server(
    user: str,
    name: str,
    *,
    ready: bool = False,
    pending: str | None = None,
    started_s: float | None = None,
    active_s: float | None = None,
) -> HubServer:
    """A server of the Hub; `started_s` and `active_s` are seconds after the world's start."""

    def moment(seconds: float | None) -> object:
        return None if seconds is None else START + timedelta(seconds=seconds)

    stopped = not ready and pending is None
    return HubServer(user, name, ready, pending, stopped, moment(started_s), moment(active_s))  # type: ignore[arg-type]


OURS = "abcdefghij012345"
OTHER = "zyxwvutsrq012345"


async def test_servers_without_a_lease_are_stopped_and_unused_rows_removed(world: World) -> None:
    mine = await world.reserve("ada", server_name="lab")
    world.clock.pass_time(hours=3)
    late = 3 * 3600
    world.ctx.hub = hub = ListingHub(
        server("ada", "lab", ready=True, started_s=0),  # has a lease
        server("grace", "own", ready=True, started_s=0),
        server("grace", OURS, ready=True, started_s=0),
        server("linus", "young", ready=True, started_s=late - 5),
        server("linus", OURS, pending="spawn"),
        server("edsger", OURS, active_s=late - 600),  # somebody may fill the form
        server("edsger", OTHER, active_s=0),
        server("barbara", OURS),  # never ran
        server("barbara", "own", active_s=0),  # not named by gpudev
    )
    hub.refuses = {"grace"}
    await reconcile.run(world.ctx)
    assert hub.stopped == [
        ("grace", "own", False),
        ("grace", OURS, True),
        ("edsger", OTHER, True),
        ("barbara", OURS, True),
    ]
    assert await world.states(mine) == [State.PREPARING]


async def test_a_hub_that_goes_away_in_the_middle_is_not_asked_on(world: World) -> None:
    world.ctx.hub = hub = ListingHub(*(server(f"user-{n}", OURS) for n in range(5)))
    hub.away_after = 1
    await reconcile.run(world.ctx)
    assert len(hub.stopped) == 2


async def test_one_process_that_cannot_be_stopped_keeps_no_other(world: World) -> None:
    over = []
    for name in ("ada", "grace", "linus"):
        got = await world.reserve(name, "t4")
        await reservations.cancel(world.ctx, got.id, Actor(name))
        over.append(got)
    await world.sweep()
    world.ctx.hub = ListingHub()
    world.ctx.servers = machine = Machine(*(got.id for got in over), "zzzzzzzzzzzzzzzz")
    machine.stuck = {over[0].id}
    with pytest.raises(PermissionError):
        await reconcile.run(world.ctx)
    assert machine.marks == {over[0].id, "zzzzzzzzzzzzzzzz"}
    machine.stuck = {got.id for got in over}
    machine.marks |= machine.stuck
    with pytest.raises(ExceptionGroup):
        await reconcile.run(world.ctx)


async def test_what_begins_while_the_last_snapshot_is_taken_is_stopped(world: World) -> None:
    got = await world.reserve("ada", disk="work", create_disk=True)
    following = await world.reserve("grace")
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    # The GPUs are given back; the disk still waits for its snapshot.
    from gpudev_service.loops import driving

    await driving._release(world.ctx, got.id)
    assert await world.states(got, following) == [State.STOPPING, State.PREPARING]
    world.ctx.hub = ListingHub()
    world.ctx.servers = machine = Machine(got.id, following.id)
    await reconcile.run(world.ctx)
    assert machine.marks == {following.id}


async def test_trouble_with_disks_keeps_nobody_from_being_looked_after(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = await world.running(await world.reserve())
    await disks.create_row(world.ctx, "ada", "half", (), busy="being cloned")
    broken = world.ctx.settings.data_dir / "disks" / "trash"
    world.ctx.hub = ListingHub()
    world.ctx.servers = Machine()

    async def refuse() -> None:
        raise OSError(5, "Input/output error", str(broken))

    monkeypatch.setattr(world.ctx.disks, "clean_up", refuse)
    with pytest.raises(OSError, match="Input/output"):
        await reconcile.run(world.ctx)
    assert (await world.look(got)).server_lost_at == world.clock.now()


async def test_a_server_is_noted_as_lost_once_and_as_back_once(world: World) -> None:
    got = await world.running(await world.reserve())
    world.ctx.hub = ListingHub(server("ada", got.server_name, ready=True, started_s=0))
    world.ctx.servers = machine = Machine()
    for _ in range(2):
        await reconcile.run(world.ctx)
    machine.marks = {got.id}
    for _ in range(2):
        await reconcile.run(world.ctx)
    reasons = await world.reasons(got)
    assert len([r for r in reasons if "ended unexpectedly" in r]) == 1
    assert reasons.count("The server runs again.") == 1


async def test_what_was_reported_meanwhile_is_not_noted_again(world: World) -> None:
    got = await world.running(await world.reserve())
    handle = {"kind": "process", "pid": 1, "created": 0.0}

    async def noted(seen: reconcile.Seen) -> list[HistoryRow]:
        return await world.ctx.store.run(
            lambda session: reconcile._note(world.ctx, session, {got.id: seen})
        )

    assert await noted(reconcile.Seen(None, serves=True, left=True)) == []  # reported as back
    assert await noted(reconcile.Seen(handle, serves=False, left=True)) == []  # started anew
    assert (await world.look(got)).server_lost_at is None
    assert len(await noted(reconcile.Seen(None, serves=False, left=True))) == 1
    assert await noted(reconcile.Seen(None, serves=False, left=True)) == []  # noted as lost
    assert len(await noted(reconcile.Seen(None, serves=True, left=True))) == 1


@pytest.mark.parametrize(
    ("shown", "idle", "again"),
    [
        (None, True, True),
        (server("ada", "lab"), True, True),
        (server("ada", "lab"), False, False),
        (server("ada", "lab", ready=True, started_s=0), True, False),
        (server("ada", "lab", pending="spawn"), True, False),
    ],
    ids=["no row", "not running", "used", "ready", "pending"],
)
async def test_a_server_that_the_hub_has_forgotten_is_started_again_unless_it_is_used(
    world: World, shown: HubServer | None, idle: bool, again: bool
) -> None:
    got = await world.running(await world.reserve("ada", server_name="lab"))
    world.ctx.hub = hub = ListingHub(*([shown] if shown else []))
    world.ctx.servers = machine = Machine(got.id)
    machine.idle = idle
    await reconcile.run(world.ctx)
    assert hub.started == ([got.id] if again else [])
    hub.refuses = {"ada"}
    await reconcile.run(world.ctx)  # a refusal is logged
    hub.away = True
    await reconcile.run(world.ctx)  # and so is that it went away meanwhile
    assert await world.states(got) == [State.ACTIVE]


async def test_a_lost_server_is_told_with_what_is_left_of_it(world: World) -> None:
    gone = await world.running(await world.reserve("ada"))
    headless = await world.running(await world.reserve("grace", "t4", gpus=1))
    fine = await world.running(await world.reserve("linus", "t4", gpus=1))
    world.ctx.hub = ListingHub()
    world.ctx.servers = machine = Machine(headless.id, fine.id)
    machine.headless = {headless.id}
    await reconcile.run(world.ctx)
    said = [(await world.reasons(one))[-1] for one in (gone, headless, fine)]
    assert ["are kept for 10 min" in one for one in said] == [True, True, False]
    assert ["still runs" in one for one in said] == [False, True, False]
    lost = [(await world.look(one)).server_lost_at for one in (gone, headless, fine)]
    assert lost == [START, START, None]
    assert machine.marks == {headless.id, fine.id}, "leases keep what they run"


async def test_a_lease_that_ended_meanwhile_is_not_noted_as_lost(world: World) -> None:
    got = await world.running(await world.reserve())
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    seen = {got.id: reconcile.Seen(None, serves=False, left=False)}
    noted = await world.ctx.store.run(lambda session: reconcile._note(world.ctx, session, seen))
    assert noted == []
    assert (await world.look(got)).server_lost_at is None


async def test_a_machine_that_does_not_answer_has_lost_no_server(world: World) -> None:
    """And keeps nobody else from being looked after."""
    got = await world.running(await world.reserve())
    world.ctx.hub = hub = ListingHub(server("grace", OURS))
    world.ctx.servers = machine = Machine()
    machine.there = False
    await reconcile.run(world.ctx)
    assert (await world.look(got)).server_lost_at is None
    assert hub.stopped == [("grace", OURS, True)]


async def test_the_moments_from_which_a_server_and_its_row_are_nobodys(world: World) -> None:
    unused, young = reconcile.UNUSED.total_seconds(), reconcile.YOUNG.total_seconds()
    world.clock.pass_time(seconds=unused)
    world.ctx.hub = hub = ListingHub(
        server("a", "own", ready=True, started_s=unused - young),
        server("b", "own", ready=True, started_s=unused - young + 1),
        server("c", OURS, ready=True, started_s=unused - young + 1, active_s=-1),
        server("d", OURS, active_s=0),
        server("e", OURS, active_s=-1),
        server("f", OURS, pending="stop", active_s=-1),
        server("g", OURS, ready=True),
    )
    await reconcile.run(world.ctx)
    assert hub.stopped == [("a", "own", False), ("e", OURS, True), ("g", OURS, True)]


async def test_a_hub_that_shows_no_servers_has_forgotten_none(world: World) -> None:
    got = await world.running(await world.reserve())
    world.ctx.contact.answered(START)

    class Closed(ListingHub):
        async def servers(self) -> list[HubServer]:
            raise HubRefused(403, "the token has too few scopes")

    world.ctx.hub = hub = Closed()
    world.ctx.servers = machine = Machine(got.id)
    machine.idle = True
    await reconcile.run(world.ctx)
    assert hub.started == []
    assert world.ctx.contact.since == START, "it has answered"


async def test_a_lease_that_ends_while_its_server_is_looked_at_is_not_started_again(
    world: World,
) -> None:
    ends = await world.running(await world.reserve("ada", "t4", gpus=1))
    known = await world.running(await world.reserve("grace", "t4", gpus=1))
    forgotten = await world.running(await world.reserve("linus", "t4", gpus=1))

    class Slow(Machine):
        async def is_idle(self, reservation_id: str, handle: Handle | None) -> bool:
            if reservation_id == ends.id:
                await reservations.cancel(world.ctx, ends.id, Actor("ada"))
            return True

    world.ctx.servers = Slow(ends.id, known.id, forgotten.id)
    world.ctx.hub = hub = ListingHub(server("grace", known.server_name, ready=True, started_s=0))
    await reconcile.run(world.ctx)
    assert hub.started == [forgotten.id]


async def test_of_those_who_wait_only_types_with_somebody_unpromised_are_planned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[list[str]] = []
    replan = planning.replan

    async def noting(ctx: Context, session: AsyncSession, now: datetime, types: list[str]) -> Any:
        planned.append(types)
        return await replan(ctx, session, now, types)

    for user in ("ada", "grace"):
        await world.reserve(user, "t4-small")
        await world.reserve(user, "h100", gpus=8)
    monkeypatch.setattr(planning, "replan", noting)
    await reconcile.run(world.ctx)
    assert planned == []
    async with world.ctx.store.transaction() as session:
        for row in await session.scalars(
            select(ReservationRow).where(ReservationRow.gpu_type == "h100")
        ):
            row.planned_start = row.planned_nodes = None
    await reconcile.run(world.ctx)
    assert planned == [["h100"]]
