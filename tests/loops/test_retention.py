"""Retention, and what it finds that others left; one bad disk is in no other's way."""

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gpudev_client.models import CloneRequest, DiskRequest, Reservation
from gpudev_service.actor import Actor
from gpudev_service.disks.base import DiskFailure
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.errors import Refusal
from gpudev_service.kube import KubeAway
from gpudev_service.loops import retention
from gpudev_service.operations import disks, reservations, servers, snapshots, status
from gpudev_service.servers.shared import SharedFolders
from gpudev_service.store.models import DiskRow, IdempotencyRow
from tests.fixtures.world import World

ADA = Actor("ada")


class BadDisks(DirectoryDisks):
    """Some disks cannot be purged."""

    bad: frozenset[str] = frozenset()

    async def purge(self, disk_id: str) -> None:
        if disk_id in self.bad:
            raise DiskFailure("the file system of the disks refused the work")
        await super().purge(disk_id)


async def key_of(world: World, name: str) -> str:
    async with world.ctx.store.reading() as session:
        return (await disks.require(session, "ada", name)).id


@pytest.mark.parametrize("bad", [("a",), ("a", "b")], ids=str)
async def test_a_disk_that_cannot_be_purged_keeps_no_other(
    world: World, tmp_path: Path, bad: tuple[str, ...]
) -> None:
    world.ctx.disks = backend = BadDisks(tmp_path / "disks")
    keys = {}
    for name in ("a", "b", "c", "d"):
        await disks.create(world.ctx, "ada", DiskRequest(name=name), (), ADA)
        keys[name] = await key_of(world, name)
        await disks.delete(world.ctx, "ada", name, (), ADA)
    backend.bad = frozenset(keys[name] for name in bad)
    world.clock.pass_time(days=31)
    with pytest.raises(DiskFailure if len(bad) == 1 else ExceptionGroup):
        await retention.run(world.ctx)
    async with world.ctx.store.reading() as session:
        left = {name for name, key in keys.items() if await session.get(DiskRow, key)}
    assert left == set(bad)
    backend.bad = frozenset()
    await retention.run(world.ctx)
    async with world.ctx.store.reading() as session:
        assert not [key for key in keys.values() if await session.get(DiskRow, key)]


async def test_homes_without_a_disk_go_with_their_reservation(world: World) -> None:
    over, runs = await world.reserve("ada"), await world.reserve("grace", "t4")
    for got in (over, runs):
        await servers.launch(world.ctx, got.id)
    await reservations.cancel(world.ctx, over.id, ADA)
    await world.sweep()
    left = servers.scratch(world.ctx, over.id)
    assert not left.exists()
    left.mkdir()  # a server was just being started while its lease ended
    foreign = servers.scratch(world.ctx, "zzzzzzzzzzzzzzzz")
    foreign.mkdir()
    await retention.run(world.ctx)
    assert not left.exists()
    assert servers.scratch(world.ctx, runs.id).exists()
    assert foreign.exists()


async def test_old_answers_to_idempotency_keys_are_forgotten(world: World) -> None:
    async def remember(session: object) -> None:
        for key, age in (("old", 25), ("new", 23)):
            session.add(  # type: ignore[attr-defined]
                IdempotencyRow(
                    caller="ada",
                    key=key,
                    request_hash="x",
                    created_at=world.clock.now() - timedelta(hours=age),
                )
            )

    await world.ctx.store.run(remember)
    await retention.run(world.ctx)
    async with world.ctx.store.reading() as session:
        assert await session.get(IdempotencyRow, ("ada", "old")) is None
        assert await session.get(IdempotencyRow, ("ada", "new")) is not None


