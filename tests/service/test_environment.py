"""What the machine does to the service: a clear message, nothing accepted lost, and on it goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, make_url, select

from gpudev_client.states import State
from gpudev_service.loops.runner import Runner, run_once
from gpudev_service.operations import status
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreBroken, StoreUnavailable
from gpudev_service.store.models import ReservationRow
from gpudev_service.takeover import Unwritable, lock
from tests.fixtures.frozen import frozen
from tests.fixtures.postgres import PostgresServer, started
from tests.fixtures.store import Templates
from tests.fixtures.world import World, make_world


def command(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    command("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder)
    try:
        yield folder
    finally:
        command("umount", folder)


@pytest.fixture
async def world(small: Path, tmp_path: Path, templates: Templates) -> AsyncIterator[World]:
    """A service with its database there."""
    url = f"sqlite:///{small / 'gpudev.sqlite'}"
    templates.fill(make_url(url))
    store = Store(url)
    yield make_world(store, tmp_path)
    await store.close()


async def accepted(store: Store) -> int:
    async with store.reading() as session:
        return await session.scalar(select(func.count()).select_from(ReservationRow)) or 0


async def many(world: World) -> None:
    """Reservations that do not fit into what room the journal has left."""
    for _ in range(100):
        await world.reserve(gpu_type="t4", gpus=1)


async def opened(store: Store) -> None:
    """What a start does first."""
    await migrate.upgrade(store)
    await accepted(store)


async def test_a_full_disk_is_said_and_what_was_accepted_stays(world: World, small: Path) -> None:
    first = await world.reserve()
    filling = small / "filling"
    filling.write_bytes(bytes(shutil.disk_usage(small).free))
    with pytest.raises(StoreBroken, match="its disk is full"):
        await many(world)
    kept = await accepted(world.ctx.store)
    assert await world.states(first) == [State.PREPARING]
    filling.unlink()
    await world.reserve(gpu_type="h100", gpus=1)
    assert await accepted(world.ctx.store) == kept + 1


async def test_a_file_system_that_turns_read_only_is_said(world: World, small: Path) -> None:
    first = await world.reserve()
    await world.ctx.store.close()
    command("mount", "-o", "remount,ro", small)
    with pytest.raises(StoreBroken, match=r"cannot be (written|opened)"):
        await world.reserve(gpu_type="t4", gpus=1)
    with pytest.raises(StoreBroken):
        await run_once(world.ctx, "starts")
    command("mount", "-o", "remount,rw", small)
    assert await world.states(first) == [State.PREPARING]
    await world.reserve(gpu_type="t4", gpus=1)


def test_a_read_only_data_directory_ends_the_start_with_a_reason(small: Path) -> None:
    command("mount", "-o", "remount,ro", small)
    with pytest.raises(Unwritable, match="Read-only file system"), lock(small / "data"):
        pass


@pytest.mark.parametrize("damage", ["overwritten", "cut"])
async def test_a_damaged_database_is_said(world: World, small: Path, damage: str) -> None:
    await world.reserve()
    await world.ctx.store.close()
    path = small / "gpudev.sqlite"
    if damage == "overwritten":
        path.write_bytes(b"not a database at all " * 1000)
    else:
        os.truncate(path, path.stat().st_size // 2)
    store = Store(world.ctx.store.url)
    with pytest.raises(StoreBroken, match="damaged; restore a backup"):
        await opened(store)
    await store.close()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that the test may end."""
    with started() as own:
        yield own


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@pytest.mark.postgres
@pytest.mark.parametrize("away", [stopped, frozen])
async def test_postgresql_away_for_a_minute(
    server: PostgresServer,
    tmp_path: Path,
    templates: Templates,
    away: Callable[[PostgresServer], AbstractContextManager[None]],
) -> None:
    url = server.url("gpudev")
    templates.fill(make_url(url))
    store = Store(f"{url}?tcp_user_timeout=500&connect_timeout=2", patience=0.5)
    world = make_world(store, tmp_path)
    ends, stays = (
        await world.reserve(hours=1),
        await world.reserve("grace", "h100", hours=9, gpus=1),
    )
    waits = await world.reserve("grace")
    await world.running(ends)
    await world.running(stays)
    world.clock.pass_time(minutes=59, seconds=30)
    with away(server):
        with pytest.raises(StoreUnavailable):
            await world.reserve("linus", "t4", gpus=1)
        with pytest.raises(StoreUnavailable):
            await run_once(world.ctx, "expiry")
        assert not await status.database_answers(world.ctx)
        world.clock.pass_time(minutes=1)
    await world.sweep()
    assert await world.states(ends, stays, waits) == [
        State.EXPIRED,
        State.ACTIVE,
        State.PREPARING,
    ]
    assert await accepted(store) == 3
    await store.close()


async def test_a_clock_that_is_wrong_at_the_start_is_said(store: Store, tmp_path: Path) -> None:
    world = make_world(store, tmp_path)
    await run_once(world.ctx, "expiry")
    await world.reserve()
    assert await status.clock_behind(world.ctx) == timedelta(0)
    world.clock.pass_time(hours=-3)
    runner = Runner(world.ctx)
    runner.start(behind=await status.clock_behind(world.ctx))
    await runner.close()
    [clock] = [loop for loop in runner.health() if loop.name == "clock"]
    assert not clock.ok
    assert clock.message is not None
    assert clock.message.startswith("the machine's clock was 3 h behind the last entry")
    [right] = [loop for loop in Runner(world.ctx).health() if loop.name == "clock"]
    assert right.ok
