"""The connection between a server and the service: what it follows, and what it does when the other
end is away, dead behind a proxy that keeps the line open, or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import NoReturn

import httpx
import pytest

from gpudev_client import AsyncClient, errors
from gpudev_client.models import Event, LabView
from gpudev_client.states import State
from gpudev_lab.link import LONGEST_PAUSE, Link

from .test_closing import view

PATIENCE = 20.0
#: Seconds within which news are followed again after the service is back (goal R12); one of them
#: is left for connecting and reading.
BACK_WITHIN = 5.0


class Line(httpx.AsyncBaseTransport):
    """The service's end of the wire. `up` is whether it answers; a stream that is open stays so."""

    def __init__(self) -> None:
        self.up = True
        self.refused = False
        self.seen: LabView = view(timedelta(hours=1))
        self.views = self.streams = 0
        self._news: list[asyncio.Queue[bytes]] = []
        self.closed = 0
        self.respond: Callable[[], httpx.Response] = self._view
        #: Views wait here, after the service has looked and before they are answered.
        self.way = asyncio.Event()
        self.way.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.refused:
            body = {"error": {"code": "not_found", "message": "There is no such reservation."}}
            return httpx.Response(404, json=body)
        if not self.up:
            raise httpx.ConnectError("away", request=request)
        if request.url.path.endswith("/lab"):
            self.views += 1
            answer = self.respond()
            await self.way.wait()
            return answer
        self.streams += 1
        return httpx.Response(
            200, headers={"Content-Type": "text/event-stream"}, stream=_Stream(self._listen())
        )

    def _view(self) -> httpx.Response:
        return httpx.Response(200, json=self.seen.model_dump(mode="json"))

    async def _listen(self) -> AsyncIterator[bytes]:
        news: asyncio.Queue[bytes] = asyncio.Queue()
        self._news.append(news)
        try:
            yield self.event()
            while True:
                yield await news.get()
        finally:
            self._news.remove(news)
            self.closed += 1

    def event(self) -> bytes:
        now = self.seen.reservation.submitted_at
        told = Event(id=1, kind="note", at=now, message="", reservation=self.seen.reservation)
        return f"id: 1\ndata: {told.model_dump_json()}\n\n".encode()

    def tell(self) -> None:
        for news in self._news:
            news.put_nowait(self.event())


class _Stream(httpx.AsyncByteStream):
    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


class Watched:
    """A link, the pauses that it makes (none of which takes time), and its news."""

    def __init__(self, line: Line, first: Callable[[], None] = lambda: None) -> None:
        self.pauses: list[float] = []
        self.news = 0
        client = AsyncClient("http://127.0.0.1:1", "t", http=line, pause=self._pause)
        self.link = Link(client, "abc", pause=self._pause)
        self.link.subscribe(first)
        self.link.subscribe(self._heard)
        self._changed = asyncio.Event()

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def _heard(self) -> None:
        self.news += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self._changed.wait()
                self._changed.clear()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
async def watched(line: Line) -> AsyncIterator[Watched]:
    found = Watched(line)
    yield found
    await found.link.stop()


async def test_each_event_brings_the_view_and_news_only_of_what_is_new(
    line: Line, watched: Watched
) -> None:
    watched.link.start()
    await watched.until(lambda: watched.link.view is not None)
    assert (line.views, watched.news, watched.link.away) == (1, 1, None)
    line.tell()  # the same once more
    line.seen = view(timedelta(hours=2))
    line.tell()
    await watched.until(lambda: watched.link.view == line.seen)
    assert watched.news == 2
    assert watched.pauses == []


async def test_readers_at_the_same_time_share_one_request(line: Line, watched: Watched) -> None:
    await asyncio.gather(*(watched.link.refresh() for _ in range(10)))
    assert line.views == 1


