"""What is kept from one transaction to the next is lost as soon as it may be wrong."""

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store.engine import Store
from gpudev_service.store.memory import CHANGES, Look, Turn
from gpudev_service.store.models import (
    DiskRow,
    HistoryRow,
    LeaseUnitRow,
    PlanCountRow,
    ReservationRow,
)
from tests.fixtures.rows import NOW, disk, lease, lease_unit, reservation

Found = tuple[str | None, set[str]]


async def keep(store: Store, gpu_type: str = "t4", value: str = "a plan") -> None:
    async def work(session: AsyncSession) -> None:
        turn: Turn[str] = Turn.of(session)
        await turn.take(gpu_type)
        turn.put(gpu_type, value)

    await store.run(work)


async def kept(store: Store, gpu_type: str = "t4") -> Found:
    """Looks, and puts it back as it was."""
    found: Found = None, set()

    async def work(session: AsyncSession) -> None:
        nonlocal found
        turn: Turn[str] = Turn.of(session)
        found = await turn.take(gpu_type)
        if found[0] is not None:
            turn.put(gpu_type, found[0])

    await store.run(work)
    return found


async def add(store: Store, *rows: object) -> None:
    async with store.transaction() as session:
        for row in rows:
            session.add(row)
            await session.flush()


async def test_what_is_kept_is_there_in_the_next_transaction(store: Store) -> None:
    assert await kept(store) == (None, set())
    await keep(store)
    assert await kept(store) == ("a plan", set())
    assert await kept(store, "h100") == (None, set())


async def test_it_is_lost_with_a_transaction_that_is_rolled_back(store: Store) -> None:
    await keep(store)

    async def work(session: AsyncSession) -> None:
        turn: Turn[str] = Turn.of(session)
        await turn.take("t4")
        turn.put("t4", "a plan that never was")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.run(work)
    assert await kept(store) == (None, set())


async def test_what_was_only_asked_outlives_a_transaction_that_is_refused(store: Store) -> None:
    await add(store, reservation("r1"))
    await keep(store)

    async def ask(*changes: str) -> None:
        async def work(session: AsyncSession) -> None:
            turn: Turn[str] = Turn.of(session)
            for name in changes:
                (await session.get_one(ReservationRow, name)).planned_start = NOW
            found, _ = await turn.take("t4")
            assert found is not None
            turn.give_back("t4", found)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.run(work)

    await ask()
    assert await kept(store) == ("a plan", set())
    await ask("r1")
    assert await kept(store) == (None, set()), "it may know what has been taken back"


async def test_what_was_asked_and_then_changed_is_lost_with_the_transaction(store: Store) -> None:
    await keep(store)

    async def work(session: AsyncSession) -> None:
        turn: Turn[str] = Turn.of(session)
        turn.give_back("t4", (await turn.take("t4"))[0] or "")
        turn.put("t4", f"{(await turn.take('t4'))[0]} with more")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.run(work)
    assert await kept(store) == (None, set())


async def test_within_a_transaction_it_is_what_agrees_with_its_rows(store: Store) -> None:
    await add(store, reservation("r1"))
    await keep(store)
    async with store.transaction() as session:
        turn: Turn[str] = Turn.of(session)
        assert turn.kept("t4") is None, "it has not been looked at"
        await turn.take("t4")
        turn.put("t4", "a newer plan")
        assert turn.kept("t4") == "a newer plan"
        (await session.get_one(ReservationRow, "r1")).planned_start = NOW
        await session.flush()
        assert turn.kept("t4") is None, "it knows nothing of the change"


async def look(store: Store) -> Look[str] | None:
    async with store.reading() as session:
        return await store.memory.look(session, "t4")


