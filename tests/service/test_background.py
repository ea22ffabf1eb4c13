"""Work beside calls, the bell, and the clock."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from gpudev_service.background import Background
from gpudev_service.clock import SteadyClock
from gpudev_service.wake import Wake


async def test_one_task_for_each_key() -> None:
    background, gate, ran = Background(), asyncio.Event(), []

    async def work(name: str) -> None:
        await gate.wait()
        ran.append(name)

    assert background.start("a", work("first"))
    assert not background.start("a", work("second"))
    assert background.start("b", work("other"))
    assert background.running("a")
    gate.set()
    await background.settle()
    assert sorted(ran) == ["first", "other"]
    assert not background.running("a")
    assert background.start("a", work("again"))
    await background.settle()


async def test_what_fails_is_logged_and_its_key_is_free_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    background = Background()

    async def fail() -> None:
        raise ValueError("odd")

    with caplog.at_level(logging.ERROR):
        background.start("a", fail())
        await background.settle()
    assert [record.message for record in caplog.records] == ["background work a failed"]
    assert not background.running("a")


async def test_closing_ends_also_what_the_cancelled_begin() -> None:
    background, began = Background(), []

    async def stubborn(depth: int) -> None:
        began.append(depth)
        try:
            await asyncio.Event().wait()
        finally:
            if depth < 3:
                background.start(f"{depth + 1}", stubborn(depth + 1))
                await asyncio.sleep(0)

    background.start("0", stubborn(0))
    await asyncio.sleep(0)
    await asyncio.wait_for(background.close(), 30)
    assert began[0] == 0
    assert not any(background.running(str(depth)) for depth in range(5))


async def test_no_ring_of_the_bell_is_missed() -> None:
    wake = Wake()
    bell = wake.current
    wake.set()  # between the look at the world and the waiting
    await asyncio.wait_for(bell.wait(), 30)
    assert not wake.current.is_set()


def test_a_step_of_the_machines_clock_moves_nothing() -> None:
    counted = 100.0
    clock = SteadyClock(lambda: counted)
    before = clock.now()
    assert before.utcoffset() == timedelta(0)
    assert abs(clock.drift()) < timedelta(seconds=5)
    counted += 3600
    assert timedelta(minutes=59) < clock.now() - before < timedelta(minutes=61)
    # The clock that only counts says an hour more than the time of day: that one was put back.
    assert timedelta(minutes=-61) < clock.drift() < timedelta(minutes=-59)
