"""The service's own database as a trace."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpudev_service.simulate import history, swf
from gpudev_service.simulate.trace import Status, TraceError
from gpudev_service.store.engine import Store
from tests.fixtures.rows import HOUR, NOW, lease, reservation

MINUTE = timedelta(minutes=1)


async def test_reservations_that_have_ended_become_jobs(store: Store) -> None:
    begun = {"starts_at": NOW + HOUR, "expires_at": NOW + 2 * HOUR}
    async with store.transaction() as session:
        session.add_all(
            [
                lease("a", state="expired", target="expired", ended_at=NOW + 3 * HOUR, **begun),
                lease(
                    "b",
                    state="cancelled",
                    target="cancelled",
                    user="ben",
                    nodes=2,
                    units_per_node=4,
                    gpus=8,
                    submitted_at=NOW + MINUTE,
                    stopping_at=NOW + HOUR + 10 * MINUTE,
                    ended_at=NOW + HOUR + 11 * MINUTE,
                    **begun,
                ),
                reservation("c", state="cancelled", target="cancelled", ended_at=NOW + HOUR),
                lease("d"),  # is still active
            ]
        )
    trace = await history.read(store)
    by_user = {(job.user, job.run_s is None): job for job in trace.jobs}
    assert len(trace.jobs) == 3
    whole, early, never = by_user["ada", False], by_user["ben", False], by_user["ada", True]
    assert (whole.wait_s, whole.run_s, whole.requested_s) == (3600, 7200, 3600), "an extension"
    assert (whole.status, whole.partition, whole.groups) == (Status.COMPLETED, "t4", ("lab",))
    assert (early.submit_s, early.gpus, early.run_s) == (60, 8, 600)
    assert never.wait_s is None


async def test_it_can_be_given_away_without_names(store: Store) -> None:
    async with store.transaction() as session:
        session.add(lease("a", state="expired", target="expired", ended_at=NOW + HOUR))
    text = "".join(swf.write(await history.read(store)))
    assert "; Partition: 1 t4" in text
    assert "ada" not in text
    assert "lab" not in text
    (job,) = swf.read(text.splitlines(), "t.swf").jobs
    assert (job.user, job.groups, job.partition) == ("user 1", ("1",), "t4")


async def test_without_any_that_ended_there_is_nothing_to_replay(store: Store) -> None:
    with pytest.raises(TraceError, match="no reservation that has ended"):
        await history.read(store)


async def test_a_database_of_another_gpudev_is_refused(database_url: str) -> None:
    store = Store(database_url)
    try:
        with pytest.raises(TraceError, match=r"at revision none.*gpudev migrate"):
            await history.read(store)
    finally:
        await store.close()