async def test_a_reader_looks_and_leaves_it(store: Store) -> None:
    assert await look(store) is None
    await add(store, reservation("r1"))
    await keep(store)
    async with store.transaction() as session:
        (await session.get_one(ReservationRow, "r1")).planned_start = NOW
    found = await look(store)
    assert found is not None
    assert (found.kept, found.still) == ("a plan", True)
    assert found.stale == {"r1"}
    assert await kept(store) == ("a plan", {"r1"})


async def test_what_a_reader_has_made_is_kept_where_nothing_is(store: Store) -> None:
    async def make(value: str) -> None:
        async with store.reading() as session:
            await store.memory.keep(session, "t4", value)

    await make("of a state that nobody has counted")
    assert await kept(store) == (None, set())
    await make("a reader's")
    await make("a second one's")
    assert await kept(store) == ("a reader's", set())
    store.memory.forget()
    store.memory.taken.add("t4")
    await make("while somebody has it out")
    assert await kept(store) == (None, set())
    assert store.memory.taken == set(), "whoever it was is over"
    async with store.reading() as session:
        await session.execute(select(PlanCountRow))
        await add(store, reservation("r1"))
        await store.memory.keep(session, "t4", "of an older state")
    assert await kept(store) == (None, set())


async def test_a_reader_notices_what_has_happened_since(store: Store, migrated_url: str) -> None:
    await keep(store)
    found = await look(store)
    assert found is not None
    async with store.transaction() as session:
        turn: Turn[str] = Turn.of(session)
        await turn.take("t4")
        assert not found.still, "somebody has it"
    assert await look(store) is None
    await keep(store)
    found = await look(store)
    assert found is not None
    await add(store, reservation("r1"))
    assert not found.still, "it is not what the reader saw"
    other = Store(migrated_url)
    await add(other, reservation("r2"))
    assert await look(store) is None, "another process has changed something"
    await other.close()


async def test_a_reader_notices_that_somebody_has_brought_it_further(store: Store) -> None:
    """It is the same object, and nothing of it is stale: what the reader sees is older."""
    await keep(store)
    found = await look(store)
    assert found is not None
    async with store.transaction() as session:
        turn: Turn[str] = Turn.of(session)
        taken, _ = await turn.take("t4")
        assert taken is found.kept
        session.add(reservation("r1"))
        await session.flush()
        turn.put("t4", taken)
    after = await look(store)
    assert after is not None
    assert (after.kept, after.stale) == (found.kept, found.stale)
    assert not found.still
    assert after.still


async def test_a_reader_renews_or_spoils_it(store: Store) -> None:
    await keep(store)
    await add(store, reservation("r1"))
    found = await look(store)
    assert found is not None
    found.renewed()
    assert await kept(store) == ("a plan", set())
    found.spoiled()
    assert await kept(store) == (None, set())


async def test_another_process_that_changes_anything_is_noticed(
    store: Store, migrated_url: str
) -> None:
    other = Store(migrated_url)
    await keep(store)
    await add(other, reservation("r1", gpu_type="h100"))
    assert await kept(store) == (None, set())
    await keep(store)
    await keep(other)
    assert await kept(store) == ("a plan", set()), "who only looks changes nothing"
    await other.close()


async def test_another_process_is_noticed_by_who_changes_something_without_a_look(
    store: Store, migrated_url: str
) -> None:
    other = Store(migrated_url)
    await keep(store)
    await add(other, reservation("r1"))
    await add(store, reservation("r2"))
    assert await kept(store) == (None, set())
    await other.close()


async def test_it_is_said_which_reservations_have_changed_since(store: Store) -> None:
    await add(store, reservation("r1"), lease("r2"), lease_unit("r2"), lease("r3"))
    await keep(store)
    await keep(store, "h100")
    async with store.transaction() as session:
        (await session.get_one(ReservationRow, "r1")).planned_start = NOW
        await session.delete(await session.get_one(LeaseUnitRow, ("n1", 0)))
    await add(store, reservation("r4"), lease_unit("r3"))
    assert await kept(store, "h100") == ("a plan", set())
    assert await kept(store) == ("a plan", {"r1", "r2", "r3", "r4"})
    assert await kept(store) == ("a plan", set())


