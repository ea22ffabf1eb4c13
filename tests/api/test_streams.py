"""Event streams: the present state first, then what happens, to whom may see it, and no longer."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpudev_client.models import Event
from gpudev_service.events import BACKLOG, Owner
from gpudev_service.store.engine import Store
from tests.fixtures.hub import ADMIN, RunningHub
from tests.fixtures.world import START

from .site import Site, running

pytestmark = [
    pytest.mark.hub,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

LATER = {"gpu_type": "h100", "hours": 1, "gpus": 1}


@pytest.fixture
def eve(running_hub: RunningHub) -> str:
    return running_hub.user("eve")


async def reserve(site: Site, token: str, **changes: Any) -> str:
    answer = await site.call("POST", "/reservations", token, {**LATER, **changes})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_the_present_state_comes_first_and_then_what_happens(site: Site, eve: str) -> None:
    key = await reserve(site, eve)
    async with site.stream(f"/reservations/{key}/events", eve) as reader:
        assert reader.answer.headers["Content-Type"] == "text/event-stream"
        first = await reader.message()
        assert first["data"]["kind"] == "present"
        assert first["data"]["reservation"]["id"] == key
        assert first["data"]["reservation"]["state"] == "preparing"
        await site.call("DELETE", f"/reservations/{key}", eve)
        second = await reader.message()
        assert second["data"]["kind"] == "transition"
        assert second["data"]["reservation"]["state"] == "stopping"
        assert second["id"] > first["id"]


async def test_each_sees_their_own_and_an_admin_all(
    site: Site, eve: str, running_hub: RunningHub
) -> None:
    frank, root = running_hub.user("frank"), running_hub.user(ADMIN)
    mine, other = await reserve(site, eve), await reserve(site, frank)
    async with site.stream("/events", eve) as hers, site.stream("/events", root) as all_of_them:
        assert (await hers.message())["data"]["reservation"]["id"] == mine
        assert await hers.comment() == "this was the present state"
        seen = {(await all_of_them.message())["data"]["reservation"]["id"] for _ in range(2)}
        assert seen == {mine, other}
        await site.call("DELETE", f"/reservations/{other}", frank)
        await site.call("DELETE", f"/reservations/{mine}", eve)
        assert (await hers.message())["data"]["reservation"]["id"] == mine
        assert (await all_of_them.message())["data"]["reservation"]["id"] == other


async def test_a_reader_who_comes_back_gets_what_was_missed(site: Site, eve: str) -> None:
    key = await reserve(site, eve)
    async with site.stream(f"/reservations/{key}/events", eve) as reader:
        last = (await reader.message())["id"]
    await site.call("DELETE", f"/reservations/{key}", eve)
    headers = {"Last-Event-ID": str(last)}
    async with site.stream(f"/reservations/{key}/events", eve, headers) as reader:
        missed = await reader.message()
        assert (missed["data"]["kind"], missed["id"] > last) == ("transition", True)
        assert (await reader.message())["data"]["kind"] == "present"


@pytest.mark.parametrize("last", ["nonsense", "-1", "1e3", "9" * 400, "0"])
async def test_any_last_event_id_begins_with_the_present_state(
    last: str, site: Site, eve: str
) -> None:
    key = await reserve(site, eve)
    headers = {"Last-Event-ID": last}
    async with site.stream(f"/reservations/{key}/events", eve, headers) as reader:
        while (await reader.message())["data"]["kind"] != "present":
            continue


async def test_the_stream_of_a_reservation_ends_with_it(site: Site, eve: str) -> None:
    start = {"starts_at": "2026-12-24T00:00:00Z"}
    key = await reserve(site, eve, **start)
    async with site.stream(f"/reservations/{key}/events", eve) as reader:
        await reader.message()
        await site.call("DELETE", f"/reservations/{key}", eve)
        final = await reader.message()
        assert final["data"]["reservation"]["state"] == "cancelled"
        await reader.end()
    headers = {"Last-Event-ID": str(final["id"])}
    answer = await site.call("GET", f"/reservations/{key}/events", eve, headers=headers)
    assert answer.status_code == 204
    await nobody_listens(site)


async def test_a_stream_ends_when_its_token_does(
    running_hub: RunningHub, store: Store, tmp_path: Path, eve: str
) -> None:
    token = running_hub.new_token("eve")
    async with running(running_hub, store, tmp_path, recheck=0.1) as site:
        async with site.stream("/events", str(token["token"])) as reader:
            await reader.comment()
            running_hub.revoke("eve", token["id"])
            await reader.end()
        await nobody_listens(site)


async def test_a_quiet_stream_shows_that_it_is_alive(
    running_hub: RunningHub, store: Store, tmp_path: Path, eve: str
) -> None:
    async with (
        running(running_hub, store, tmp_path, keepalive=0.05) as site,
        site.stream("/events", eve) as reader,
    ):
        assert await reader.comment() == "this was the present state"
        assert await reader.comment() == "still there"
        assert await reader.comment() == "still there"


async def test_a_reader_who_goes_leaves_nothing(site: Site, eve: str) -> None:
    for _ in range(5):
        async with site.stream("/events", eve) as reader:
            await reader.comment()
    async with site.stream("/events", eve) as reader:
        await reader.comment()
    await nobody_listens(site)
    assert not site.shared.streams


async def nobody_listens(site: Site) -> None:
    """Returns when no stream is open; the test's own time limit bounds it."""
    while site.ctx.events.listeners or site.shared.streams:  # noqa: ASYNC110 - the bus has nothing to wait for
        await asyncio.sleep(0.01)


async def test_a_reader_who_does_not_read_is_dropped(
    running_hub: RunningHub, store: Store, tmp_path: Path, eve: str
) -> None:
    """It opens the stream and never reads: the service lets it go, with what waits for it."""
    async with running(running_hub, store, tmp_path, stuck=0.2) as site:
        view = (await site.call("POST", "/reservations", eve, LATER)).json()
        event = Event.model_validate(
            {"id": 1, "kind": "note", "at": START, "message": "x" * 100_000, "reservation": view}
        )
        address = httpx.URL(site.base)
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(raw, (address.host, address.port))
            request = (
                f"GET {address.path}/api/v1/events HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: token {eve}\r\n\r\n"
            )
            await loop.sock_sendall(raw, request.encode())
            while not site.ctx.events.listeners:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            for _ in range(3 * BACKLOG):
                site.ctx.events.publish(Owner("eve", ()), event)
                await asyncio.sleep(0)
            await nobody_listens(site)
        assert not site.shared.streams
