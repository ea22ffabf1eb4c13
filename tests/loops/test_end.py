"""The end of a lease: who is waited for and how long, and what goes with it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from gpudev_client import words
from gpudev_client.models import Reservation, ServerReport
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.disks.base import DiskError, Usage
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.disks.reach import Reach
from gpudev_service.hub import Hub, HubAway, HubRefused, HubServer
from gpudev_service.kube import KubeAway, KubeRefused
from gpudev_service.loops import driving
from gpudev_service.operations import disks, reservations, servers
from gpudev_service.servers import LocalServers, ServersAway
from gpudev_service.servers.base import Handle
from gpudev_service.servers.shared import SharedFolders
from gpudev_service.settings import STOP_POLITELY
from gpudev_service.store.models import DiskRow, ReservationRow, SnapshotRow
from tests.fixtures.world import World


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "PAUSE", 0.0)


async def test_a_lease_that_is_not_to_end_is_not_ended(world: World) -> None:
    """It may be over already when the turn of its task comes."""
    got = await world.running(await world.reserve(disk="work", create_disk=True))
    before = await world.reasons(got)
    await driving.end(world.ctx, got.id)
    assert await world.states(got) == [State.ACTIVE]
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    after = await world.reasons(got)
    await driving.end(world.ctx, got.id)
    assert await world.reasons(got) == after
    assert len(after) > len(before)


@pytest.fixture
def waited(world: World, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long each server was waited for, in seconds; none says that it has closed."""
    found: list[float] = []

    async def wait(key: str, seconds: float) -> bool:
        found.append(seconds)
        return False

    monkeypatch.setattr(world.ctx.labs, "wait_closed", wait)
    return found


async def test_a_server_gets_what_is_left_of_its_time_to_close_and_of_its_lease(
    world: World, waited: list[float]
) -> None:
    closing = world.ctx.settings.times.closing
    assert closing > 4
    early = await world.running(await world.reserve("ada", "t4", gpus=1))
    late = await world.running(await world.reserve("grace", "t4", gpus=1))
    await reservations.cancel(world.ctx, early.id, Actor("ada"))
    # The service was killed meanwhile: what has passed since then counts.
    world.clock.pass_time(seconds=2)
    await world.sweep()
    assert waited == [closing - 2]
    world.clock.pass_time(hours=1, seconds=-6)
    await reservations.cancel(world.ctx, late.id, Actor("grace"))
    await world.sweep()
    assert waited == [closing - 2, 4]
    assert await world.states(early, late) == [State.CANCELLED, State.CANCELLED]


async def test_a_server_whose_time_to_close_is_over_is_not_waited_for(
    world: World, waited: list[float]
) -> None:
    for late in (0, 1):
        early = await world.running(await world.reserve("ada", "t4", gpus=1))
        await reservations.cancel(world.ctx, early.id, Actor("ada"))
        world.clock.pass_time(seconds=world.ctx.settings.times.closing + late)
        await world.sweep()
    expired = await world.running(await world.reserve("grace", "t4", gpus=1))
    world.clock.pass_time(hours=1)
    await world.sweep()
    assert waited == []
    assert await world.states(early, expired) == [State.CANCELLED, State.EXPIRED]


@pytest.mark.parametrize("target", [State.CANCELLED, State.FAILED])
async def test_a_server_may_close_whatever_its_early_end_is_called(
    world: World, waited: list[float], target: State
) -> None:
    got = await world.running(await world.reserve())
    await _ended(world, got, target)
    await world.sweep()
    assert waited == [world.ctx.settings.times.closing]
    assert await world.states(got) == [target]


async def _ended(world: World, got: Reservation, target: State) -> None:
    """The service ends a lease."""
    async with world.ctx.store.transaction() as session:
        row, now = await session.get_one(ReservationRow, got.id), world.clock.now()
        await reservations.end_in(world.ctx, session, row, target, "no image", Actor("x"), now)


