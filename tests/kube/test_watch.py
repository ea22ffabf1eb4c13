"""A view of a cluster that knows whether it is current, against a server in all its moods."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from gpudev_service.kube import KubeAway, KubeRefused, Timing, Watched, connection
from gpudev_service.kube.connection import Kube
from gpudev_service.kube.refusals import Object

from .moody import Moody, moody_server, settings_for

QUICK = Timing(window=1, limit=1.2, pause=0.01, longest_pause=0.05, restored=100)


class Time:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Case:
    def __init__(self, moody: Moody, kube: Kube, rest: float) -> None:
        self.moody, self.kube, self.clock = moody, kube, Time()
        self.changes: list[tuple[str, str | None, str | None]] = []
        self.view: Watched[str] = Watched(
            kube,
            "/api/v1/nodes",
            _labels,
            changed=lambda *change: self.changes.append(change),
            timing=QUICK,
            rest=rest,
            clock=self.clock,
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.view.news()


def _labels(node: Object) -> str | None:
    labels = node["metadata"].get("labels") or {}
    return None if "hidden" in labels else ",".join(f"{k}={v}" for k, v in labels.items())


@pytest.fixture(params=[0.0, 0.02], ids=["at-once", "in-turns"])
async def case(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    async with moody_server(tmp_path) as (moody, kube):
        case = Case(moody, kube, request.param)
        yield case
        await case.view.close()


async def test_a_view_lists_by_pages_and_follows(case: Case) -> None:
    case.moody.page = 2
    for name in "abcde":
        case.moody.put(name)
    assert case.view.age == math.inf
    case.view.start()
    await case.until(lambda: len(case.view.items) == 5)
    assert case.view.fresh
    case.moody.put("a", x="1")
    case.moody.put("b", hidden="")
    case.moody.drop("c")
    case.moody.put("f")
    await case.until(lambda: "f" in case.view.items)
    assert dict(case.view.items) == {"a": "x=1", "d": "", "e": "", "f": ""}
    assert case.changes[5:] == [
        ("a", "", "x=1"),
        ("b", "", None),
        ("c", "", None),
        ("f", None, ""),
    ]
    lists = [query for _, query in case.moody.requests if "watch" not in query]
    assert len(lists) == 3, "three pages of one list, and no other"


@pytest.mark.parametrize("bookmarks", [True, False])
async def test_a_quiet_cluster_stays_fresh_without_another_list(
    case: Case, bookmarks: bool
) -> None:
    case.moody.bookmarks = bookmarks
    case.moody.put("a")
    case.view.start()
    await case.until(lambda: case.moody.watches() >= 2)
    case.clock.now += QUICK.limit + 1
    await case.until(lambda: case.moody.watches() >= 3)
    assert case.view.fresh
    assert [case.moody.watches(), len(case.moody.requests)] == [3, 4]


async def test_large_objects_and_many_at_once_are_taken_in(case: Case) -> None:
    """A cluster lets an object have more than a megabyte, whoever made it."""
    case.view.start()
    await case.until(lambda: case.view.fresh and case.moody.watches() > 0)
    case.moody.put("large", x="x" * 1_400_000)
    for number in range(300):
        case.moody.put(f"n{number}", x=str(number))
    await case.until(lambda: "n299" in case.view.items)
    assert case.view.items["large"] == "x=" + "x" * 1_400_000
    assert case.view.items["n7"] == "x=7"
    assert len(case.changes) == len(case.view.items) == 301
    assert case.view.trouble is None


async def test_a_line_without_end_is_not_waited_for(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LONGEST_LINE", 100_000)
    case.view.start()
    await case.until(lambda: case.view.fresh and case.moody.watches() > 0)
    case.moody.put("large", x="x" * 1_400_000)
    await case.until(lambda: case.view.trouble is not None)
    assert "large" not in case.view.items


async def test_while_it_rests_nothing_is_read() -> None:
    """Reading goes on whatever ends the rest."""
    transport = MagicMock(spec=asyncio.Transport)
    answer = SimpleNamespace(connection=SimpleNamespace(transport=transport))
    resting = asyncio.create_task(connection._rest(answer, 3600))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert [call[0] for call in transport.method_calls] == ["pause_reading"]
    resting.cancel()
    await asyncio.gather(resting, return_exceptions=True)
    assert [call[0] for call in transport.method_calls] == ["pause_reading", "resume_reading"]


@pytest.mark.parametrize("mood", ["silent", "mute"])
async def test_a_watch_that_says_nothing_goes_stale_and_comes_back(case: Case, mood: str) -> None:
    case.moody.put("a")
    case.view.start()
    await case.until(lambda: "a" in case.view.items)
    case.moody.become(mood)
    case.moody.put("b")
    # Connections to it are opened all the time; they are no sign of life.
    case.clock.now += QUICK.limit + 0.1
    seen = case.moody.watches()
    await case.until(lambda: case.moody.watches() >= seen + 2)
    assert not case.view.fresh
    assert "b" not in case.view.items
    case.moody.become("well")
    await case.until(lambda: case.view.fresh)
    assert "b" in case.view.items


@pytest.mark.parametrize("mood", ["cut", "short", "garbage", "ill", "refuses"])
async def test_what_fails_is_said_and_tried_again_with_bounds(case: Case, mood: str) -> None:
    case.moody.put("a")
    case.view.start()
    await case.until(lambda: "a" in case.view.items)
    case.moody.become(mood)
    await case.until(lambda: case.view.trouble is not None)
    case.moody.drop("a")
    assert "a" in case.view.items, "what was seen last is kept"
    case.moody.become("well")
    await case.until(lambda: "a" not in case.view.items)
    await case.until(lambda: case.view.trouble is None)


@pytest.mark.parametrize("mood", ["gone", "gone_later"])
async def test_an_expired_watch_lists_again_and_misses_nothing(case: Case, mood: str) -> None:
    case.moody.put("a")
    case.moody.put("b")
    case.view.start()
    await case.until(lambda: len(case.view.items) == 2)
    case.moody.become(mood)
    case.moody.drop("a")
    case.moody.events.clear()
    await case.until(lambda: "a" not in case.view.items)
    assert ("a", "", None) in case.changes
    assert case.view.fresh


async def test_repeated_events_bring_nothing_back(case: Case) -> None:
    case.moody.put("a")
    case.moody.put("b")
    case.moody.drop("b")
    case.moody.put("a", cordoned="")
    case.view.start()
    await case.until(lambda: "a" in case.view.items)
    case.changes.clear()
    case.moody.become("replay")
    seen = case.moody.watches()
    await case.until(lambda: case.moody.watches() >= seen + 2)
    assert dict(case.view.items) == {"a": "cordoned="}
    assert case.changes == []
    case.clock.now += QUICK.limit + 0.1
    seen = case.moody.watches()
    await case.until(lambda: case.moody.watches() >= seen + 2)
    assert not case.view.fresh, "what is repeated is no sign of life"


async def test_a_list_of_the_past_is_refused_until_it_is_clear_that_it_is_the_truth(
    case: Case,
) -> None:
    case.moody.put("a")
    old = case.moody.listed()
    case.moody.put("b")
    await asyncio.gather(_first_list(case))
    case.moody.old_list = old
    case.moody.become("gone")
    for _ in range(2):
        with pytest.raises(KubeAway, match="older"):
            await _again(case)
    assert set(case.view.items) == {"a", "b"}
    case.clock.now += QUICK.restored + 1
    case.moody.version = 11
    case.moody.events.clear()
    case.moody.become("well")
    await case.view.step()
    assert set(case.view.items) == {"a"}


async def _first_list(case: Case) -> None:
    case.view.start()
    await case.until(lambda: "b" in case.view.items)
    await case.view.close()


async def _again(case: Case) -> None:
    case.view.expire()
    await case.view.step()


async def test_nobody_at_the_address_is_said_in_words(tmp_path: Path) -> None:
    from gpudev_service.kube.connection import connect

    # Port 9 (discard) has no listener on loopback: the connection is refused at once.
    async with connect(settings_for(tmp_path, "http://127.0.0.1:9")) as kube:
        with pytest.raises(KubeAway, match="cannot be reached"):
            await kube.get("/api/v1/nodes")


async def test_a_refusal_has_its_status_and_words(case: Case) -> None:
    case.moody.become("refuses")
    with pytest.raises(KubeRefused) as refused:
        await case.kube.get("/api/v1/nodes")
    assert (refused.value.status, refused.value.reason) == (403, "No")
    case.moody.become("ill")
    with pytest.raises(KubeAway, match="503"):
        await case.kube.get("/api/v1/nodes")
    with pytest.raises(KubeRefused):
        await case.kube.get("/api/v1/elsewhere")
    assert await case.kube.delete("/api/v1/elsewhere/x") is False
