"""What the database refuses, whatever the code believes."""

from datetime import timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Executable, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm.exc import StaleDataError

from gpudev_client.states import LIVE, State
from gpudev_service.store.engine import Store
from gpudev_service.store.models import (
    Base,
    DiskRow,
    HistoryRow,
    LeaseUnitRow,
    ReservationRow,
    SnapshotRow,
)
from tests.fixtures.rows import HOUR, NOW, disk, lease, lease_unit, reservation

FINAL = [state for state in State if state not in LIVE]


async def add(store: Store, *rows: Base) -> None:
    """Stores rows in the order given, in one transaction."""
    async with store.transaction() as session:
        for row in rows:
            session.add(row)
            await session.flush()


async def execute(store: Store, statement: Executable) -> None:
    async with store.transaction() as session:
        await session.execute(statement)


async def refused(store: Store, *rows: Base) -> str:
    """The database's words when it refuses rows."""
    with pytest.raises(IntegrityError) as caught:
        await add(store, *rows)
    return str(caught.value.orig)


async def test_one_gpu_has_one_lease(store: Store) -> None:
    await add(store, lease("r1"), lease("r2"), lease_unit("r1"))
    await refused(store, lease_unit("r2"))
    await add(store, lease_unit("r2", unit=1), lease_unit("r2", node="n2"))


async def test_a_released_gpu_can_be_leased_again(store: Store) -> None:
    await add(store, lease("r1"), lease("r2"), lease_unit("r1"))
    async with store.transaction() as session:
        held = await session.get_one(LeaseUnitRow, ("n1", 0))
        await session.delete(held)
        await session.flush()
        session.add(lease_unit("r2"))


async def test_a_gpu_is_leased_to_a_reservation_that_exists(store: Store) -> None:
    await refused(store, lease_unit("nobody"))


@pytest.mark.parametrize("state", sorted(LIVE))
async def test_one_disk_has_one_live_reservation(store: Store, state: State) -> None:
    await add(store, disk("d1"), lease("r1", disk_id="d1", state=state))
    await refused(store, reservation("r2", disk_id="d1"))


@pytest.mark.parametrize("state", FINAL)
async def test_a_disk_is_free_again_after_the_end(store: Store, state: State) -> None:
    await add(
        store,
        disk("d1"),
        lease("r1", disk_id="d1", state=state),
        lease("r2", disk_id="d1", state=state),
        reservation("r3", disk_id="d1"),
    )


async def test_reservations_without_a_disk_do_not_collide(store: Store) -> None:
    await add(store, reservation("r1"), reservation("r2"))


async def test_a_reservation_cannot_come_back_to_a_disk_in_use(store: Store) -> None:
    await add(
        store,
        disk("d1"),
        reservation("r1", disk_id="d1", state="failed"),
        reservation("r2", disk_id="d1"),
    )
    with pytest.raises(IntegrityError):
        async with store.transaction() as session:
            (await session.get_one(ReservationRow, "r1")).state = "queued"


@pytest.mark.parametrize("state", sorted(LIVE))
async def test_one_server_has_one_live_reservation(store: Store, state: State) -> None:
    await add(store, lease("r1", server_name="lab", state=state))
    await refused(store, reservation("r2", server_name="lab"))
    await add(store, reservation("r3", server_name="lab", user="grace"))


@pytest.mark.parametrize("state", FINAL)
async def test_a_server_can_be_reserved_again_after_the_end(store: Store, state: State) -> None:
    await add(
        store,
        lease("r1", server_name="lab", state=state),
        lease("r2", server_name="lab", state=state),
        reservation("r3", server_name="lab"),
    )


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"state": "completed"}, "state_known"),
        ({"state": "canceled"}, "state_known"),
        ({"target": "gone"}, "target_known"),
        ({"gpus": -1}, "gpus_not_negative"),
        ({"nodes": 0}, "shape"),
        ({"units_per_node": 0}, "shape"),
        ({"duration_s": 0}, "duration_positive"),
        ({"extension_s": -1}, "duration_positive"),
        ({"expires_at": NOW}, "lease_ends_after_start"),
        ({"expires_at": NOW - HOUR}, "lease_ends_after_start"),
        ({"state": "stopping", "starts_at": None}, "lease_ends_after_start"),
        ({"state": "preparing", "expires_at": None}, "lease_has_an_end"),
        ({"state": "active", "expires_at": None}, "lease_has_an_end"),
        ({"state": "stopping", "expires_at": None}, "lease_has_an_end"),
    ],
)
async def test_an_impossible_reservation(
    store: Store, changes: dict[str, Any], constraint: str
) -> None:
    assert f"ck_reservations_{constraint}" in await refused(store, lease(**changes))


@pytest.mark.parametrize("state", list(State))
async def test_every_state_of_the_api_is_known(store: Store, state: State) -> None:
    await add(store, lease(state=state, target=state))