async def test_what_is_changed_after_it_was_kept_is_said_too(store: Store) -> None:
    async with store.transaction() as session:
        turn: Turn[str] = Turn.of(session)
        await turn.take("t4")
        session.add(reservation("r1"))
        await session.flush()
        turn.put("t4", "a plan with r1")
        session.add(reservation("r2"))
    assert await kept(store) == ("a plan with r1", {"r2"})


async def test_other_columns_and_tables_have_no_part_in_it(store: Store) -> None:
    await add(store, reservation("r1"), disk())
    await keep(store)
    before = store.memory.count
    async with store.transaction() as session:
        (await session.get_one(ReservationRow, "r1")).reason = "none"
        (await session.get_one(DiskRow, "d1")).size_bytes = 1
        session.add(
            HistoryRow(
                reservation_id="r1", at=NOW, kind="note", state="queued", reason="x", actor="x"
            )
        )
        await session.execute(delete(HistoryRow).where(HistoryRow.kind == "warning"))
    assert await kept(store) == ("a plan", set())
    assert store.memory.count == before


@pytest.mark.parametrize(
    "statement",
    [
        update(ReservationRow).values(priority=1),
        delete(LeaseUnitRow),
        delete(LeaseUnitRow.__table__),  # type: ignore[arg-type]  # it is a table
    ],
)
async def test_a_statement_on_a_whole_table_ends_it(store: Store, statement: object) -> None:
    await keep(store)
    async with store.transaction() as session:
        await session.execute(statement)  # type: ignore[call-overload]  # one of the above
    assert await kept(store) == (None, set())


async def test_a_statement_that_says_what_it_changes_ends_nothing_else(store: Store) -> None:
    await add(store, reservation("r1"), reservation("r2"))
    await keep(store)
    await keep(store, "h100")
    async with store.reading() as session:
        before = (await session.scalars(select(PlanCountRow.count))).one()
    changes = [("t4", "r1"), ("t4", "r2")]
    async with store.transaction() as session:
        statement = update(ReservationRow).values(priority=1)
        await session.execute(statement, execution_options={CHANGES: changes})
    async with store.reading() as session:
        assert (await session.scalars(select(PlanCountRow.count))).one() == before + 1
    assert await kept(store, "h100") == ("a plan", set())
    assert await kept(store) == ("a plan", {"r1", "r2"})


async def test_it_can_be_taken_again_in_the_same_transaction(store: Store) -> None:
    await keep(store)
    async with store.transaction() as session:
        turn: Turn[str] = Turn.of(session)
        await turn.take("t4")
        turn.put("t4", "another plan")
        assert await turn.take("t4") == ("another plan", set())
        assert await turn.take("t4") == (None, set())


async def test_where_a_disk_can_be_used_ends_it(store: Store) -> None:
    await add(store, disk())
    await keep(store)
    async with store.transaction() as session:
        (await session.get_one(DiskRow, "d1")).reach = {"zones": ["a"]}
    assert await kept(store) == (None, set())


async def test_changed_tables_end_it(store: Store) -> None:
    async def work(session: AsyncSession) -> None:
        await session.execute(select(1))

    await keep(store)
    await store.alter(work)
    assert await kept(store) == (None, set())


async def test_a_reader_notices_a_change_that_was_taken_in_or_came_since(store: Store) -> None:
    """Whether more is stale than the reader saw, or less."""
    await add(store, reservation("r1"), reservation("r2"))
    await keep(store)
    fresh = await look(store)
    assert fresh is not None
    store.memory.stale["t4"] = {"r1"}
    assert not fresh.still, "r1 has changed since"
    older = await look(store)
    assert older is not None
    assert older.still
    newest = await look(store)
    assert newest is not None
    newest.renewed()
    assert not older.still, "it knows of r1 by now"
