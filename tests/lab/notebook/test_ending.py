"""Word before a lease ends: which, when, and to everybody whatever one of them does."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client.errors import Unreachable
from gpudev_client.models import Event, Reservation
from gpudev_client.states import State
from gpudev_lab.notebook import ending as module
from gpudev_lab.notebook.ending import Ending, Follower, Listener, Warnings
from gpudev_lab.notebook.lease import NotOnALease
from tests.fixtures.world import START


def lease(state: State = State.ACTIVE, *, hours: float = 2, **changes: Any) -> Reservation:
    values = {
        "id": "a000000000000001",
        "name": "training",
        "user": "ada",
        "server_name": "a000000000000001",
        "gpu_type": "t4",
        "gpus": 1,
        "hours": hours,
        "disk": None,
        "state": state,
        "submitted_at": START,
        "starts_at": START,
        "expires_at": START + timedelta(hours=hours),
    }
    return Reservation.model_validate(values | changes)


def at(**before_the_end: float) -> datetime:
    return START + timedelta(hours=2) - timedelta(**before_the_end)


def test_word_is_given_once_for_each_of_the_minutes() -> None:
    warnings = Warnings((5.0, 30.0))
    assert warnings.look(lease(), at(minutes=31)) is None
    first = warnings.look(lease(), at(minutes=30))
    assert first is not None
    assert first.minutes == 30
    assert str(first) == "the lease ends in 30 min"
    assert warnings.look(lease(), at(minutes=29)) is None
    assert warnings.next(lease(), at(minutes=29)) == at(minutes=5)


def test_of_several_that_are_due_the_most_urgent_is_given() -> None:
    warnings = Warnings((5.0, 15.0, 30.0))
    found = warnings.look(lease(), at(minutes=4))
    assert found is not None
    assert found.minutes == 5
    assert warnings.next(lease(), at(minutes=4)) is None


def test_an_extension_makes_word_due_again() -> None:
    warnings = Warnings((10.0,))
    assert warnings.look(lease(), at(minutes=9)) is not None
    longer = lease(hours=3)
    assert warnings.look(longer, at(minutes=9)) is None
    again = START + timedelta(hours=2, minutes=50)
    assert warnings.next(longer, at(minutes=9)) == again
    assert warnings.look(longer, again) is not None


def test_an_early_end_is_told_at_once_with_its_reason() -> None:
    warnings = Warnings((10.0,))
    stopping = lease(State.STOPPING, reason="Given back by its owner.")
    found = warnings.look(stopping, at(minutes=90))
    assert found is not None
    assert found.reason == "Given back by its owner."
    assert str(found) == "the lease ends now: Given back by its owner."
    assert warnings.look(stopping, at(minutes=90)) is None
    assert warnings.look(lease(State.CANCELLED), at(minutes=89)) is None


def test_what_waits_has_no_end_yet() -> None:
    waiting = lease(State.QUEUED, starts_at=None, expires_at=None)
    assert Warnings((10.0,)).look(waiting, START) is None
    assert Warnings((10.0,)).next(waiting, START) is None


@given(
    minutes=st.lists(st.integers(0, 120), min_size=1, max_size=4, unique=True),
    looks=st.lists(st.integers(0, 7200), min_size=1, max_size=30),
)
def test_each_word_comes_once_and_never_early(minutes: list[int], looks: list[int]) -> None:
    warnings = Warnings(tuple(float(m) for m in minutes))
    told: list[Ending] = []
    for seconds in sorted(looks):
        now = START + timedelta(seconds=seconds)
        found = warnings.look(lease(), now)
        if found is not None:
            assert found.left == lease().expires_at - now  # type: ignore[operator]
            assert found.left <= timedelta(minutes=found.minutes)
            told.append(found)
    assert len({ending.minutes for ending in told}) == len(told)


class Stream:
    """A service that gives what a test puts in; an exception breaks the stream."""

    def __init__(self) -> None:
        self.put: queue.Queue[Reservation | Exception] = queue.Queue()
        self.opened = 0

    def events(self, reservation_id: str, after: int | None = None) -> Iterator[Event]:
        self.opened += 1
        while True:
            news = self.put.get()
            if isinstance(news, Exception):
                raise news
            yield Event(id=1, kind="note", at=START, message="", reservation=news)


class Told:
    """Collects the word that is given, for tests that wait for it."""

    def __init__(self) -> None:
        self.all: queue.Queue[Ending] = queue.Queue()
        self.over: queue.Queue[bool] = queue.Queue()

    def listener(self) -> Listener:
        return Listener(self.all.put, over=lambda: self.over.put(True))


@pytest.fixture
def followed() -> Iterator[tuple[Follower, Stream]]:
    stream = Stream()
    follower = Follower("a000000000000001", stream, now=lambda: at(minutes=9))
    follower.start()
    yield follower, stream
    follower.close()
    stream.put.put(lease(State.EXPIRED))


def test_a_broken_stream_is_followed_again(
    followed: tuple[Follower, Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.0)
    follower, stream = followed
    told = Told()
    follower.add(told.listener(), [10])
    stream.put.put(Unreachable("away"))
    stream.put.put(lease())
    assert told.all.get(timeout=30).minutes == 10
    assert stream.opened == 2


def test_who_fails_stops_nobody_else(followed: tuple[Follower, Stream]) -> None:
    follower, stream = followed
    told = Told()

    def fails(ending: Ending) -> None:
        raise OSError("disk full")

    follower.add(Listener(fails), [10])
    follower.add(told.listener(), [10])
    stream.put.put(lease())
    assert told.all.get(timeout=30).minutes == 10


def test_a_checkpoint_that_takes_long_keeps_nobody_else_waiting(
    followed: tuple[Follower, Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, stream = followed
    monkeypatch.setattr(module, "_follower", follower)
    saved, told = threading.Event(), Told()
    saves: queue.Queue[str] = queue.Queue()

    def checkpoint(ending: Ending) -> None:
        saves.put(f"begins at {ending.minutes:g}")
        saved.wait()
        saves.put("is done")

    module.before_end(checkpoint, minutes=10)
    module.before_end(told.all.put, minutes=10)
    stream.put.put(lease())
    assert told.all.get(timeout=30).minutes == 10
    # The lease ends early meanwhile: that word waits for the checkpoint that is being written.
    stream.put.put(lease(State.STOPPING, reason="Given back."))
    assert told.all.get(timeout=30).minutes == 0
    assert saves.get(timeout=30) == "begins at 10"
    assert saves.empty()
    saved.set()
    assert [saves.get(timeout=30) for _ in range(3)] == ["is done", "begins at 0", "is done"]


def test_who_comes_late_gets_word_too_and_who_left_gets_none(
    followed: tuple[Follower, Stream],
) -> None:
    follower, stream = followed
    first, second, gone = Told(), Told(), Told()
    follower.add(first.listener(), [10])
    leaver = gone.listener()
    follower.add(leaver, [10])
    follower.remove(leaver)
    stream.put.put(lease())
    assert first.all.get(timeout=30).minutes == 10
    follower.add(second.listener(), [10])
    assert second.all.get(timeout=30).minutes == 10
    stream.put.put(lease(State.EXPIRED))
    for told in (first, second):
        assert told.over.get(timeout=30)
    late = Told()
    follower.add(late.listener(), [10])
    assert late.over.get(timeout=30)
    assert gone.all.empty()


async def test_endings_are_iterated_until_the_lease_is_over(
    followed: tuple[Follower, Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, stream = followed
    monkeypatch.setattr(module, "_follower", follower)
    stream.put.put(lease())
    seen = []
    async with asyncio.timeout(30):
        async for ending in module.endings(10):
            seen.append(ending)
            stream.put.put(lease(State.STOPPING, reason="Cancelled."))
            stream.put.put(lease(State.CANCELLED, reason="Cancelled."))
    assert [(ending.minutes, ending.reason) for ending in seen] == [(10, None), (0, "Cancelled.")]


def test_outside_of_a_lease_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUDEV_RESERVATION", raising=False)
    monkeypatch.setattr(module, "_follower", None)
    with pytest.raises(NotOnALease, match="not running on a gpudev lease"):
        module.before_end(print)


@pytest.mark.parametrize("minutes", [-1, -0.5])
def test_minutes_before_the_end_are_not_negative(minutes: float) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        module.before_end(print, minutes=minutes)