class Folders(SharedFolders):
    """Folders that nodes of leases share; raises `trouble` where one is to be removed."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.trouble: Exception | None = None

    async def remove(self, reservation_id: str) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.removed.append(reservation_id)


async def over(world: World, gpus: int) -> Reservation:
    got = await world.running(await world.reserve("ada", "t4", gpus=gpus))
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    assert await world.states(got) == [State.CANCELLED]
    return got


async def test_what_several_nodes_shared_goes_with_their_lease(world: World) -> None:
    world.ctx.shared = folders = Folders()
    await over(world, 4)
    both = await over(world, 8)
    assert folders.removed == [both.id], "one node shares with none"


@pytest.mark.parametrize(
    "trouble", [KubeAway("it does not answer"), KubeRefused(403, "Forbidden", "no")]
)
async def test_a_shared_folder_that_cannot_be_removed_keeps_no_lease(
    world: World, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    world.ctx.shared = folders = Folders()
    folders.trouble = trouble
    await over(world, 8)
    assert not _failures(caplog)


class Stubborn(LocalServers):
    """A server that the Hub does not end; `ends` is what comes of it when it is stopped."""

    def __init__(self) -> None:
        self.alive_, self.ends, self.away = True, False, False
        self.stopped: list[tuple[str, Handle | None, float]] = []

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        if self.away:
            raise ServersAway("the API server does not answer")
        return self.alive_

    async def stop(self, reservation_id: str, handle: Handle | None, grace: float) -> bool:
        self.stopped.append((reservation_id, handle, grace))
        return self.ends


HANDLE: dict[str, str | int | float] = {"kind": "process", "pid": 2**22 + 1, "created": 1.0}


async def test_what_still_runs_is_stopped_directly_and_keeps_its_gpus_until_it_is_gone(
    world: World,
) -> None:
    got = await world.reserve()
    said = ServerReport(status="running", handle=HANDLE)
    await servers.report(world.ctx, got.id, Actor("gpudev-spawner"), said)
    said = ServerReport(status="starting", handle=HANDLE)
    await servers.report(world.ctx, got.id, Actor("gpudev-spawner"), said)
    waiting = await world.reserve("grace")
    world.ctx.servers = machine = Stubborn()
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    machine.away = True
    await world.sweep()
    assert machine.stopped == [], "what nobody knows of is not stopped"
    machine.away = False
    await world.sweep()
    assert machine.stopped == [(got.id, HANDLE, STOP_POLITELY)]
    assert await world.states(got, waiting) == [State.STOPPING, State.QUEUED]
    machine.ends = True
    await world.sweep()
    assert await world.states(got, waiting) == [State.CANCELLED, State.PREPARING]


async def test_what_is_gone_is_not_stopped(world: World) -> None:
    got = await world.running(await world.reserve())
    world.ctx.servers = machine = Stubborn()
    machine.alive_ = False
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    assert machine.stopped == []
    assert await world.states(got) == [State.CANCELLED]


class Found(DirectoryDisks):
    """Disks that can be used on one node only; raises `trouble` where it is asked about them."""

    trouble: Exception | None = None
    when_asked: Callable[[], Awaitable[object]] | None = None

    async def reach(self, disk_id: str) -> Reach | None:
        if self.when_asked is not None:
            await self.when_asked()
        if self.trouble is not None:
            raise self.trouble
        return Reach(hosts=("small-1",))

    async def usage(self, disk_id: str) -> Usage:
        if self.trouble is not None:
            raise self.trouble
        return await super().usage(disk_id)


async def test_where_a_disk_is_is_known_before_it_can_be_reserved_again(
    world: World, tmp_path: Path
) -> None:
    world.ctx.disks = found = Found(tmp_path / "disks")
    got = await world.running(await world.reserve(disk="work", create_disk=True))
    await disks.ensure(world.ctx, await _disk(world, got))
    then: list[list[State]] = []

    async def note() -> None:
        then.append(await world.states(got))

    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    found.when_asked = note
    await world.sweep()
    assert then[0] == [State.STOPPING]
    assert await world.states(got) == [State.CANCELLED]


@pytest.mark.parametrize("trouble", [None, DiskError("its storage does not answer")])
async def test_where_a_disk_is_and_its_size_are_known_after_the_lease(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: Exception | None
) -> None:
    """As far as its storage says it; a lease ends all the same."""
    world.ctx.disks = found = Found(tmp_path / "disks")
    got = await world.running(await world.reserve(disk="work", create_disk=True))
    await disks.ensure(world.ctx, await _disk(world, got))
    world.clock.pass_time(minutes=1)
    found.trouble = trouble
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    assert await world.states(got) == [State.CANCELLED]
    assert not _failures(caplog)
    async with world.ctx.store.reading() as session:
        row = await session.get_one(DiskRow, await _disk(world, got))
    if trouble is None:
        assert (row.reach or {})["hosts"] == ["small-1"]
        assert row.size_measured_at == world.clock.now()
        [taken] = [one for one in await world.reasons(got) if one.startswith("Snapshot taken")]
        [snapshot] = await _snapshots(world)
        assert taken == f"Snapshot taken: {words.size(snapshot.size_bytes or 0)}."
        page = await reservations.history(world.ctx, got.id, 50, None)
        [told] = [entry.data for entry in page.items if entry.kind == "snapshot"]
        assert told == {"snapshot": snapshot.id, "ok": True}
    else:
        assert row.size_measured_at != world.clock.now()


class Unwilling(Hub):
    """Raises `trouble` whatever it is asked to end."""

    def __init__(self, trouble: Exception) -> None:
        super().__init__("http://127.0.0.1:9/hub/api", "t", patience=0.5)
        self.trouble = trouble

    async def server(self, user: str, name: str) -> HubServer | None:
        return None

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        raise self.trouble

    async def remove(self, user: str, name: str) -> None:
        raise self.trouble


@pytest.mark.parametrize("trouble", [HubAway("ReadTimeout"), HubRefused(403, "no")])
async def test_a_hub_that_ends_nothing_is_no_failure_and_keeps_nothing_from_being_done(
    world: World, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    world.ctx.hub = Unwilling(trouble)
    got = await world.running(await world.reserve(disk="work", create_disk=True))
    await disks.ensure(world.ctx, await _disk(world, got))
    world.clock.pass_time(minutes=1)
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    assert await world.states(got) == [State.CANCELLED]
    async with world.ctx.store.reading() as session:
        row = await session.get_one(DiskRow, await _disk(world, got))
    assert row.size_measured_at == world.clock.now()
    assert not _failures(caplog)


def _failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What nobody had thought of."""
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]


