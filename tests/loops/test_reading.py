"""What loops ask at each change finds what it is about, however many leases just run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from gpudev_client.states import WAITING
from gpudev_service.loops import expiry, shares, starts, warnings
from gpudev_service.store.engine import Store
from tests.fixtures.statements import statements
from tests.fixtures.store import Templates
from tests.fixtures.world import World, make_world

#: How SQLite says that it looks for rows by a state alone: it goes through all that are in it.
BY_STATE = "(state=?)"
BY_TIME = (
    "SEARCH reservations USING COVERING INDEX ix_reservations_planned_start"
    " (state=? AND planned_start>?)"
)


async def plans(store: Store, asked: list[str], *tables: str) -> list[str]:
    """The steps by which SQLite finds reservations for these statements, or rows of `tables`."""
    steps: list[str] = []
    wanted = tables or ("reservations",)
    async with store.reading() as session:
        connection = await session.connection()
        for statement in asked:
            values = ("active",) * statement.count("?")
            found = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            told = [row[-1] for row in found]
            steps += [one for one in told if any(name in one for name in wanted)]
    return steps


async def read_by(world: World, loop: object) -> list[str]:
    with statements() as asked:
        await loop.run(world.ctx)  # type: ignore[attr-defined]  # a module
    return await plans(world.ctx.store, [one for one in asked if one.startswith("SELECT")])


@pytest.fixture
async def world(templates: Templates, tmp_path: Path) -> AsyncIterator[World]:
    """As SQLite says; what PostgreSQL does depends on how many rows there are."""
    url = f"sqlite:///{tmp_path / 'gpudev.sqlite'}"
    templates.fill(make_url(url))
    store = Store(url)
    yield make_world(store, tmp_path)
    await store.close()


async def test_ends_and_warnings_are_found_by_their_time(world: World) -> None:
    steps = await read_by(world, expiry)
    assert len(steps) == 8
    assert not [step for step in steps if not step.startswith("SEARCH")]
    # Of those that start there are few: two questions are about them.
    assert len([step for step in steps if step.endswith(BY_STATE)]) == 2
    assert [step.partition("(")[2] for step in await read_by(world, warnings)] == [
        "state=? AND expires_at<?)",
        "state=? AND expires_at>?)",
    ]


async def test_the_next_end_of_an_invitation_is_found_by_its_time(world: World) -> None:
    with statements() as asked:
        await shares.run(world.ctx)
    questions = [one for one in asked if "collaborators.until IS NOT NULL" in one]
    assert len(questions) == 2, "which have ended, and which is the next"
    for question in questions:
        first, *others = await plans(world.ctx.store, [question], "collaborators", "reservations")
        assert "ix_collaborators_until" in first
        assert [step.partition("(")[2] for step in others] in ([], ["id=?)"])


async def test_the_next_start_is_found_by_its_time(world: World) -> None:
    assert await read_by(world, starts) == [
        "SEARCH reservations USING COVERING INDEX ix_reservations_planned_start (state=?)"
    ] * len(WAITING)
    await world.running(await world.reserve("ada", "t4-small"))
    await world.reserve("grace", "t4-small")
    world.clock.pass_time(days=1)
    steps = await read_by(world, starts)
    assert "state=? AND planned_start<?)" in [step.partition("(")[2] for step in steps]
    assert steps.count(BY_TIME) == len(WAITING)
