"""Who may not come in any more, at WebSockets that are open and at one that is about to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import WebSocketClientConnection, WebSocketHandler, websocket_connect

from gpudev_client.models import LabAccess, LabView
from gpudev_lab.guard import CLOSE_CODE, Guard
from tests.fixtures.websocket import hang_up

from .test_closing import view

PATIENCE = 20.0


class Site:
    """A server whose kernel, like a real one that starts, keeps a WebSocket waiting between the
    login and the upgrade."""

    def __init__(self) -> None:
        self.provider = SimpleNamespace(get_user=self._user)
        self.guard = Guard("ada")
        self.guard.watch(self.provider)
        self.guard.update(allowed("bob"))
        self.asked, self.ready = asyncio.Event(), asyncio.Event()
        listener, port = bind_unused_port()
        self.url = f"ws://127.0.0.1:{port}/kernel"
        self.server = HTTPServer(Application([("/kernel", Kernel, {"site": self})]))
        self.server.add_socket(listener)

    async def _user(self, handler: WebSocketHandler) -> Any:
        name = handler.request.headers["Person"]
        return SimpleNamespace(username=name, hub_user={"name": name, "admin": name == "root"})

    async def connect(self, name: str) -> WebSocketClientConnection:
        async with asyncio.timeout(PATIENCE):
            return await websocket_connect(HTTPRequest(self.url, headers={"Person": name}))


class Kernel(WebSocketHandler):
    def initialize(self, site: Site) -> None:
        self.site = site

    async def prepare(self) -> None:
        self.current_user = await self.site.provider.get_user(self)

    async def get(self, *args: Any, **kwargs: Any) -> None:
        self.site.asked.set()
        await self.site.ready.wait()
        await super().get(*args, **kwargs)

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


def allowed(*names: str, until: datetime | None = None) -> LabView:
    access = [LabAccess(user=name, role="use", keys=[], until=until, owner=False) for name in names]
    return view(timedelta(hours=1)).model_copy(update={"access": access})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    yield made
    made.guard.close()
    made.server.stop()
    await made.server.close_all_connections()


async def test_an_open_connection_of_somebody_removed_is_closed(site: Site) -> None:
    site.ready.set()
    theirs, owners = await site.connect("bob"), await site.connect("ada")
    site.guard.update(allowed())
    end = asyncio.ensure_future(theirs.read_message())
    await asyncio.wait([end], timeout=PATIENCE)
    assert end.done()
    assert end.result() is None
    assert theirs.close_code == CLOSE_CODE
    async with asyncio.timeout(PATIENCE):
        await owners.write_message("still here")
        assert await owners.read_message() == "still here"
    await hang_up(owners)
    await hang_up(theirs)  # tornado's client wants it said, though the server has closed it


async def test_an_invitation_ends_on_time_though_the_service_is_away(site: Site) -> None:
    site.ready.set()
    theirs = await site.connect("bob")
    soon = datetime.now(UTC) + timedelta(milliseconds=50)
    site.guard.update(allowed("bob", until=soon))
    async with asyncio.timeout(PATIENCE):
        assert await theirs.read_message() is None
    assert theirs.close_code == CLOSE_CODE
    await hang_up(theirs)
    request = SimpleNamespace(request=SimpleNamespace(headers={"Person": "bob"}))
    assert await site.provider.get_user(request) is None
    site.guard.update(allowed("bob", until=soon + timedelta(minutes=1)))
    assert await site.provider.get_user(request) is not None


async def test_nobody_gets_in_who_is_removed_between_login_and_upgrade(site: Site) -> None:
    connecting = asyncio.create_task(site.connect("bob"))
    await site.asked.wait()
    site.guard.update(allowed())
    site.ready.set()
    with pytest.raises(HTTPClientError) as refused:
        await connecting
    assert refused.value.code == 403


@pytest.mark.parametrize("name", ["bob", "root"])
async def test_who_is_invited_again_or_administers_gets_in(site: Site, name: str) -> None:
    site.guard.update(allowed("bob", "root"))
    connecting = asyncio.create_task(site.connect(name))
    await site.asked.wait()
    site.guard.update(allowed())
    if name == "bob":
        site.guard.update(allowed("bob"))
    site.ready.set()
    await hang_up(await connecting)
