"""A whole service on loopback in a thread of its own, so that the command can be run beside it.

Store, disks, planner, operations and API are the real ones. Two things are not: the Hub, of which
only "whose token is this" and "is there such a user" are left, and the spawner, of which only "the
server runs" is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from gpudev_client import Client, models
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.api import web
from gpudev_service.operations import servers
from gpudev_service.store.engine import Store
from tests.fixtures.users import Users
from tests.fixtures.world import ManualClock, World, make_world

T = TypeVar("T")
PREFIX = "/services/gpudev/"
ACCESS = "access:services!service=gpudev"


class Tokens(HubOAuth):
    """A Hub that knows these tokens at once and says nothing else."""

    def known(self, people: dict[str, dict[str, Any]]) -> Tokens:
        self._people = people
        return self

    def user_for_token(self, token: Any, *_: Any, **__: Any) -> Any:
        async def answer() -> dict[str, Any] | None:
            return self._people.get(token)

        return answer()


class Running:
    """The service and what a test does to it from outside."""

    def __init__(self, url: str, folder: Path) -> None:
        self._database, self._folder = url, folder
        self._ready = threading.Event()
        self._people: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.world: World
        self.url = ""
        self.starts_servers = True

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)

    def token(self, name: str, scopes: Iterable[str] | None = None) -> str:
        """A person's token; without `scopes` those of an ordinary user."""
        given = [f"custom:gpudev:reserve!user={name}"] if scopes is None else list(scopes)
        token = f"token-of-{name}"
        self._people[token] = {
            "kind": "user",
            "name": name,
            "groups": [],
            "scopes": [ACCESS, *given],
        }
        return token

    def admin(self, name: str = "root-admin") -> str:
        return self.token(name, [f"custom:gpudev:reserve!user={name}", "custom:gpudev:admin"])

    def client(self, name: str = "ada") -> Client:
        return Client(self.url, self.token(name), pause=lambda _: None)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something where the service runs."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def reserve(self, user: str = "ada", gpu_type: str = "t4-small", **values: Any) -> str:
        """A reservation; its id."""
        return self.do(self.world.reserve(user, gpu_type, **values)).id

    def pass_time(self, **span: float) -> None:
        """Moves the service's clock and lets its loops act once."""

        async def move() -> None:
            self.clock.pass_time(**span)
            await self.world.sweep()

        self.do(move())

    def show_present_time(self) -> None:
        """Sets the service's clock to the machine's, for a command in a process of its own."""
        self.pass_time(seconds=(datetime.now(UTC) - self.clock.now()).total_seconds())

    @property
    def clock(self) -> ManualClock:
        clock = self.world.ctx.clock
        assert isinstance(clock, ManualClock)
        return clock

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        store = Store(self._database)
        self.world = make_world(store, self._folder)
        await self.world.ctx.hub.close()
        self.world.ctx.hub = Users()
        sockets = bind_sockets(0, "127.0.0.1")
        base = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        auth = Tokens(
            api_url=f"{base}/hub/api",
            api_token="unused",
            hub_prefix="/hub/",
            base_url=PREFIX,
            oauth_client_id="service-gpudev",
            oauth_redirect_uri=f"{PREFIX}oauth_callback",
            access_scopes={ACCESS},
        ).known(self._people)
        service = web.service(self.world.ctx, auth, prefix=PREFIX, loops=list)
        server = HTTPServer(web.application(service, cookie_secret=b"0" * 32))
        server.add_sockets(sockets)
        spawner = asyncio.create_task(self._spawner())
        self.url = f"{base}{PREFIX}".rstrip("/")
        self._ready.set()
        await self._end.wait()
        spawner.cancel()
        await asyncio.wait([spawner])
        server.stop()
        await server.close_all_connections()
        await self.world.ctx.background.close()
        await self.world.ctx.hub.close()
        await store.close()
        if not spawner.cancelled():
            spawner.result()  # it ends by itself only with an error

    async def _spawner(self) -> None:
        actor, running = Actor("gpudev-spawner"), models.ServerReport(status="running")
        async with self.world.ctx.events.listen(lambda _: True) as listener:
            async for event in listener:
                if event.reservation.state is State.PREPARING and self.starts_servers:
                    await servers.report(self.world.ctx, event.reservation.id, actor, running)
