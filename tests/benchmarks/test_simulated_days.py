"""What simulated days leave open is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import make_url

from benchmarks.simulated_days import Days, Open
from tests.fixtures.store import Templates
from tests.simulation.world import Life

AT_REST = Open(work=0, tasks=1, connections=2, files=30)


async def test_each_thing_that_is_open_is_seen(tmp_path: Path, templates: Templates) -> None:
    url = f"sqlite:///{tmp_path / 'gpudev.sqlite'}"
    templates.fill(make_url(url))
    life = Life(1, tmp_path, url)
    await life.store.ping()
    before = Open.of(life)
    task = asyncio.create_task(asyncio.sleep(3600))
    life.background.start("forgotten", asyncio.sleep(0))
    async with life.store.reading() as one, life.store.reading() as other:
        await one.connection()
        await other.connection()
        found = Open.of(life)
    task.cancel()
    await life.close()
    more = [after - earlier for after, earlier in zip(found, before, strict=True)]
    assert more[:3] == [1, 1, 1]
    assert more[3] > 0


def test_what_is_open_beyond_the_first_days_is_left() -> None:
    warm = [AT_REST, AT_REST._replace(connections=3)]
    days = Days(open=[*warm, *[AT_REST] * 5, AT_REST._replace(connections=3)])
    assert days.left == {}
    for name in Open._fields:
        more = days.open[-1]._replace(**{name: 99})
        assert list(Days(open=[*days.open[:-1], more]).left) == [name]
