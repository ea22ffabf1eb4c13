"""A machine that was suspended: its timers stood still, the service's clock did not."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

import pytest

from gpudev_client.states import State
from gpudev_service.context import Context
from gpudev_service.loops import expiry
from gpudev_service.loops import runner as module
from gpudev_service.loops.runner import Loop, Runner
from gpudev_service.loops.slept import Slept
from tests.fixtures.world import ManualClock, World


async def test_what_is_due_after_a_sleep_does_not_wait_for_timers_that_stood_still(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lease = await world.running(await world.reserve(hours=1))
    looked, ended = asyncio.Event(), asyncio.Event()

    async def ends(ctx: Context) -> datetime | None:
        await expiry.run(ctx)
        (ended if looked.is_set() else looked).set()
        return None

    async def ticks(ctx: Context) -> datetime | None:
        """Whichever loop looks first once the machine is awake."""
        if looked.is_set() and not ended.is_set() and ctx.clock.now() == began:
            assert isinstance(ctx.clock, ManualClock)
            ctx.clock.pass_time(hours=8)
        return None

    began = world.clock.now()
    loops = {"ends": Loop(ends, lambda _: 3600), "ticks": Loop(ticks, lambda _: 0.0, eager=False)}
    monkeypatch.setattr(module, "LOOPS", loops)
    runner = Runner(world.ctx)
    with caplog.at_level(logging.WARNING):
        runner.start()
        try:
            await asyncio.wait_for(ended.wait(), 30)
        finally:
            await runner.close()
    assert await world.states(lease) == [State.STOPPING]
    told = [r.message for r in caplog.records if "slept" in r.message]
    assert len(told) == 1
    assert told[0].endswith("what is due since is done now")


@pytest.mark.parametrize(
    ("timer", "clock", "slept"),
    [
        (0, 0, False),
        (90, 90, False),
        (90, 91, False),
        (90, 92, True),
        (0, 2, True),
        (90, 80, False),
    ],
)
async def test_how_far_the_timers_are_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, timer: int, clock: int, slept: bool
) -> None:
    """Seconds that timers and clock have gone on since the last look."""
    loop = asyncio.get_running_loop()
    times = iter((10.0, 10.0 + timer, 10.0 + timer))
    monkeypatch.setattr(loop, "time", lambda: next(times, 10.0 + timer))
    looked = Slept(world.ctx)
    bell = world.ctx.wake.current
    world.clock.pass_time(seconds=clock)
    looked.look()
    assert bell.is_set() is slept
    bell = world.ctx.wake.current
    looked.look()
    assert not bell.is_set(), "it is told once"
