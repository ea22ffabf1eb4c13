"""How promises are written down, whatever else a transaction does with their rows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from gpudev_service import planner
from gpudev_service.operations import facts, promises
from gpudev_service.operations.transitions import Entry
from gpudev_service.store.models import ReservationRow
from tests.fixtures.statements import statements
from tests.fixtures.world import START, World


async def waiting(world: World) -> Reservation:
    await world.reserve("ada", hours=1)
    got = await world.reserve("grace", hours=1)
    assert got.state is State.QUEUED
    return got


def slot(hours: float, *nodes: str) -> planner.Slot:
    return planner.Slot(facts.to_ms(START + timedelta(hours=hours)), nodes or ("small-1",), 1)


async def make(
    world: World, got: Reservation, new: planner.Slot, why: planner.Reason | None = None
) -> tuple[list[Entry], int]:
    """What is told of a promise, and the row's version then. What is written of the row later in
    the same transaction counts on from that version."""
    later = {} if why is None else {got.id: why}
    async with world.ctx.store.transaction() as session:
        row = await session.get_one(ReservationRow, got.id)
        told = await promises.make(session, {got.id: new}, later, START)
        version = row.version
        row.priority += 1
    assert row.version == version + 1
    return told, version


async def test_a_promise_that_stays_is_neither_written_nor_told(world: World) -> None:
    got = await waiting(world)
    assert got.promised_start is not None
    first = planner.Slot(facts.to_ms(got.promised_start), ("small-1",), 1)
    told, before = await make(world, got, first)
    assert told == []
    told, before = (await make(world, got, first))[0], before + 1
    assert told == []
    # Another node at the same time is another promise, of which nobody needs to hear.
    for node in ("small-2", "small-1", "small-2"):
        told, after = await make(world, got, slot(1 + 15 / 3600, node))
        assert (told, after) == ([], before + 2)
        before = after
    told, last = await make(world, got, slot(0.5, "small-2"))
    assert [entry.reason for entry in told] == ["The start is now earlier."]
    assert last == before + 2


async def test_a_promise_that_is_written_with_its_row_takes_nothing_from_it(
    world: World,
) -> None:
    """What else has changed in the row is still to be written then."""
    got = await waiting(world)
    async with world.ctx.store.transaction() as session:
        row = await session.get_one(ReservationRow, got.id)
        row.priority = 7
        new = slot(2)
        why = planner.Reason.QUEUE_PLANNED_AGAIN
        [told] = await promises.make(session, {got.id: new}, {got.id: why}, START)
    assert got.promised_start is not None
    assert told.data == {
        "from": got.promised_start.isoformat(),
        "to": (START + timedelta(hours=2)).isoformat(),
    }
    async with world.ctx.store.reading() as session:
        row = await session.get_one(ReservationRow, got.id)
        assert (row.priority, row.planned_start) == (7, START + timedelta(hours=2))
        assert row.first_promise == got.first_promised_start


async def test_a_promise_is_taken_back_once(world: World) -> None:
    got = await waiting(world)
    async with world.ctx.store.transaction() as session:
        row = await session.get_one(ReservationRow, got.id)
        [said] = promises.withdraw(session, row, planner.Reason.DRAINED, START)
        assert promises.withdraw(session, row, planner.Reason.DRAINED, START) == []
        assert promises.late(session, row, START + timedelta(hours=9)) == []
    assert said.reason == (
        "The promised start had to be taken back: no node that could hold this is in service. Your "
        "place in the queue is kept."
    )
    assert (await world.look(got)).promised_start is None
    told, _ = await make(world, got, slot(2))
    assert [entry.reason for entry in told] == ["A start is promised again."]
    assert told[0].data == {"from": None, "to": (START + timedelta(hours=2)).isoformat()}


async def test_rows_are_read_in_pieces_and_those_that_are_there_not_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Databases have a limit on a statement's parameters."""
    monkeypatch.setattr(promises, "AT_ONCE", 2)
    made = [await waiting(world) for _ in range(6)]
    keys = [one.id for one in made]
    async with world.ctx.store.transaction() as session:
        mine = await session.get_one(ReservationRow, keys[0])
        mine.priority = 3
        with statements() as said:
            found = await promises.rows(session, keys)
            assert await promises._states(session, keys) == dict.fromkeys(keys, State.QUEUED)
        assert sorted(found) == sorted(keys)
        assert found[keys[0]] is mine
        assert len([line for line in said if line.startswith("SELECT")]) == 3 + 3
