"""Lines of history have numbers in their order, however many are written at once."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store import numbers
from gpudev_service.store.engine import Store
from gpudev_service.store.models import HistoryRow
from tests.fixtures.rows import NOW, reservation
from tests.fixtures.statements import statements


def line(of: str, reason: str) -> HistoryRow:
    values = {"at": NOW, "kind": "note", "state": "queued", "actor": "ada", "data": {}}
    return HistoryRow(reservation_id=of, reason=reason, **values)


@pytest.mark.parametrize("many", [1, numbers._MANY - 1, numbers._MANY, 40])
async def test_they_go_up_in_the_order_in_which_they_were_added(store: Store, many: int) -> None:
    async def work(session: AsyncSession) -> list[HistoryRow]:
        session.add(row := reservation())
        await session.flush()
        lines = [line(row.id, str(at)) for at in range(many)]
        session.add_all(reversed(lines))  # what counts is when it was added
        lines.reverse()
        await session.flush()
        session.add(last := line(row.id, "last"))
        await session.flush()
        return [*lines, last]

    with statements() as asked:
        lines = await store.run(work)
    assert [one.id for one in lines] == sorted({one.id for one in lines})
    async with store.reading() as session:
        found = await session.scalars(select(HistoryRow.reason).order_by(HistoryRow.id))
        assert list(found) == [one.reason for one in lines]
    fetched = [one for one in asked if "nextval(" in one and "generate_series" in one]
    assert len(fetched) == (0 if store.is_sqlite or many < numbers._MANY else 1)


def test_no_statement_is_longer_than_what_the_driver_remembers() -> None:
    from psycopg import _queries

    columns = len(HistoryRow.__table__.columns) - 1
    assert (numbers._MANY - 1) * columns <= _queries.MAX_CACHED_STATEMENT_PARAMS
    assert numbers._MANY * columns > _queries.MAX_CACHED_STATEMENT_PARAMS
