"""Events: bounded, never in anybody's way, and nobody is left with an old picture."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gpudev_client.models import CollaboratorRequest, Event, Milestone, ServerReport
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.events import BACKLOG, Dropped, EventBus, Invitation, Owner
from gpudev_service.operations import reservations, servers, sharing, views
from gpudev_service.operations.promises import improved
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import HistoryRow
from tests.fixtures.statements import statements
from tests.fixtures.world import World

ADA = Owner("ada", ())


async def an_event(world: World) -> Event:
    got = await world.reserve()
    return Event(id=1, kind="note", at=world.clock.now(), message="", reservation=got)


async def test_one_who_does_not_keep_up_reads_what_waits_and_is_then_dropped(world: World) -> None:
    bus, event = EventBus(), await an_event(world)
    async with bus.listen(lambda _: True) as listener:
        for _ in range(BACKLOG + 5):
            bus.publish(ADA, event)
        for _ in range(BACKLOG):
            assert await listener.next() == event
        bus.publish(ADA, event)  # too late
        with pytest.raises(Dropped):
            await listener.next()
    assert bus.listeners == 0


async def test_what_is_not_accepted_takes_no_room(world: World) -> None:
    bus, event = EventBus(), await an_event(world)
    async with bus.listen(lambda owner: owner.user == "grace") as listener:
        for _ in range(BACKLOG + 5):
            bus.publish(ADA, event)
        bus.publish(Owner("grace", ()), event)
        async for got in listener:
            assert got == event
            break


async def test_only_those_are_asked_whom_it_may_concern(world: World) -> None:
    bus, event = EventBus(), await an_event(world)
    asked: list[tuple[str, str]] = []

    def ask(who: str) -> Callable[[Owner], bool]:
        def accept(owner: Owner) -> bool:
            asked.append((who, owner.user))
            return False

        return accept

    async with (
        bus.listen(ask("admin")),
        bus.listen(ask("ada"), frozenset({"ada"})) as ada,
        bus.listen(ask("sam"), frozenset({"sam", "grace"})),
    ):
        bus.publish(ADA, event)
        assert sorted(asked) == [("ada", "ada"), ("admin", "ada")]
        asked.clear()
        bus.publish(Owner("grace", (), "x", (Invitation("ada", "view"),)), event)
        assert sorted(asked) == [("ada", "grace"), ("admin", "grace"), ("sam", "grace")]
        asked.clear()
        ada.hear_of(frozenset({"linus"}))
        bus.publish(ADA, event)
        assert asked == [("admin", "ada")]
        ada.hear_of(None)
        bus.publish(Owner("linus", ()), event)
        assert sorted(asked[1:]) == [("ada", "linus"), ("admin", "linus")]
    asked.clear()
    bus.publish(ADA, event)
    assert not asked
    assert bus.listeners == 0


async def test_who_listens_to_one_reservation_is_told_of_no_other(world: World) -> None:
    """Thousands of promises may move at once: they would leave no room for it."""
    bus, event = EventBus(), await an_event(world)
    other = event.model_copy(update={"reservation": await world.reserve("grace")})
    async with bus.listen(lambda _: True, None, event.reservation.id) as listener:
        for _ in range(BACKLOG + 5):
            bus.publish(ADA, other)
        listener.hear_of(frozenset({"grace"}))
        bus.publish(ADA, other)
        bus.publish(ADA, event)
        assert await listener.next() == event
    async with bus.listen(lambda _: False, None, event.reservation.id) as listener:
        bus.publish(ADA, event)
        assert listener._queue.empty(), "it is asked whether they may still see it"
    assert (bus.listeners, bus._of) == (0, {})


async def test_only_what_somebody_may_be_listening_to_is_read(world: World) -> None:
    mine = await world.reserve()
    theirs = [await world.reserve(user) for user in ("grace", "linus", "ken")]
    entries = [improved(one.id, world.clock.now()) for one in (*theirs, mine)]
    bus = world.ctx.events
    async with (
        bus.listen(lambda _: True, frozenset({"sam"})),
        bus.listen(lambda _: True, None, mine.id) as listener,
    ):
        with statements() as asked:
            await views.publish(world.ctx, entries[:2])
        assert len([one for one in asked if one.startswith("SELECT")]) == 1, "found none"
        await views.publish(world.ctx, entries)
        assert (await listener.next()).reservation.id == mine.id
    async with bus.listen(lambda _: True, None, mine.id):
        with statements() as asked:
            await views.publish(world.ctx, entries[:3])
        assert not asked
    async with bus.listen(lambda _: True, frozenset({"linus"})) as listener:
        await views.publish(world.ctx, entries)
        assert (await listener.next()).reservation == theirs[1]
        assert listener._queue.empty()
    async with bus.listen(lambda _: True) as listener:
        await views.publish(world.ctx, entries)
        told = [(await listener.next()).reservation.user for _ in entries]
        assert told == ["grace", "linus", "ken", "ada"]


async def test_what_somebody_is_invited_to_is_read_for_them(world: World) -> None:
    mine = await world.reserve()
    asked = CollaboratorRequest(role="view")
    await sharing.invite(world.ctx, mine.id, "grace", asked, Actor("ada"))
    async with world.ctx.events.listen(lambda _: True, frozenset({"grace"})) as listener:
        await views.publish(world.ctx, [improved(mine.id, world.clock.now())])
        assert (await listener.next()).reservation.id == mine.id


async def test_promises_are_told_part_by_part(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_AT_ONCE", 2)
    waiting = [await world.reserve(user) for user in ("ada", "grace", "linus", "ken", "sam")]
    async with world.ctx.events.listen(lambda _: True) as listener:
        await views.publish(world.ctx, [improved(one.id, world.clock.now()) for one in waiting])
        told = [(await listener.next()).reservation.id for _ in waiting]
    assert told == [one.id for one in waiting]


async def test_one_who_waits_is_told_that_something_was_lost() -> None:
    bus = EventBus()
    async with bus.listen(lambda _: True) as listener:
        waiting = asyncio.create_task(listener.next())
        await asyncio.sleep(0)
        bus.lose()
        with pytest.raises(Dropped):
            await waiting
        with pytest.raises(Dropped):
            await listener.next()


class DeafStore(Store):
    """Commits; what is asked after the next commit finds no database."""

    deaf = False
    deaf_after_commit = False

    async def run(self, work: Any, *, attempts: int = 5) -> Any:
        result = await super().run(work, attempts=attempts)
        self.deaf = self.deaf_after_commit
        return result

    def reading(self) -> Any:
        if self.deaf:
            raise StoreUnavailable("away")
        return super().reading()


async def test_what_is_committed_is_answered_though_nobody_could_be_told(
    world: World, migrated_url: str
) -> None:
    store = DeafStore(migrated_url)
    world.ctx.store = store
    got = await world.reserve()
    async with world.ctx.events.listen(lambda _: True) as listener:
        store.deaf_after_commit = True
        await reservations.cancel(world.ctx, got.id, Actor("ada"))
        store.deaf_after_commit = store.deaf = False
        with pytest.raises(Dropped):
            await listener.next()
    assert await world.states(got) == [State.STOPPING]
    await store.close()


async def test_what_a_start_changes_is_told_without_reading_it_again(
    world: World, migrated_url: str
) -> None:
    """Hundreds start at once, and each of their Hubs listens."""
    store = DeafStore(migrated_url)
    world.ctx.store = store
    async with world.ctx.events.listen(lambda owner: owner.user == "ada") as listener:
        store.deaf_after_commit = True
        got = await world.reserve()
        assert [(await listener.next()).kind for _ in range(2)] == ["transition"] * 2
        now = world.clock.now()
        said = ServerReport(status="running", milestones=[Milestone(step="lab", at=now)])
        after = await servers.report(world.ctx, got.id, Actor("spawner"), said)
        steps, runs = await listener.next(), await listener.next()
        assert (steps.kind, runs.kind) == ("milestones", "transition")
        assert runs.reservation == after
        assert after.state is State.ACTIVE
        store.deaf_after_commit = store.deaf = False
    await store.close()


async def test_who_starts_is_told_before_the_promises_that_moved_with_it(
    world: World, migrated_url: str
) -> None:
    store = DeafStore(migrated_url)
    world.ctx.store = store
    got, other = await world.reserve(), await world.reserve("grace")
    now = world.clock.now()
    rows = [
        HistoryRow(reservation_id=one.id, at=now, kind=kind, state="queued", reason="", actor="")
        for one, kind in ((got, "transition"), (other, "promise"))
    ]
    async with world.ctx.events.listen(lambda _: True) as listener:
        store.deaf = True
        await views.publish(world.ctx, rows, {got.id: (ADA, got)})
        store.deaf = False
        assert (await listener.next()).reservation == got
        with pytest.raises(Dropped):
            await listener.next()
    await store.close()


async def test_nothing_to_tell_wakes_nobody(world: World) -> None:
    bell = world.ctx.wake.current
    await views.publish(world.ctx, [])
    assert not bell.is_set()
    await world.reserve()
    assert bell.is_set()


async def test_a_long_queue_is_shown_by_as_many_questions_as_a_short_one(world: World) -> None:
    for name in ("ada", "grace", "linus"):
        await world.reserve(name)
    with statements() as few:
        [view async for view in reservations.present(world.ctx, lambda _: True)]
    for number in range(12):
        await world.reserve(f"user-{number}")
    with statements() as many:
        shown = [view async for view in reservations.present(world.ctx, lambda _: True)]
    assert len(many) == len(few)
    assert sorted(r.position for r in shown if r.position) == list(range(1, 15))
    for view in shown:
        assert (await world.look(view)).position == view.position