async def test_old_answers_are_forgotten_in_pieces(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many of them that one statement would keep those who reserve waiting."""
    monkeypatch.setattr(retention, "KEYS_BATCH", 3)
    long_ago = world.clock.now() - timedelta(hours=25)
    async with world.ctx.store.transaction() as session:
        session.add_all(
            IdempotencyRow(caller=who, key=f"key {at}", request_hash="x", created_at=long_ago)
            for at in range(4)
            for who in ("ada", "grace")
        )
    await retention.run(world.ctx)
    async with world.ctx.store.reading() as session:
        assert await session.scalar(select(func.count()).select_from(IdempotencyRow)) == 0


async def test_work_on_disks_that_is_just_beginning_is_not_taken_for_interrupted(
    world: World,
) -> None:
    """A look between the writing down of a clone and its begin gave the new disk up."""
    await disks.create(world.ctx, "ada", DiskRequest(name="work"), (), ADA)
    (world.ctx.disks.path(await key_of(world, "work")) / "a.txt").write_text("mine")
    real_exists = world.ctx.disks.exists
    begun: list[str] = []

    class Between(DirectoryDisks):
        """Lets a clone be written down while `resume` is looking for bytes."""

        async def exists(self, disk_id: str) -> bool:
            found = await real_exists(disk_id)
            if not begun:
                begun.append(disk_id)
                world.ctx.background.start(f"disk:{disk_id}", snapshots._clone(*args))
            return found

    source = await key_of(world, "work")
    target = await disks.create_row(world.ctx, "ada", "copy", (), busy=snapshots.CLONING)
    args = (world.ctx, source, target, None)
    world.ctx.disks = Between(world.ctx.settings.data_dir / "disks")
    await snapshots.resume(world.ctx)
    await world.ctx.background.settle()
    assert begun == [target]
    copy = await disks.get(world.ctx, "ada", "copy")
    assert copy.busy is None
    assert (world.ctx.disks.path(target) / "a.txt").read_text() == "mine"


async def test_a_clone_is_begun_at_once(world: World) -> None:
    await disks.create(world.ctx, "ada", DiskRequest(name="work"), (), ADA)
    made = await snapshots.clone(world.ctx, "ada", "work", CloneRequest(name="copy"), (), ADA)
    assert made.busy
    await world.ctx.background.settle()
    assert (await disks.get(world.ctx, "ada", "copy")).busy is None


async def ended(world: World, **values: Any) -> Reservation:
    """A reservation that had a lease and is over."""
    got = await world.running(await world.reserve(**values))
    await reservations.cancel(world.ctx, got.id, Actor(got.user))
    await world.sweep()
    return await world.look(got)


async def rows_of(world: World, key: str) -> dict[str, int]:
    """How many rows of each table belong to the reservation."""
    async with world.ctx.store.reading() as session:
        return {
            table.name: await session.scalar(select(func.count()).where(column == key)) or 0
            for table, column in retention._REFERRING
        }


async def test_reservations_are_forgotten_a_year_after_their_end(world: World) -> None:
    old = await ended(world, disk="work", create_disk=True)
    assert {name for name, count in (await rows_of(world, old.id)).items() if count} == {
        "history", "placements", "snapshots",
    }  # fmt: skip
    world.clock.pass_time(days=364)
    young = await ended(world)
    live = await world.running(await world.reserve("grace", "t4", hours=24))
    await retention.run(world.ctx)
    assert await rows_of(world, old.id)
    seen = await status.last_event(world.ctx)
    world.clock.pass_time(days=1, seconds=1)
    await retention.run(world.ctx)
    with pytest.raises(Refusal, match="no such reservation"):
        await world.look(old)
    assert set((await rows_of(world, old.id)).values()) == {0}
    assert (await world.look(young)).state == "cancelled"
    assert (await world.look(live)).state == "active"
    # The disk and its snapshot are the person's and stay; so does a reader's place in the events.
    kept = await snapshots.listing(world.ctx, "ada", "work", 10, None)
    assert [(s.cause, s.state) for s in kept.items] == [("end", "ready")]
    assert await status.last_event(world.ctx) == seen
    following = await world.reserve("linus", "h100")
    missed = await status.missed(world.ctx, seen, lambda _: True)
    assert missed
    assert {event.reservation.id for event in missed} == {following.id}


async def test_plans_in_memory_outlive_those_who_are_forgotten(world: World) -> None:
    """They are in no plan; to make the plans anew for each piece would keep everybody waiting."""
    old = await ended(world)
    world.clock.pass_time(days=366)
    await world.reserve("grace")
    await world.reserve("linus", "t4")
    memory = world.ctx.store.memory
    known, count = dict(memory.kept), memory.count
    assert known.keys() == {"t4-small", "t4"}
    await retention.run(world.ctx)
    with pytest.raises(Refusal, match="no such reservation"):
        await world.look(old)
    assert all(memory.kept.get(name) is plan for name, plan in known.items())
    await world.reserve("eve", "t4")
    assert memory.count == (count or 0) + 1, "nobody else has been told to forget theirs"


async def test_plans_in_memory_outlive_a_disk_that_is_purged(world: World) -> None:
    """No reservation that waits or runs has it."""
    old = await ended(world, disk="work", create_disk=True)
    await disks.delete(world.ctx, "ada", "work", (), ADA)
    world.clock.pass_time(days=31)
    await world.reserve("grace")
    await world.reserve("linus", "t4")
    memory = world.ctx.store.memory
    known, count = dict(memory.kept), memory.count
    assert known.keys() == {"t4-small", "t4"}
    await retention.run(world.ctx)
    async with world.ctx.store.reading() as session:
        assert not list(await session.scalars(select(DiskRow)))
    assert (await world.look(old)).disk is None
    assert all(memory.kept.get(name) is plan for name, plan in known.items())
    assert memory.count == count, "nobody else has been told to forget theirs"


async def test_ids_of_forgotten_events_are_not_given_again(world: World) -> None:
    """A stream whose reader holds the last one of them would pass over the new event."""
    await ended(world)
    seen = await status.last_event(world.ctx)
    world.clock.pass_time(days=366)
    await retention.run(world.ctx)
    assert await status.last_event(world.ctx) == 0
    following = await world.reserve()
    missed = await status.missed(world.ctx, seen, lambda _: True)
    assert {event.reservation.id for event in missed} == {following.id}
    assert all(event.id > seen for event in missed)


async def test_a_list_goes_on_while_what_it_has_shown_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "BATCHES", 2)
    made = []
    for _ in range(7):
        made.append((await ended(world)).id)
        world.clock.pass_time(minutes=1)
    everybody = reservations.ReservationFilter(users=None)
    first = await reservations.listing(world.ctx, everybody, 2, None)
    assert [view.id for view in first.items] == made[:-3:-1]
    world.clock.pass_time(days=366)
    left = []
    for _ in range(3):
        await retention.run(world.ctx)
        page = await reservations.listing(world.ctx, everybody, 10, first.next_cursor)
        left.append([view.id for view in page.items])
    # The oldest go first, in bounded pieces; a cursor whose row is gone stays right.
    assert left == [made[4:5], [], []]
    assert (await reservations.listing(world.ctx, everybody, 10, None)).items == []


async def test_for_ever_is_for_ever(world: World) -> None:
    world.ctx.settings = world.ctx.settings.model_copy(update={"history_days": None})
    old = await ended(world)
    world.clock.pass_time(days=4000)
    await retention.run(world.ctx)
    assert (await world.look(old)).state == "cancelled"


class Folders(SharedFolders):
    """What nodes of leases shared, in an API server that may be away."""

    def __init__(self, *there: str) -> None:
        self.there, self.away = set(there), False

    async def reservations(self) -> set[str]:
        if self.away:
            raise KubeAway("its API server does not answer")
        return self.there

    async def remove(self, reservation_id: str) -> None:
        self.there.remove(reservation_id)


async def test_a_folder_that_outlived_its_lease_goes_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lives, over = await world.reserve(), await world.reserve("bob", "t4", gpus=1)
    await reservations.cancel(world.ctx, over.id, Actor("bob"))
    await world.sweep()
    world.ctx.shared = folders = Folders(lives.id, over.id, "of-another-installation")
    folders.away = True
    await retention.run(world.ctx)
    assert "shared folders could not be tidied: its API server does not answer" in caplog.messages
    folders.away = False
    await retention.run(world.ctx)
    assert folders.there == {lives.id, "of-another-installation"}


async def test_a_snapshot_that_somebody_else_has_just_removed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await retention._remove(world.ctx, "no-such-disk", "no-such-snapshot")
    assert "snapshot no-such-snapshot had no bytes" in caplog.messages
