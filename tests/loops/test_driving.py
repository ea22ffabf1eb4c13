"""Leases end whatever Hub, disks and machine do; one that cannot is in nobody else's way."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_client.models import ClosingReport, Reservation, ServerReport
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.disks.base import DiskBusy, DiskFull, Progress, SnapshotInfo
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.errors import Refusal
from gpudev_service.hub import Hub, HubRefused, HubServer
from gpudev_service.loops import driving
from gpudev_service.operations import lab, reservations, servers, snapshots
from gpudev_service.servers import LocalServers, ServersAway
from gpudev_service.servers.base import Handle
from gpudev_service.settings import Times
from gpudev_service.store.engine import Store
from tests.fixtures.world import World, make_world


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "PAUSE", 0.0)


class BrokenHub(Hub):
    """Fails in ways that nobody has thought of."""

    async def server(self, user: str, name: str) -> HubServer | None:
        return None

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        raise RuntimeError("the client has been closed")

    async def remove(self, user: str, name: str) -> None:
        raise RuntimeError("the client has been closed")


class RefusingHub(Hub):
    """Knows no server and starts none."""

    async def server(self, user: str, name: str) -> HubServer | None:
        return None

    async def start(self, user: str, name: str, reservation_id: str) -> None:
        raise HubRefused(403, "this user may not start servers")


class BrokenDisks(DirectoryDisks):
    """Raises `broken` where a snapshot is asked for, `no_room` where a disk is made."""

    broken: Exception | None = None
    no_room = False

    async def create(self, disk_id: str, size_gb: int | None = None) -> None:
        if self.no_room:
            raise DiskFull("there is no room left for disks")
        await super().create(disk_id, size_gb)

    async def snapshot(
        self, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> SnapshotInfo:
        if self.broken is not None:
            raise self.broken
        return await super().snapshot(disk_id, snapshot_id, progress)


class PoisonedServers(LocalServers):
    """Cannot say anything about one reservation."""

    poison = ""

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        if reservation_id == self.poison:
            raise PermissionError("/proc")
        return await super().alive(reservation_id, handle)


@pytest.fixture
def disks(world: World, tmp_path: Path) -> BrokenDisks:
    broken = BrokenDisks(tmp_path / "disks")
    world.ctx.disks = broken
    return broken


async def test_a_hub_that_fails_unheard_of_keeps_no_lease(world: World) -> None:
    world.ctx.hub = BrokenHub("http://127.0.0.1:9/hub/api", "t", patience=0.5)
    got = await world.running(await world.reserve())
    world.clock.pass_time(hours=1)
    await world.sweep()
    assert await world.states(got) == [State.EXPIRED]


class SlowHub(Hub):
    """Stops servers and does not say so before it is `allowed` to."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/hub/api", "t")
        self.asked, self.allowed, self.removed = asyncio.Event(), asyncio.Event(), False
        self.pending: str | None = None

    async def server(self, user: str, name: str) -> HubServer | None:
        return HubServer(user, name, True, self.pending, False, None, None)

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        self.asked.set()
        await self.allowed.wait()
        self.removed = remove

    async def remove(self, user: str, name: str) -> None:
        self.removed = True


class TellingServers(LocalServers):
    """Runs until `gone` is set, and says so then."""

    def __init__(self) -> None:
        self.gone, self.away = asyncio.Event(), False

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        return not self.gone.is_set()

    async def told_gone(self, reservation_id: str) -> None:
        await self.gone.wait()
        if self.away:
            raise ServersAway("the API server does not answer")


@pytest.fixture
def slow(world: World) -> tuple[SlowHub, TellingServers]:
    """Where patience is not what ends the wait."""
    times = world.ctx.settings.times.model_copy(update={"hub_patience": 60.0})
    world.ctx.settings = world.ctx.settings.model_copy(update={"times": times})
    hub, there = SlowHub(), TellingServers()
    world.ctx.hub, world.ctx.servers = hub, there
    return hub, there


async def ends(world: World, hub: SlowHub) -> tuple[Reservation, Reservation]:
    """A lease whose server the Hub is stopping, and who waits for its GPUs."""
    got = await world.running(await world.reserve())
    waiting = await world.reserve("grace")
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await driving.run(world.ctx)
    await hub.asked.wait()
    assert await world.states(got, waiting) == [State.STOPPING, State.QUEUED]
    return got, waiting


async def test_gpus_are_given_on_when_the_server_is_gone_though_the_hub_is_not_done(
    world: World, slow: tuple[SlowHub, TellingServers]
) -> None:
    hub, there = slow
    got, waiting = await ends(world, hub)
    there.gone.set()
    while await world.states(waiting) != [State.PREPARING]:  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0)
    assert await world.states(got) == [State.STOPPING], "for the Hub it is stopping still"
    hub.allowed.set()
    await world.ctx.background.settle()
    assert await world.states(got) == [State.CANCELLED]


