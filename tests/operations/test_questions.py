"""Questions to a plan, while others plan with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.models import Plan, Reservation, ReservationRequest
from gpudev_service.actor import Actor
from gpudev_service.operations import capacity, facts, kept, planning, questions, reservations
from gpudev_service.store.errors import NotLeading
from gpudev_service.store.memory import Turn
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World

TYPE = "t4-small"
#: Behind a lease of an hour and somebody who waits for two.
THEN = START + timedelta(hours=3, seconds=30)


@pytest.fixture
async def lease(world: World) -> Reservation:
    lease = await world.reserve("ada", hours=1)
    await world.running(lease)
    await world.reserve("grace", hours=2)
    return lease


async def preview(world: World) -> Plan:
    asked = ReservationRequest(gpu_type=TYPE, gpus=1, hours=1)
    return await reservations.preview(world.ctx, Actor("linus"), asked, ())


@asynccontextmanager
async def somebody_plans(world: World) -> AsyncIterator[None]:
    """While it lasts, a transaction has the plan out."""
    has_it, ends = asyncio.Event(), asyncio.Event()

    async def work(session: AsyncSession) -> None:
        turn: Turn[Any] = Turn.of(session)
        known, _ = await turn.take(TYPE)
        has_it.set()
        await ends.wait()
        turn.put(TYPE, known)

    running = asyncio.create_task(world.ctx.store.run(work))
    await has_it.wait()
    try:
        yield
    finally:
        ends.set()
        await running


def refuse_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No world is made of all rows from now on."""

    def made(*_: object) -> None:
        raise AssertionError("everybody was read anew")

    monkeypatch.setattr(kept, "_from_rows", made)


class Line:
    """Who asks for a transaction that may write, counted from now on."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._run = world.ctx.store.run
        self.stood, self._first = 0, asyncio.Event()
        monkeypatch.setattr(world.ctx.store, "run", self._stand)

    async def _stand(self, *args: Any, **options: Any) -> Any:
        self.stood += 1
        self._first.set()
        return await self._run(*args, **options)

    async def first(self) -> None:
        async with asyncio.timeout(30):
            await self._first.wait()


@pytest.mark.usefixtures("lease")
async def test_a_question_waits_while_somebody_plans(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = world.ctx.store.memory.kept[TYPE]
    refuse_rows(monkeypatch)
    async with somebody_plans(world):
        line = Line(world, monkeypatch)
        asked = asyncio.create_task(preview(world))
        await line.first()
        world.clock.pass_time(seconds=10)
    assert (await asked).starts_at == THEN
    assert world.ctx.store.memory.kept[TYPE] is known


@pytest.mark.usefixtures("lease")
async def test_what_is_free_when_is_such_a_question(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub's form asks it for everybody who opens it, and so does who collects metrics."""
    refuse_rows(monkeypatch)
    [found] = await capacity.availability(world.ctx, 1, (), TYPE)
    assert (found.total, found.free, found.queue_length) == (1, 0, 1)
    assert [one.starts_at for one in found.earliest] == [THEN]


async def test_of_many_that_wait_one_stands_in_the_line_of_writers(
    world: World, lease: Reservation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred panels that come back together must not keep leases from starting."""
    refuse_rows(monkeypatch)
    async with somebody_plans(world):
        line = Line(world, monkeypatch)
        views = [asyncio.create_task(reservations.get(world.ctx, lease.id)) for _ in range(20)]
        await line.first()
    for view in await asyncio.gather(*views):
        assert view.extension is not None
        assert view.extension.possible_hours == 0
    assert line.stood == 1


@pytest.mark.usefixtures("lease")
async def test_where_nobody_can_write_it_is_answered_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Follows:
        async def check(self, session: AsyncSession) -> None:
            raise NotLeading("Another replica leads.")

    memory = world.ctx.store.memory
    monkeypatch.setattr(world.ctx.store, "fence", Follows())
    memory.count = (memory.count or 0) - 1  # somebody else has written
    assert (await preview(world)).starts_at == THEN
    memory.forget()
    memory.taken.add(TYPE)
    assert (await preview(world)).starts_at == THEN


@pytest.mark.usefixtures("lease")
async def test_what_a_question_has_made_of_all_rows_is_kept_for_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ctx.store.memory.forget()
    assert (await preview(world)).starts_at == THEN
    refuse_rows(monkeypatch)
    assert (await preview(world)).starts_at == THEN
    await world.reserve("linus", hours=1)  # planned with it, too
    assert (await preview(world)).starts_at == THEN + timedelta(hours=1, seconds=15)


async def test_it_is_not_where_it_would_change_a_start(world: World, lease: Reservation) -> None:
    world.ctx.store.memory.forget()
    assert lease.expires_at is not None
    world.clock.pass_time(hours=1, seconds=15)  # the lease should be over, and is there
    assert (await preview(world)).starts_at > THEN
    assert TYPE not in world.ctx.store.memory.kept


async def test_a_question_in_between_does_not_make_the_plan_too_new(
    world: World, lease: Reservation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It brings it to its own time, which is later than that of who is about to plan with it."""
    refuse_rows(monkeypatch)
    began, goes_on = asyncio.Event(), asyncio.Event()
    earlier = world.clock.now()

    async def work(session: AsyncSession) -> None:
        row = await session.get_one(ReservationRow, lease.id)
        row.expires_at = earlier + timedelta(minutes=30)
        began.set()
        await goes_on.wait()
        await planning.replan(world.ctx, session, earlier, [TYPE])

    writing = asyncio.create_task(world.ctx.store.run(work))
    await began.wait()
    world.clock.pass_time(seconds=10)
    assert (await preview(world)).starts_at == THEN
    goes_on.set()
    await writing
    assert (await preview(world)).starts_at == THEN - timedelta(minutes=30)


@pytest.mark.usefixtures("lease")
async def test_a_question_that_comes_late_is_answered_as_of_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_rows(monkeypatch)
    earlier = world.clock.now()
    world.clock.pass_time(seconds=10)
    await preview(world)

    async def question(session: AsyncSession) -> int:
        return (await questions.present(world.ctx, session, earlier, TYPE)).world.now_ms

    assert await questions.ask(world.ctx, question) == facts.to_ms(earlier) + 10_000
    assert await world.ctx.store.run(question) == facts.to_ms(earlier) + 10_000
