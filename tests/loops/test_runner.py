"""The loops' runner: repeats, goes on after failures, says how the loops do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from gpudev_service.clock import elapsed
from gpudev_service.context import Context
from gpudev_service.loops import runner as module
from gpudev_service.loops.runner import Loop, Runner, run_once
from gpudev_service.other_clocks import Doubt
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import LoopRunRow
from tests.fixtures.world import World


class Script:
    """A loop that does what a test has written down, then waits for ever."""

    def __init__(self, *acts: datetime | Exception | None) -> None:
        self.acts = list(acts)
        self.begun = asyncio.Event()
        self.done = asyncio.Event()

    async def run(self, _ctx: Context) -> datetime | None:
        self.begun.set()
        if not self.acts:
            self.done.set()
            await asyncio.Event().wait()
        act = self.acts.pop(0)
        if isinstance(act, Exception):
            raise act
        return act


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(
        script: Script, *, interval: float = 0.0, eager: bool = False, rest: float = 0.0
    ) -> None:
        loop = Loop(script.run, lambda _: interval, eager, rest)
        monkeypatch.setattr(module, "LOOPS", {"script": loop})

    return use


async def ended(script: Script, runner: Runner) -> None:
    runner.start()
    try:
        await asyncio.wait_for(script.done.wait(), 30)
    finally:
        await runner.close()


async def test_a_loop_goes_on_after_failures_and_says_so(
    world: World, only: Callable[..., None]
) -> None:
    script = Script(None, StoreUnavailable("away"), ValueError("odd"))
    only(script)
    runner = Runner(world.ctx)
    await ended(script, runner)
    health = {loop.name: loop for loop in runner.health()}
    assert not health["script"].ok
    assert health["script"].message == "ValueError"
    async with world.ctx.store.reading() as session:
        assert not (await session.get_one(LoopRunRow, "script")).ok


async def test_a_change_wakes_an_eager_loop(world: World, only: Callable[..., None]) -> None:
    script = Script(None)
    only(script, interval=3600, eager=True)
    runner = Runner(world.ctx)
    runner.start()
    try:
        await asyncio.wait_for(script.begun.wait(), 30)
        await world.reserve()
        await asyncio.wait_for(script.done.wait(), 30)
    finally:
        await runner.close()


async def test_a_crowd_of_changes_lets_a_loop_rest(world: World, only: Callable[..., None]) -> None:
    script = Script(None)
    only(script, interval=3600, eager=True, rest=3600)
    runner = Runner(world.ctx)
    runner.start()
    try:
        await asyncio.wait_for(script.begun.wait(), 30)
        for number in range(5):
            await world.reserve(f"user-{number}")
        assert not script.done.is_set()
    finally:
        await runner.close()


async def test_what_is_due_does_not_wait_for_the_rest(
    world: World, only: Callable[..., None]
) -> None:
    script = Script(world.clock.now())
    only(script, interval=3600, eager=True, rest=3600)
    await ended(script, Runner(world.ctx))


async def test_a_moment_that_is_past_does_not_wait(world: World, only: Callable[..., None]) -> None:
    script = Script(world.clock.now() - timedelta(seconds=5))
    only(script, interval=3600, eager=True)
    await ended(script, Runner(world.ctx))


async def test_a_loop_that_never_ends_its_first_run_is_noticed(
    world: World, only: Callable[..., None]
) -> None:
    script = Script()
    only(script, interval=1)
    runner = Runner(world.ctx)
    assert all(loop.ok for loop in runner.health())
    runner.start()
    await asyncio.wait_for(script.done.wait(), 30)
    assert all(loop.ok for loop in runner.health())
    world.clock.pass_time(seconds=60)
    stalled = runner.health()[0]
    assert (stalled.ok, stalled.message) == (False, "has not run for too long")
    await runner.close()


async def test_a_moved_clock_is_told_once_and_shown_as_long_as_it_lasts(
    world: World, only: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    world.clock.moved = timedelta(hours=-1)
    script = Script(None, None, None)
    only(script)
    runner = Runner(world.ctx)
    with caplog.at_level(logging.WARNING):
        await ended(script, runner)
    told = [r.message for r in caplog.records if "clock" in r.message]
    assert len(told) == 1
    assert told[0].startswith("the machine's clock was moved by -3600 s since the start;")
    clock = runner.health()[-1]
    assert (clock.name, clock.ok) == ("clock", False)
    world.clock.moved = timedelta(seconds=1)
    assert runner.health()[-1].ok


@pytest.mark.parametrize("name", list(module.LOOPS))
async def test_each_loop_runs_once_and_is_recorded(world: World, name: str) -> None:
    await run_once(world.ctx, name)
    async with world.ctx.store.reading() as session:
        row = await session.get_one(LoopRunRow, name)
    assert row.ok
    assert row.message is None


async def test_one_run_that_fails_is_recorded_and_raised(
    world: World, only: Callable[..., None]
) -> None:
    only(Script(ValueError("odd")))
    with pytest.raises(ValueError, match="odd"):
        await run_once(world.ctx, "script")
    async with world.ctx.store.reading() as session:
        assert (await session.get_one(LoopRunRow, "script")).message == "ValueError"


async def test_pauses_after_failures_are_bounded(world: World) -> None:
    runner = Runner(world.ctx)
    loop: Callable[[Context], Awaitable[datetime | None]] = Script().run
    pause = runner._pause(Loop(loop, lambda t: t.sweep), None)
    assert min(module._LONGEST_PAUSE, pause * 2**8) == 5.0


async def test_clocks_that_differ_are_told_when_it_begins_and_when_it_ends(
    world: World, only: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    says = [timedelta(hours=2), timedelta(hours=2), timedelta(0)]

    class Hears(Script):
        async def run(self, ctx: Context) -> datetime | None:
            if not says:
                return await super().run(ctx)
            ctx.other_clocks.heard("the Hub's", ctx.clock.now() - says.pop(0), elapsed())
            return None

    script = Hears()
    only(script)
    with caplog.at_level(logging.INFO):
        await ended(script, Runner(world.ctx))
    told = [r.message for r in caplog.records if "agree" in r.message]
    assert len(told) == 2
    assert "ahead of the Hub's, so one of the two is wrong" in told[0]
    assert told[1] == "the service's clock and those of others agree again"


async def test_what_is_known_of_the_time_before_the_start_is_told(
    world: World, only: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """It is no trouble: the clock may well be right."""
    until = world.clock.now() + timedelta(hours=1)
    world.ctx.other_clocks.was_away(Doubt("nothing was written for 9 h", until))
    script = Script()
    only(script)
    runner = Runner(world.ctx)
    with caplog.at_level(logging.WARNING):
        await ended(script, runner)
    assert "nothing was written for 9 h" in caplog.messages
    clock = runner.health()[-1]
    assert (clock.name, clock.ok, clock.message) == ("clock", True, "nothing was written for 9 h")
    world.clock.pass_time(hours=1)
    assert runner.health()[-1].message is None


async def test_how_a_loop_did_is_written_once_a_minute_or_when_it_changes(
    world: World, only: Callable[..., None]
) -> None:
    async def stored() -> tuple[datetime | None, bool]:
        async with world.ctx.store.reading() as session:
            row = await session.get_one(LoopRunRow, "script")
            return row.finished_at, row.ok

    runner, begun = Runner(world.ctx), world.clock.now()
    await runner._ended("script", None)
    world.clock.pass_time(seconds=59)
    await runner._ended("script", None)
    assert await stored() == (begun, True)
    failed = world.clock.pass_time(seconds=0.5)
    await runner._ended("script", "odd")
    assert await stored() == (failed, False)
    well = world.clock.pass_time(seconds=1)
    await runner._ended("script", None)
    assert await stored() == (well, True)
    failed = world.clock.pass_time(seconds=1)
    await runner._ended("script", "odd")
    assert await stored() == (failed, False)
    again = world.clock.pass_time(seconds=60)
    await runner._ended("script", "odd")
    assert await stored() == (again, False)


async def test_a_run_that_cannot_be_written_down_is_still_known(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable

    runner = Runner(world.ctx)
    monkeypatch.setattr(world.ctx.store, "run", away)
    with caplog.at_level(logging.WARNING):
        await runner._ended("expiry", "StoreUnavailable")
    assert caplog.messages == ["the run of loop expiry could not be recorded"]
    [expiry] = [loop for loop in runner.health() if loop.name == "expiry"]
    assert (expiry.ok, expiry.message) == (False, "StoreUnavailable")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long loops pause, in seconds; no time passes."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        found.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    return found


@pytest.mark.parametrize(
    ("interval", "pauses"),
    [
        (0.01, [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 2.56, 2.56]),
        # A loop that runs seldom is tried again as soon as one that runs often.
        (3600.0, [2.0, 4.0, 5.0, 5.0]),
    ],
)
async def test_what_fails_is_tried_again_after_growing_pauses(
    world: World,
    only: Callable[..., None],
    slept: list[float],
    interval: float,
    pauses: list[float],
) -> None:
    script = Script(*(ValueError("odd") for _ in pauses))
    only(script, interval=interval)
    await ended(script, Runner(world.ctx))
    assert slept == pytest.approx(pauses)


async def test_after_a_run_that_worked_the_pauses_begin_anew(
    world: World, only: Callable[..., None], slept: list[float]
) -> None:
    odd = ValueError("odd")
    script = Script(odd, odd, None, odd)
    only(script, interval=0.5)
    await ended(script, Runner(world.ctx))
    assert slept == [1.0, 2.0, 0.5, 1.0]


async def test_a_pause_ends_when_the_next_thing_is_due(world: World) -> None:
    runner, now = Runner(world.ctx), world.clock.now()
    loop = Loop(Script().run, lambda _: 60.0)
    found = [
        runner._pause(loop, None if seconds is None else now + timedelta(seconds=seconds))
        for seconds in (None, 90, 60, 10, 0, -10)
    ]
    assert found == [60, 60, 60, 10, 0, 0]


async def test_a_loop_may_be_late_for_some_of_its_intervals_and_half_a_minute(
    world: World, only: Callable[..., None]
) -> None:
    script = Script()
    only(script, interval=10)
    runner = Runner(world.ctx)
    await runner._ended("script", None)
    world.clock.pass_time(seconds=70)
    assert runner.health()[0].ok
    world.clock.pass_time(seconds=1)
    assert runner.health()[0].message == "has not run for too long"
    await runner._ended("script", "odd")
    world.clock.pass_time(hours=1)
    assert runner.health()[0].message == "odd", "what failed last says why"


@pytest.mark.parametrize(("seconds", "told"), [(5, False), (6, True), (-5, False), (-6, True)])
async def test_a_clock_that_was_moved_a_little_is_not_worth_telling(
    world: World, caplog: pytest.LogCaptureFixture, seconds: int, told: bool
) -> None:
    runner = Runner(world.ctx)
    world.clock.moved = timedelta(seconds=seconds)
    for _ in range(2):
        runner._surroundings.tell()
    assert len(caplog.messages) == int(told)
    assert runner.health()[-1].ok is not told
    # It is told again when it is moved again, and when it is moved back.
    caplog.clear()
    world.clock.moved += timedelta(hours=1)
    runner._surroundings.tell()
    world.clock.moved = timedelta(0)
    runner._surroundings.tell()
    assert [f"{3600 + seconds:+.0f} s" in caplog.messages[0], len(caplog.messages)] == [True, 2]


@pytest.mark.parametrize(("seconds", "ok"), [(0, True), (5, True), (6, False)])
async def test_a_clock_that_was_behind_at_the_start_is_told_as_long_as_the_service_runs(
    world: World,
    only: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    seconds: int,
    ok: bool,
) -> None:
    only(Script())
    runner = Runner(world.ctx)
    assert runner.health()[-1].ok
    with caplog.at_level(logging.ERROR):
        runner.start(behind=timedelta(seconds=seconds))
    await runner.close()
    assert [len(caplog.messages) == 0, runner.health()[-1].ok] == [ok, ok]


async def test_what_is_due_already_is_not_waited_for_at_all(
    world: World, only: Callable[..., None], slept: list[float]
) -> None:
    script = Script(world.clock.now() - timedelta(seconds=5))
    only(script, interval=3600, eager=True, rest=3600)
    await ended(script, Runner(world.ctx))
    assert slept == [0.0]