async def _snapshots(world: World) -> list[SnapshotRow]:
    async with world.ctx.store.reading() as session:
        return list(await session.scalars(select(SnapshotRow)))


def test_a_snapshot_whose_size_nobody_knows_is_told_without_it() -> None:
    assert driving._taken(SnapshotRow(size_bytes=None)) == "Snapshot taken."
    assert driving._taken(SnapshotRow(size_bytes=0)) == f"Snapshot taken: {words.size(0)}."


async def _disk(world: World, of: Reservation) -> str:
    async with world.ctx.store.reading() as session:
        found = (await session.get_one(ReservationRow, of.id)).disk_id
    assert found is not None
    return found


async def test_what_a_server_without_a_disk_has_left_goes_with_its_lease(world: World) -> None:
    got = await world.running(await world.reserve())
    await servers.launch(world.ctx, got.id)
    home = servers.scratch(world.ctx, got.id)
    assert home in home.parent.iterdir()
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    assert home not in home.parent.iterdir()


class Starting(Hub):
    """Shows a server as `pending` for some `looks`; writes down what it is asked. `meanwhile`
    happens when it is asked for the first time."""

    def __init__(self, pending: str | None, looks: int) -> None:
        super().__init__("http://127.0.0.1:9/hub/api", "t", patience=0.5)
        # As it is read from an answer: no constant of this program.
        self.pending = None if pending is None else "".join(list(pending))
        self.looks = looks
        self.asked: list[str] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def server(self, user: str, name: str) -> HubServer | None:
        self.asked.append("look")
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        if not self.looks:
            return None
        self.looks -= 1
        return HubServer(user, name, False, self.pending, False, None, None)

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        self.asked.append("stop")

    async def remove(self, user: str, name: str) -> None:
        self.asked.append("remove")


@pytest.mark.parametrize(
    ("pending", "looks", "looked"),
    [("spawn", 2, 3), ("spawn", 100, 4), ("stop", 100, 1), (None, 100, 1), ("spawn", 0, 1)],
)
async def test_a_start_that_is_under_way_ends_by_itself_or_is_stopped_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch, pending: str | None, looks: int, looked: int
) -> None:
    monkeypatch.setattr(driving, "START_LOOKS", 4)
    got = await world.reserve()
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    world.ctx.hub = hub = Starting(pending, looks)
    await world.sweep()
    assert hub.asked == ["look"] * looked + ["stop", "remove"]
    assert await world.states(got) == [State.CANCELLED]


async def test_what_the_hub_starts_after_the_end_is_not_stopped_for_it(world: World) -> None:
    """It may be the next reservation's with the same server."""
    got = await world.reserve()
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    hub = world.ctx.hub = Starting("spawn", 100)
    hub.meanwhile = lambda: driving._finish(world.ctx, got.id, None)
    async with world.ctx.store.reading() as session:
        row = await session.get_one(ReservationRow, got.id)
    assert not await driving._start_is_over(world.ctx, row)
    assert hub.asked == ["look"]
    # Who has finished it once has nothing left to say.
    said = await world.reasons(got)
    await driving._finish(world.ctx, got.id, None)
    assert await world.reasons(got) == said


@pytest.mark.parametrize(
    ("name", "runs", "kept"),
    [(None, False, True), (None, True, False), ("lab", True, True)],
    ids=["never up", "named by gpudev", "named by its owner"],
)
async def test_the_hub_keeps_what_tells_why_a_start_failed_and_what_is_its_owners(
    world: World, name: str | None, runs: bool, kept: bool
) -> None:
    got = await world.reserve(server_name=name)
    if runs:
        await world.running(got)
    world.ctx.hub = hub = Starting(None, 0)
    await _ended(world, got, State.FAILED)
    await world.sweep()
    assert await world.states(got) == [State.FAILED]
    assert ("remove" not in hub.asked) is kept