async def test_news_during_a_read_are_read_once_more(line: Line, watched: Watched) -> None:
    """Somebody is removed while a page's read is on its way back from the service's database."""
    watched.link.start()
    await watched.until(lambda: watched.link.view is not None)
    line.way.clear()
    page = asyncio.create_task(watched.link.refresh())
    await turns()
    line.seen = view(timedelta(hours=2))
    line.tell()
    await turns()
    assert line.views == 2
    line.way.set()
    assert await page != line.seen
    await watched.until(lambda: watched.link.view == line.seen)
    assert line.views == 3


async def test_whoever_asks_because_of_news_waits_for_the_next_read(
    line: Line, watched: Watched
) -> None:
    line.way.clear()
    page = asyncio.create_task(watched.link.refresh())
    await turns()
    line.seen = view(timedelta(hours=2))
    asked = [asyncio.create_task(watched.link.renew()) for _ in range(3)]
    joined = asyncio.create_task(watched.link.refresh())
    await turns()
    page.cancel()  # who waits, not the read itself
    line.way.set()
    assert [await one for one in [*asked, joined]] == [line.seen] * 4
    assert line.views == 2


async def turns() -> None:
    """Lets everything happen that waits for nothing."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_away_is_a_sentence_and_what_is_known_stays(line: Line, watched: Watched) -> None:
    line.up = False
    watched.link.start()
    await watched.until(lambda: watched.link.away is not None)
    assert "does not answer" in str(watched.link.away)
    while len(watched.pauses) < 12:  # noqa: ASYNC110 - each turn of the loop is a step of the link
        await asyncio.sleep(0)
    assert max(watched.pauses) <= LONGEST_PAUSE <= BACK_WITHIN - 1
    assert watched.pauses[0] < watched.pauses[2] < watched.pauses[8]
    assert len(set(watched.pauses)) == len(watched.pauses)
    assert watched.news == 1
    line.up = True
    await watched.until(lambda: watched.link.away is None)
    assert watched.link.view == line.seen


async def test_a_stream_that_is_open_and_dead_is_opened_anew(line: Line, watched: Watched) -> None:
    watched.link.start()
    await watched.until(lambda: watched.link.view is not None)
    line.up = False
    with pytest.raises(errors.Unreachable):
        await watched.link.refresh()
    assert watched.link.away is not None
    line.up = True
    line.seen = view(timedelta(hours=2))
    await watched.until(lambda: watched.link.view == line.seen)
    assert (line.streams, line.closed) == (2, 1)


async def test_following_goes_on_after_a_failure_of_our_own(
    line: Line, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    known, line.respond = line.respond, _fails
    watched.link.start()
    await watched.until(lambda: watched.link.away is not None)
    line.respond = known
    await watched.until(lambda: watched.link.away is None)
    assert watched.link.view == line.seen
    assert "following the reservation service failed" in caplog.text


async def test_a_listener_that_fails_stops_no_other_and_not_the_following(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(line, first=_fails)
    watched.link.start()
    await watched.until(lambda: watched.link.view is not None)
    line.seen = view(timedelta(hours=2))
    line.tell()
    await watched.until(lambda: watched.link.view == line.seen)
    assert (watched.news, line.streams, watched.pauses) == (2, 1, [])
    assert caplog.text.count("RuntimeError: of our own") == 2
    await watched.link.stop()


def _fails() -> NoReturn:
    raise RuntimeError("of our own")


async def test_a_refusal_is_told_in_the_services_words(line: Line, watched: Watched) -> None:
    line.refused = True
    watched.link.start()
    await watched.until(lambda: watched.link.away is not None)
    assert str(watched.link.away).endswith("There is no such reservation.")


async def test_following_ends_with_the_reservation(line: Line, watched: Watched) -> None:
    watched.link.start()
    await watched.until(lambda: watched.link.view is not None)
    line.seen = view(timedelta(0), state=State.EXPIRED)
    line.tell()
    await watched.until(lambda: watched.link.view == line.seen)
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait(
            [task for task in asyncio.all_tasks() if task.get_name() == "gpudev events"]
        )
    assert line.streams == 1
