"""The operator's own history as a trace: the reservations in the service's database, only read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select

from gpudev_client.states import FINAL, State
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow

from .trace import Job, Status, Trace, TraceError

_STATUS = {
    State.EXPIRED: Status.COMPLETED,
    State.CANCELLED: Status.CANCELLED,
    State.FAILED: Status.FAILED,
}


async def read(store: Store) -> Trace:
    """Every reservation that has come to its end; those that never began are among them.

    Raises:
        TraceError: there is none, or the database is not one of this gpudev.
        StoreError: the database cannot be read.
    """
    row = ReservationRow
    query = select(row).where(row.state.in_(FINAL)).order_by(row.submitted_at, row.id)
    at = await migrate.current(store)
    if at != migrate.head():
        raise TraceError(
            f"The database is at revision {at or 'none'}, and this gpudev reads {migrate.head()}. "
            "`gpudev migrate` brings one of an older gpudev up to date."
        )
    async with store.reading() as session:
        rows = list(await session.scalars(query))
    if not rows:
        raise TraceError(
            "The database has no reservation that has ended. --trace=FILE.swf or --synthetic=LOAD"
            " replay something else."
        )
    return Trace("the history of this service", tuple(jobs(rows)), {})


def jobs(rows: Iterable[ReservationRow]) -> list[Job]:
    """The rows as jobs, from the first submission on. An early end is a short run, and an extension
    a run that is longer than what was asked for."""
    found: list[Job] = []
    zero: datetime | None = None
    for number, row in enumerate(rows, 1):
        zero = zero or row.submitted_at
        since = zero

        def seconds(moment: datetime | None, since: datetime = since) -> float | None:
            return None if moment is None else (moment - since).total_seconds()

        submit, begun = seconds(row.submitted_at) or 0.0, seconds(row.starts_at)
        ended = seconds(row.stopping_at) or seconds(row.ended_at)
        found.append(
            Job(
                number=number,
                submit_s=submit,
                run_s=None if begun is None or ended is None else max(0.0, ended - begun),
                gpus=row.nodes * row.units_per_node,
                requested_s=float(row.duration_s),
                wait_s=None if begun is None else max(0.0, begun - submit),
                status=_STATUS.get(State(row.state), Status.UNKNOWN),
                user=row.user,
                groups=tuple(row.groups),
                partition=row.gpu_type,
                booked_s=seconds(row.booked_for),
            )
        )
    return found
