"""Many who wait on one stream of events, and a service whose streams break in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from gpudev_client import AsyncClient
from gpudev_client.models import Event, Page, Reservation
from gpudev_client.states import LIVE, State
from gpudev_spawner.waiting import Watch

NOW = datetime(2026, 5, 12, 16, 30, tzinfo=UTC)


def reservation(number: int, state: State = State.QUEUED) -> Reservation:
    return Reservation(
        id=f"r{number:015d}",
        name="Run",
        user="ada",
        server_name=f"s{number}",
        gpu_type="t4",
        gpus=1,
        hours=1,
        disk=None,
        state=state,
        submitted_at=NOW,
    )


@dataclass
class BadService:
    """A double of the service's streams that breaks them: `manners` says how the next streams
    end, one after the other; when they are used up, streams are good and stay open."""

    manners: list[str] = field(default_factory=list)
    known: dict[str, Reservation] = field(default_factory=dict)
    streams: int = 0
    reads: list[str] = field(default_factory=list)
    open: set[Any] = field(default_factory=set)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    number: int = 0

    def change(self, new: Reservation, *, silently: bool = False) -> None:
        self.known[new.id] = new
        self.number += 1
        event = Event(id=self.number, kind="state", at=NOW, message="", reservation=new)
        for stream in () if silently else self.open:
            stream.write(f"id: {event.id}\ndata: {event.model_dump_json()}\n\n")
            stream.flush()


class _Events(RequestHandler):
    def initialize(self, service: BadService) -> None:
        self.service = service

    async def get(self) -> None:
        self.service.streams += 1
        manner = self.service.manners.pop(0) if self.service.manners else "good"
        if manner == "error":
            self.set_status(500)
            return
        if manner == "page":
            self.write("<html>Somebody else answers here</html>")
            return
        self.set_header("Content-Type", "text/event-stream")
        if manner == "nonsense":
            self.write("data: {nonsense\n\n")
        await self.flush()
        if manner in ("cut", "nonsense"):
            return
        self.service.open.add(self)
        self.service.connected.set()
        self.gone = asyncio.Event()
        await self.gone.wait()

    def on_connection_close(self) -> None:
        self.service.open.discard(self)
        self.service.closed.set()
        self.gone.set()


class _Reservations(RequestHandler):
    def initialize(self, service: BadService) -> None:
        self.service = service

    def get(self, reservation_id: str | None = None) -> None:
        self.service.reads.append(reservation_id or "*")
        if reservation_id:
            self.write(self.service.known[reservation_id].model_dump_json())
            return
        live = [r for r in self.service.known.values() if r.state in LIVE]
        self.write(Page[Reservation](items=live).model_dump_json())


@pytest.fixture
async def service() -> AsyncIterator[tuple[BadService, Watch]]:
    bad = BadService()
    mine = {"service": bad}
    server = HTTPServer(
        Application(
            [
                (r"/api/v1/events", _Events, mine),
                (r"/api/v1/reservations", _Reservations, mine),
                (r"/api/v1/reservations/(\w+)", _Reservations, mine),
            ]
        )
    )
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)

    async def at_once(seconds: float) -> None:
        assert 0 < seconds < 60
        await asyncio.sleep(0)

    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with AsyncClient(url, "token", pause=at_once) as client:
        yield bad, Watch(client, at_once)
    for stream in list(bad.open):
        stream.gone.set()
    server.stop()
    await server.close_all_connections()


async def test_a_thousand_wait_on_one_stream_and_only_the_right_one_wakes(
    service: tuple[BadService, Watch],
) -> None:
    bad, watch = service
    with ExitStack() as stack:
        entries = []
        for number in range(1000):
            bad.known[reservation(number).id] = reservation(number)
            entries.append(stack.enter_context(watch.entry(reservation(number))))
        await bad.connected.wait()
        woken = [asyncio.create_task(entry.changed()) for entry in entries]
        await asyncio.sleep(0)
        bad.change(reservation(500, State.PREPARING))
        await woken[500]
        assert entries[500].reservation.state is State.PREPARING
        assert [task.done() for task in woken].count(True) == 1
        assert bad.streams == 1
        assert bad.reads == []  # nobody polls
        for task in woken:
            task.cancel()


async def test_what_was_missed_while_the_stream_was_down_is_read(
    service: tuple[BadService, Watch],
) -> None:
    bad, watch = service
    # More cuts than the client bears by itself.
    bad.manners = ["cut", "error", "page", "nonsense"] * 5
    bad.known = {r.id: r for r in (reservation(1, State.CANCELLED), reservation(2))}
    with watch.entry(reservation(1)) as gone, watch.entry(reservation(2)) as waits:
        while gone.reservation.state is not State.CANCELLED:
            await gone.changed()
        await bad.connected.wait()
        bad.change(reservation(2, State.PREPARING))
        while waits.reservation.state is not State.PREPARING:
            await waits.changed()
    assert bad.streams > 20


async def test_the_stream_ends_with_the_last_who_waits(
    service: tuple[BadService, Watch],
) -> None:
    bad, watch = service
    bad.known = {r.id: r for r in (reservation(1), reservation(2))}
    with watch.entry(reservation(1)):
        with watch.entry(reservation(1)), watch.entry(reservation(2)):
            await bad.connected.wait()
        bad.change(reservation(1, State.PREPARING))
        assert not bad.closed.is_set()
    await bad.closed.wait()
    assert bad.streams == 1


async def test_those_who_look_again_soon_ask_once(service: tuple[BadService, Watch]) -> None:
    bad, watch = service
    bad.known = {reservation(1).id: reservation(1, State.PREPARING)}
    with watch.entry(reservation(1)) as entry:
        entry.read_at -= 60
        await asyncio.gather(*(watch.read(entry, older_than=30) for _ in range(50)))
        assert entry.reservation.state is State.PREPARING
    assert bad.reads == [reservation(1).id]
