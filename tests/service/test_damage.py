"""The SQLite file is damaged, replaced or removed under a running service: it says so, and takes
nothing more that would be lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from gpudev_service.loops.runner import Runner, run_once
from gpudev_service.operations import status
from gpudev_service.store.backup import backup_sqlite
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreBroken
from tests.fixtures import damage
from tests.fixtures.world import World, make_world

DAMAGED = "it is damaged; restore a backup"
GONE = "its file was replaced or removed while it was in use; stop the service"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gpudev.sqlite"


@pytest.fixture
def database_url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return make_world(store, tmp_path)


def rows(path: Path) -> int:
    """What somebody else finds there."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM reservations").fetchone()[0])


@pytest.mark.parametrize(
    "strike", [damage.overwrite, damage.cut, partial(damage.garble, word=b"preparing")]
)
async def test_what_is_damaged_takes_nothing_more(
    world: World, path: Path, strike: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = world.ctx.store
    first = await world.reserve()
    damage.empty_journal(path)
    strike(path)
    before = damage.content(path)
    with pytest.raises(StoreBroken, match=DAMAGED):
        await world.look(first)
    for _ in range(2):
        with pytest.raises(StoreBroken, match=DAMAGED):
            await world.reserve(gpu_type="h100", gpus=1)
        with pytest.raises(StoreBroken, match=DAMAGED):
            await run_once(world.ctx, "expiry")
    [told] = [loop for loop in Runner(world.ctx).health() if loop.name == "database"]
    assert (told.ok, told.message) == (False, f"The database cannot be used: {DAMAGED}.")
    assert store.damage == told.message
    assert damage.content(path) == before
    assert caplog.text.count("Nothing is written until the service is started again") == 1


async def test_also_where_what_is_written_to_is_still_in_memory(world: World, path: Path) -> None:
    """The journal is not empty, so that the writer has its pages before it."""
    first = await world.reserve()
    damage.overwrite(path)
    with pytest.raises(StoreBroken, match=DAMAGED):
        await world.look(first)
    with pytest.raises(StoreBroken, match=DAMAGED):
        await world.reserve(gpu_type="h100", gpus=1)


@pytest.mark.parametrize("strike", [damage.replace, damage.remove])
async def test_what_is_not_the_file_any_more_takes_nothing_more(
    world: World, path: Path, strike: Callable[[Path], None]
) -> None:
    first = await world.reserve()
    damage.empty_journal(path)
    strike(path)
    kept = damage.content(path)
    for _ in range(2):
        with pytest.raises(StoreBroken, match=GONE):
            await world.reserve(gpu_type="h100", gpus=1)
        with pytest.raises(StoreBroken, match=GONE):
            await world.look(first)
        with pytest.raises(StoreBroken, match=GONE):
            await run_once(world.ctx, "expiry")
    assert not await status.database_answers(world.ctx)
    assert damage.content(path) == kept
    assert [found for found in Runner(world.ctx).health() if found.name == "database"] == []


async def test_a_backup_in_its_place_is_gone_on_with_after_a_start(
    world: World, path: Path, tmp_path: Path
) -> None:
    store, first = world.ctx.store, await world.reserve()
    backup = backup_sqlite(store.url, tmp_path / "backup")
    damage.empty_journal(path)
    damage.cut(path)
    with pytest.raises(StoreBroken, match=DAMAGED):
        await world.look(first)
    await store.close()
    damage.restore(path, backup)
    assert (await world.look(first)).id == first.id
    await world.reserve(gpu_type="h100", gpus=1)
    assert rows(path) == 2
    assert store.damage is None