async def test_what_cannot_be_verified_is_not_gone(
    world: World, slow: tuple[SlowHub, TellingServers]
) -> None:
    hub, there = slow
    there.away = True
    _, waiting = await ends(world, hub)
    there.gone.set()
    for _ in range(20):
        assert await world.states(waiting) == [State.QUEUED]
    hub.allowed.set()
    await world.ctx.background.settle()
    assert await world.states(waiting) == [State.PREPARING]


async def test_a_server_that_is_made_anew_meanwhile_is_not_taken_for_gone(
    world: World, slow: tuple[SlowHub, TellingServers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is under way removes first what an earlier one has left."""
    hub, there = slow
    monkeypatch.setattr(driving, "START_LOOKS", 10**9)
    got = await world.running(await world.reserve())
    waiting = await world.reserve("grace")
    hub.pending = "spawn"
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await driving.run(world.ctx)
    there.gone.set()
    for _ in range(20):
        assert await world.states(waiting) == [State.QUEUED]
    there.gone.clear()
    hub.pending = None
    await hub.asked.wait()
    assert await world.states(got, waiting) == [State.STOPPING, State.QUEUED]
    there.gone.set()
    hub.allowed.set()
    await world.ctx.background.settle()
    assert await world.states(got, waiting) == [State.CANCELLED, State.PREPARING]


async def test_the_end_waits_for_the_hub_no_longer_than_it_says(
    store: Store, tmp_path: Path
) -> None:
    world = make_world(store, tmp_path, times=Times(hub_patience=0.05))
    hub, there = SlowHub(), TellingServers()
    world.ctx.hub, world.ctx.servers = hub, there
    got, _ = await ends(world, hub)
    there.gone.set()
    while await world.states(got) != [State.CANCELLED]:  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0)
    hub.allowed.set()
    await world.ctx.background.settle()


async def test_a_hub_that_takes_its_time_is_asked_on_while_the_lease_ends_without_it(
    store: Store, tmp_path: Path
) -> None:
    """Nobody tells that the server is gone either: it is looked for."""
    world = make_world(store, tmp_path, times=Times(hub_patience=0.05))
    hub, there = SlowHub(), TellingServers()
    there.away = True
    world.ctx.hub, world.ctx.servers = hub, there
    got, waiting = await ends(world, hub)
    there.gone.set()
    while await world.states(got) != [State.CANCELLED]:  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0)
    assert await world.states(waiting) == [State.PREPARING]
    assert world.ctx.background.running(f"ask:{got.id}")
    hub.allowed.set()
    await world.ctx.background.settle()


async def test_a_refusal_of_the_hub_fails_the_start_with_its_words(world: World) -> None:
    world.ctx.hub = RefusingHub("http://127.0.0.1:9/hub/api", "t", patience=0.5)
    got = await world.reserve()
    await world.sweep()
    await world.sweep()
    after = await world.look(got)
    assert after.state is State.FAILED
    assert "this user may not start servers" in (after.reason or "")


@pytest.mark.parametrize("broken", [OSError(5, "Input/output error"), DiskFull("no room")])
async def test_a_lease_whose_snapshot_fails_ends_and_says_so(
    world: World, disks: BrokenDisks, broken: Exception
) -> None:
    disks.broken = broken
    got = await world.running(await world.reserve(disk="work", create_disk=True))
    world.clock.pass_time(hours=1)
    await world.sweep()
    assert await world.states(got) == [State.EXPIRED]
    assert any(reason.startswith("No snapshot: ") for reason in await world.reasons(got))
    page = await reservations.history(world.ctx, got.id, 50, None)
    assert [entry.data["ok"] for entry in page.items if entry.kind == "snapshot"] == [False]


async def test_a_disk_that_could_never_be_made_does_not_keep_its_reservation(
    world: World, disks: BrokenDisks
) -> None:
    disks.no_room = True
    got = await world.reserve(disk="work", create_disk=True)
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    assert await world.states(got) == [State.CANCELLED]
    assert any("no room for another disk" in reason for reason in await world.reasons(got))


async def test_the_last_snapshot_waits_for_one_that_a_person_takes(
    world: World, disks: BrokenDisks
) -> None:
    disks.broken = DiskBusy("another snapshot of the disk is being taken")
    got = await world.running(await world.reserve(disk="work", create_disk=True))
    waiting = await world.reserve("grace")
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    assert await world.states(got, waiting) == [State.STOPPING, State.PREPARING]
    disks.broken = None
    await world.sweep()
    assert await world.states(got) == [State.CANCELLED]
    assert any(reason.startswith("Snapshot taken") for reason in await world.reasons(got))


async def test_it_does_not_wait_for_ever(world: World, disks: BrokenDisks) -> None:
    disks.broken = DiskBusy("another snapshot of the disk is being taken")
    got = await world.running(await world.reserve(disk="work", create_disk=True))
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    world.clock.pass_time(seconds=snapshots.BUSY_LIMIT.total_seconds() + 1)
    await world.sweep()
    assert await world.states(got) == [State.CANCELLED]
    assert any(reason.startswith("No snapshot: another") for reason in await world.reasons(got))


@pytest.mark.parametrize(
    "handle",
    [
        {"kind": "process"},
        {"kind": "process", "pid": "many", "created": 1.0},
        {"kind": "process", "pid": -5, "created": 1.0},
        {"kind": "process", "pid": 2**70, "created": 1.0},
        {"kind": "pod", "name": "x"},
    ],
    ids=str,
)
async def test_a_handle_without_sense_keeps_no_lease(
    world: World, handle: dict[str, str | int | float]
) -> None:
    got = await world.reserve()
    said = ServerReport(status="starting", handle=handle)
    await servers.report(world.ctx, got.id, Actor("spawner"), said)
    await world.running(got)
    world.clock.pass_time(hours=1)
    await world.sweep()
    assert await world.states(got) == [State.EXPIRED]


async def test_one_that_cannot_end_stops_no_other(world: World) -> None:
    machine = PoisonedServers()
    world.ctx.servers = machine
    poisoned = await world.running(await world.reserve("ada", "t4"))
    other = await world.running(await world.reserve("grace"))
    following = await world.reserve("linus")
    machine.poison = poisoned.id
    world.clock.pass_time(hours=1)
    await world.sweep()
    got = await world.states(poisoned, other, following)
    assert got == [State.STOPPING, State.EXPIRED, State.PREPARING]
    assert (await world.look(poisoned)).placement, "its GPUs stay held"
    machine.poison = ""
    world.clock.pass_time(seconds=timedelta(seconds=1).total_seconds())
    await world.sweep()
    assert await world.states(poisoned) == [State.EXPIRED]


async def closing(world: World, got: Reservation) -> None:
    """What a server does that hears of its lease's end."""
    said = ClosingReport(saved=1)
    await lab.closing(world.ctx, got.id, said)


async def test_an_early_end_waits_for_a_server_that_listens(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[str, float]] = []
    wait_closed = world.ctx.labs.wait_closed

    async def wait(key: str, seconds: float) -> bool:
        waited.append((key, seconds))
        return await wait_closed(key, seconds)

    monkeypatch.setattr(world.ctx.labs, "wait_closed", wait)
    got = await world.running(await world.reserve())
    with world.ctx.labs.listening(got.id):
        await reservations.cancel(world.ctx, got.id, Actor("ada"))
        await driving.run(world.ctx)
        assert await world.states(got) == [State.STOPPING]
        assert world.ctx.background.running(f"end:{got.id}")
        await closing(world, got)
        await world.ctx.background.settle()
    assert waited == [(got.id, world.ctx.settings.times.closing)]
    assert await world.states(got) == [State.CANCELLED]
    assert "Before the end 1 document saved." in await world.reasons(got)


async def test_an_end_waits_no_longer_for_a_server_that_has_said_too_much(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "_LINES_MAX", {"closing": 0})
    monkeypatch.setattr(lab, "_LINES_AT_END", 0)
    got = await world.running(await world.reserve())
    with world.ctx.labs.listening(got.id):
        await reservations.cancel(world.ctx, got.id, Actor("ada"))
        with pytest.raises(Refusal, match="said enough"):
            await closing(world, got)
        assert await world.ctx.labs.wait_closed(got.id, 0), "it has been told already"
    assert not [one for one in await world.reasons(got) if one.startswith("Before")]


async def test_it_does_not_wait_longer_than_it_says(store: Store, tmp_path: Path) -> None:
    times = Times(hub_patience=0.5, closing=0.01)
    world = make_world(store, tmp_path, times=times)
    got = await world.running(await world.reserve())
    with world.ctx.labs.listening(got.id):
        await reservations.cancel(world.ctx, got.id, Actor("ada"))
        await world.sweep()
    assert await world.states(got) == [State.CANCELLED]


async def test_a_leases_own_end_is_never_put_off(world: World) -> None:
    """With a server that listens and says nothing, and a wait that would never be over."""
    ended = await world.running(await world.reserve("ada", "t4"))
    late = await world.running(await world.reserve("grace", "t4"))
    with world.ctx.labs.listening(ended.id), world.ctx.labs.listening(late.id):
        world.clock.pass_time(hours=1)
        await reservations.cancel(world.ctx, late.id, Actor("grace"))
        await world.sweep()
    assert await world.states(ended, late) == [State.EXPIRED, State.CANCELLED]
