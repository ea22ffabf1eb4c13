"""Leases and real processes, with the Hub dead: nothing outlives its lease, nothing is lost."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from gpudev_client.models import Reservation, ServerReport
from gpudev_client.processes import goes_on
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.loops import reconcile
from gpudev_service.operations import reservations, servers
from tests.fixtures.headless import headless
from tests.fixtures.world import World

#: A server that ignores the polite signal and has a child in a session of its own.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


class Server:
    """A process that stands for a user's server."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", STUBBORN],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())

    @property
    def handle(self) -> dict[str, str | int | float]:
        created = psutil.Process(self.process.pid).create_time()
        return {"kind": "process", "pid": self.process.pid, "created": created}

    @property
    def pids(self) -> tuple[int, int]:
        return self.process.pid, self.child

    def kill(self) -> None:
        """Returns when both processes are gone: the kernel takes a moment to end them."""
        ended = [psutil.Process(pid) for pid in self.pids if psutil.pid_exists(pid)]
        for process in ended:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(ended, timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def started() -> Iterator[list[Server]]:
    servers_: list[Server] = []
    yield servers_
    for server in servers_:
        server.kill()


async def start(world: World, started: list[Server], got: Reservation) -> Server:
    launch = await servers.launch(world.ctx, got.id)
    server = Server(launch.environment)
    started.append(server)
    said = ServerReport(status="starting", handle=server.handle)
    await servers.report(world.ctx, got.id, Actor("spawner"), said)
    await world.running(got)
    return server


def gone(pid: int) -> bool:
    return not goes_on(pid)


async def test_the_lease_ends_the_server_and_what_it_started(
    world: World, started: list[Server]
) -> None:
    got = await world.reserve()
    server = await start(world, started, got)
    world.clock.pass_time(hours=1)
    await world.sweep()
    assert all(gone(pid) for pid in server.pids)
    assert await world.states(got) == [State.EXPIRED]


async def test_a_handle_that_points_at_somebody_else_kills_nobody(
    world: World, started: list[Server]
) -> None:
    mine, other = await world.reserve("ada"), await world.reserve("grace", "t4")
    innocent = await start(world, started, other)
    stale = innocent.handle | {"created": float(innocent.handle["created"]) - 100}
    await servers.report(
        world.ctx, mine.id, Actor("spawner"), ServerReport(status="starting", handle=stale)
    )
    await reservations.cancel(world.ctx, mine.id, Actor("ada"))
    await world.sweep()
    assert await world.states(mine, other) == [State.CANCELLED, State.ACTIVE]
    assert not any(gone(pid) for pid in innocent.pids)


async def test_a_crashed_server_keeps_its_lease_for_the_grace_time(
    world: World, started: list[Server]
) -> None:
    got = await world.reserve()
    server = await start(world, started, got)
    server.kill()
    await reconcile.run(world.ctx)
    lost = await world.look(got)
    assert lost.state is State.ACTIVE
    assert lost.server_lost_at == world.clock.now()
    assert lost.restart_until is not None
    grace = world.ctx.settings.times.crash_grace
    world.clock.pass_time(seconds=grace - 1)
    await world.sweep()
    assert await world.states(got) == [State.ACTIVE]
    again = await start(world, started, got)
    await reconcile.run(world.ctx)
    assert (await world.look(got)).server_lost_at is None
    again.kill()
    await reconcile.run(world.ctx)
    world.clock.pass_time(seconds=grace)
    await world.sweep()
    after = await world.look(got)
    assert after.state is State.FAILED
    assert "not started again" in (after.reason or "")


async def test_a_job_that_outlives_its_server_does_not_hold_the_gpus_without_a_word(
    world: World, started: list[Server]
) -> None:
    got = await world.reserve()
    server = await start(world, started, got)
    server.process.kill()
    server.process.wait()
    assert not gone(server.child)
    await reconcile.run(world.ctx)
    lost = await world.look(got)
    assert lost.server_lost_at == world.clock.now()
    assert lost.restart_until is not None
    assert "still runs" in (await world.reasons(got))[-1]
    # Another server is another handle; the job alone does not make the lease one that serves.
    await reconcile.run(world.ctx)
    assert (await world.look(got)).server_lost_at is not None
    again = await start(world, started, got)
    await reconcile.run(world.ctx)
    assert (await world.look(got)).server_lost_at is None
    again.process.kill()
    again.process.wait()
    await reconcile.run(world.ctx)
    world.clock.pass_time(seconds=world.ctx.settings.times.crash_grace)
    await world.sweep()
    assert await world.states(got) == [State.FAILED]
    assert gone(server.child)
    assert gone(again.child)


async def test_what_runs_after_its_lease_is_found_and_stopped(
    world: World, started: list[Server]
) -> None:
    got = await world.reserve()
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    late = Server({"GPUDEV_RESERVATION": got.id})
    started.append(late)
    await reconcile.run(world.ctx)
    assert all(gone(pid) for pid in late.pids)


async def test_what_goes_on_without_its_first_thread_ends_with_its_lease(world: World) -> None:
    """It holds its GPUs, and looks as if it had ended."""
    got = await world.reserve()
    launch = await servers.launch(world.ctx, got.id)
    with headless(launch.environment) as process:
        created = psutil.Process(process.pid).create_time()
        handle: dict[str, str | int | float] = {
            "kind": "process",
            "pid": process.pid,
            "created": created,
        }
        said = ServerReport(status="starting", handle=handle)
        await servers.report(world.ctx, got.id, Actor("spawner"), said)
        await world.running(got)
        await reconcile.run(world.ctx)
        assert (await world.look(got)).server_lost_at is None
        world.clock.pass_time(hours=1)
        await world.sweep()
        assert await world.states(got) == [State.EXPIRED]
        assert process.wait(30) == -signal.SIGTERM


async def test_processes_of_another_service_are_left_alone(
    world: World, started: list[Server]
) -> None:
    foreign = Server({"GPUDEV_RESERVATION": "zzzzzzzzzzzzzzzz"})
    started.append(foreign)
    await reconcile.run(world.ctx)
    assert not any(gone(pid) for pid in foreign.pids)


async def test_a_server_reported_after_the_end_of_its_lease_is_told_to_stop(world: World) -> None:
    got = await world.reserve()
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    said = ServerReport(status="starting", handle={"kind": "process", "pid": 1, "created": 0.0})
    answer = await servers.report(world.ctx, got.id, Actor("spawner"), said)
    assert answer.state is State.STOPPING
