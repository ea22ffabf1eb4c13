"""A pod's server that nobody ends after its lease ends itself, and no other does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gpudev_client import AsyncClient
from gpudev_client.states import State
from gpudev_lab.link import Link
from gpudev_lab.overdue import PATIENCE, Overdue, overdue_at

from .test_closing import view


@pytest.mark.parametrize("state", [State.PREPARING, State.ACTIVE])
def test_a_lease_that_goes_on_is_not_overdue(state: State) -> None:
    assert overdue_at(view(timedelta(hours=1), state=state), datetime.now(UTC)) is None


def test_at_the_leases_end_there_is_nothing_left_to_wait_for() -> None:
    now = datetime.now(UTC)
    over = view(timedelta(seconds=-1), state=State.STOPPING)
    assert overdue_at(over, now) == now + timedelta(seconds=PATIENCE)


def test_an_early_end_gives_the_time_for_saving_first() -> None:
    now = datetime.now(UTC)
    ended = view(timedelta(hours=1), state=State.STOPPING, early=7)
    assert overdue_at(ended, now) == now + timedelta(seconds=7 + PATIENCE)


async def test_it_ends_itself_once_and_after_the_time() -> None:
    waited: list[float] = []
    ended = asyncio.Event()

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    link = Link(AsyncClient("http://127.0.0.1:1", "t", http=httpx.MockTransport(_none)), "abc")
    overdue = Overdue(link, end=ended.set, pause=pause)
    overdue.update()
    link.view = view(timedelta(hours=1))
    overdue.update()
    assert not waited
    link.view = view(timedelta(seconds=-1), state=State.STOPPING)
    overdue.update()
    overdue.update()
    await ended.wait()
    assert waited == [pytest.approx(PATIENCE, abs=0.5)]
    await overdue.stop()


def _none(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"nobody asks: {request.url}")
