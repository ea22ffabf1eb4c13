"""A SQLite file that is found damaged: it is said, and nothing more is written into it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from sqlalchemy import make_url, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreBroken
from gpudev_service.store.models import ReservationRow
from tests.fixtures import damage
from tests.fixtures.rows import reservation
from tests.fixtures.store import Templates


async def another(session: AsyncSession) -> None:
    session.add(reservation("r2"))


async def stored(store: Store) -> list[str]:
    async with store.reading() as session:
        return list(await session.scalars(select(ReservationRow.id)))


async def test_nothing_is_written_into_it(
    tmp_path: Path, templates: Templates, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.sqlite"
    url = f"sqlite:///{path}"
    templates.fill(make_url(url))
    first = Store(url)
    async with first.transaction() as session:
        session.add(reservation("r1"))
    await first.close()
    damage.empty_journal(path)
    damage.overwrite(path)
    store = Store(url)
    try:
        with caplog.at_level(logging.ERROR), pytest.raises(StoreBroken, match="cannot be used"):
            await stored(store)
        assert store.damage is not None
        before = damage.content(path)
        for _ in range(2):
            with pytest.raises(StoreBroken) as refused:
                await store.run(another)
            assert str(refused.value) == store.damage
        assert damage.content(path) == before
        said = [one for one in caplog.records if "Nothing is written until" in one.message]
        assert len(said) == 1
    finally:
        await store.close()
