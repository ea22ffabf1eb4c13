"""What loops ask at each change finds what it is about, however many leases just run."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url

from gpudev_service.loops import expiry, warnings
from gpudev_service.store.engine import Store
from tests.fixtures.statements import statements
from tests.fixtures.store import Templates
from tests.fixtures.world import World, make_world

#: How SQLite says that it looks for rows by a state alone: it goes through all that are in it.
BY_STATE = "(state=?)"


async def plans(store: Store, asked: list[str]) -> list[str]:
    """The steps by which SQLite finds reservations for these statements."""
    steps: list[str] = []
    async with store.reading() as session:
        connection = await session.connection()
        for statement in asked:
            values = ("active",) * statement.count("?")
            found = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            steps += [row[-1] for row in found if "reservations" in row[-1]]
    return steps


async def read_by(world: World, loop: object) -> list[str]:
    with statements() as asked:
        await loop.run(world.ctx)  # type: ignore[attr-defined]  # a module
    return await plans(world.ctx.store, [one for one in asked if one.startswith("SELECT")])


async def test_ends_and_warnings_are_found_by_their_time(
    templates: Templates, tmp_path: Path
) -> None:
    """As SQLite says; what PostgreSQL does depends on how many rows there are."""
    url = f"sqlite:///{tmp_path / 'gpudev.sqlite'}"
    templates.fill(make_url(url))
    store = Store(url)
    world = make_world(store, tmp_path)
    steps = await read_by(world, expiry)
    assert len(steps) == 8
    assert not [step for step in steps if not step.startswith("SEARCH")]
    # Of those that start there are few: two questions are about them.
    assert len([step for step in steps if step.endswith(BY_STATE)]) == 2
    assert [step.partition("(")[2] for step in await read_by(world, warnings)] == [
        "state=? AND expires_at<?)",
        "state=? AND expires_at>?)",
    ]
    await store.close()