async def test_an_unfinished_snapshot_has_a_known_state(store: Store) -> None:
    row = SnapshotRow(id="s1", disk_id="d1", taken_at=NOW, cause="end", state="half")
    assert "ck_snapshots_state_known" in await refused(store, disk("d1"), row)


async def test_a_name_is_given_to_one_disk_of_a_user(store: Store) -> None:
    await add(store, disk("d1", name="home"), disk("d2", name="home", user="grace"))
    await refused(store, disk("d3", name="home"))


async def test_a_deleted_disk_gives_its_name_away(store: Store) -> None:
    deleted = {"name": "home", "deleted_at": NOW, "purge_after": NOW + HOUR}
    await add(store, disk("d1", **deleted), disk("d2", **deleted), disk("d3", name="home"))
    undeleted = update(DiskRow).where(DiskRow.id == "d1").values(deleted_at=None, purge_after=None)
    with pytest.raises(IntegrityError):  # it cannot come back under the name
        await execute(store, undeleted)


@pytest.mark.parametrize("only", ["deleted_at", "purge_after"])
async def test_a_deletion_has_a_date(store: Store, only: str) -> None:
    assert "ck_disks_deletion_has_a_date" in await refused(store, disk("d1", **{only: NOW}))


async def test_a_disk_that_is_referred_to_stays(store: Store) -> None:
    await add(store, disk("d1"), reservation("r1", disk_id="d1", state="failed"))
    with pytest.raises(IntegrityError):
        async with store.transaction() as session:
            await session.delete(await session.get_one(DiskRow, "d1"))


async def test_none_in_json_is_null(store: Store) -> None:
    await add(store, lease("r1", planned_nodes=["n1"]))
    async with store.transaction() as session:
        (await session.get_one(ReservationRow, "r1")).planned_nodes = None
    async with store.reading() as session:
        nothing = ReservationRow.planned_nodes.is_(None)
        assert await session.scalar(select(ReservationRow.id).where(nothing)) == "r1"
    with pytest.raises(IntegrityError):
        async with store.transaction() as session:
            (await session.get_one(ReservationRow, "r1")).warned = None  # type: ignore[assignment]


async def test_a_naive_datetime_is_refused(store: Store) -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(StatementError, match="naive datetime"):
        await add(store, reservation(submitted_at=naive))
    with pytest.raises(StatementError, match="naive datetime"):
        await execute(store, select(ReservationRow.id).where(ReservationRow.expires_at < naive))


async def test_moments_come_back_in_utc_to_the_microsecond(store: Store) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    await add(store, lease(starts_at=elsewhere))
    async with store.reading() as session:
        row = await session.get_one(ReservationRow, "r1")
        assert row.starts_at == NOW
        assert row.starts_at.utcoffset() == timedelta(0)
        assert row.starts_at.microsecond == NOW.microsecond
        same = select(ReservationRow.id).where(ReservationRow.starts_at == elsewhere)
        assert await session.scalar(same) == "r1"


@pytest.mark.parametrize("later", [timedelta(microseconds=1), timedelta(days=400)])
async def test_moments_are_ordered_by_time(store: Store, later: timedelta) -> None:
    await add(store, lease("r1"), lease("r2", starts_at=NOW + later, expires_at=NOW + later + HOUR))
    async with store.reading() as session:
        after = select(ReservationRow.id).where(ReservationRow.starts_at > NOW)
        assert (await session.scalars(after)).all() == ["r2"]


async def test_a_row_that_was_changed_meanwhile_is_not_overwritten(store: Store) -> None:
    await add(store, reservation())
    async with store.reading() as session:
        seen = await session.get_one(ReservationRow, "r1")
    async with store.transaction() as session:
        (await session.get_one(ReservationRow, "r1")).reason = "first"
    seen.reason = "second"
    with pytest.raises(StaleDataError):
        await add(store, seen)
    async with store.reading() as session:
        row = await session.get_one(ReservationRow, "r1")
        assert (row.reason, row.version) == ("first", 2)


async def test_a_history_id_is_never_given_again(store: Store) -> None:
    def entry() -> HistoryRow:
        return HistoryRow(
            reservation_id="r1", at=NOW, kind="note", state="queued", reason="", actor="ada"
        )

    first, second, third = entry(), entry(), entry()
    await add(store, reservation(), first, second)
    async with store.transaction() as session:
        await session.delete(await session.get_one(HistoryRow, second.id))
    await add(store, third)
    assert first.id < second.id < third.id


async def test_raw_sql_meets_the_same_constraints(store: Store) -> None:
    await add(store, lease("r1"))
    with pytest.raises(IntegrityError):
        await execute(store, update(ReservationRow).values(expires_at=None))
    with pytest.raises(IntegrityError):
        await execute(store, text("UPDATE reservations SET state = 'paused'"))
