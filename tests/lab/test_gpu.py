"""GPU figures: a history that stays small, sources that misbehave, a loop that is never held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_lab.gpu import GpuUse, History, NoFigures, NvmlSource, Sampler, SimulatedSource, Source


@given(
    steps=st.lists(st.floats(min_value=0.01, max_value=500), min_size=1, max_size=600),
    points=st.integers(min_value=2, max_value=40),
)
def test_a_history_stays_small_in_order_and_from_the_beginning(
    steps: list[float], points: int
) -> None:
    history, at = History(points, 10.0), 1000.0
    for step in steps:
        history.add(at, 50.0, 20.0)
        at += step
    kept = history.points()
    assert 1 <= len(kept) <= points
    assert kept[0].at == 1000
    assert [p.at for p in kept] == sorted({p.at for p in kept})
    assert {(p.used, p.memory) for p in kept} == {(50, 20)}


def test_a_history_keeps_the_mean_of_use_and_the_peak_of_memory() -> None:
    history = History(4, 10.0)
    for second in range(80):
        history.add(float(second), 100.0 if second < 40 else 0.0, 90.0 if second == 70 else 10.0)
    kept = history.points()
    assert (kept[0].used, kept[-1].used) == (100, 0)
    assert max(p.memory for p in kept) == 90
    assert kept[0].memory == 10


def test_use_that_the_driver_does_not_tell_is_no_idleness() -> None:
    """As a slice of a GPU has none; told for a while, the mean is of what was told."""
    history = History(4, 10.0)
    for second in range(80):
        history.add(float(second), 60.0 if second % 20 == 0 and second < 40 else None, 30.0)
    assert [(p.used, p.memory) for p in history.points()] == [
        (60, 30),
        (60, 30),
        (None, 30),
        (None, 30),
    ]


def test_simulated_figures_are_marked_and_plausible() -> None:
    source = SimulatedSource(2, 80, clock=lambda: 12345.0)
    first, second = source.read()
    assert source.read() == [first, second]
    assert first.name.startswith("Simulated")
    assert first.used_percent is not None
    assert 0 <= first.used_percent <= 100
    assert first != second
    assert first.memory_total == 80 * 10**9


def test_without_a_driver_there_is_a_sentence() -> None:
    with pytest.raises(NoFigures, match=r"^There are no GPU figures on this machine.*\.$"):
        NvmlSource(["GPU-00000000-0000-0000-0000-000000000000"]).read()


class Hanging:
    """A driver that does not come back before it is let go."""

    simulated = False

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def read(self) -> list[GpuUse]:
        self.calls += 1
        self.go.wait()
        return [GpuUse(name="slow", used_percent=7, memory_used=None, memory_total=None)]


class Failing:
    simulated = False

    def read(self) -> list[GpuUse]:
        raise NoFigures("The driver is being updated.")


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    source = Hanging()
    yield source
    source.go.set()


async def test_a_driver_that_hangs_is_asked_once_and_said(hanging: Hanging) -> None:
    sampler = Sampler(hanging, limit=0.01)
    await sampler.sample()
    await sampler.sample()
    assert hanging.calls == 1
    assert sampler.look().unavailable == "The GPU's driver does not answer."
    hanging.go.set()
    sampler_again = asyncio.create_task(_until_told(sampler))
    async with asyncio.timeout(10):
        await sampler_again
    assert sampler.look().gpus[0].used_percent == 7
    await sampler.stop()


async def _until_told(sampler: Sampler) -> None:
    while sampler.look().unavailable is not None:
        await sampler.sample()


async def test_what_a_driver_refuses_is_a_sentence_and_no_figure() -> None:
    source: Source = Failing()
    sampler = Sampler(source)
    await sampler.sample()
    told = sampler.look()
    assert (told.gpus, told.history, told.unavailable) == ([], [], "The driver is being updated.")
    await sampler.stop()
