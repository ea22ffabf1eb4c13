"""The pages over HTTP: a whole service with a real store and real disks behind a double of the
Hub's login, all at one address as behind the Hub's proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.routing import PathMatches, Rule, RuleRouter

from gpudev_service.api import web
from gpudev_service.pages.routes import handlers
from gpudev_service.store.engine import Store
from tests.fixtures.logins import close_login
from tests.fixtures.users import Users
from tests.fixtures.world import World, make_world

from .hub import ACCESS, HubDouble
from .visitor import PREFIX, Seen, Visitor


class NeverWaiting(HubOAuth):
    """JupyterHub's login, that fails where it would stop everybody else to ask the Hub."""

    def _synchronize(self, *_: object, **__: object) -> None:
        raise AssertionError("a page asked the Hub while everybody else had to wait")


class Site:
    """The running pages, and whoever looks at them."""

    def __init__(self, world: World, base: str, hub: HubDouble, stack: AsyncExitStack) -> None:
        self.world, self.base, self.hub, self._stack = world, base, hub, stack

    async def stranger(self) -> Visitor:
        """A browser that nobody has logged in with."""
        return await self._stack.enter_async_context(Visitor(self.base))

    async def log_in(
        self,
        name: str,
        scopes: Iterable[str] | None = None,
        groups: Iterable[str] = (),
    ) -> Visitor:
        """A browser in which `name` has logged in through the Hub."""
        visitor = await self.stranger()
        self.hub.next_login = self.hub.introduce(name, scopes, groups)
        page: Seen = await visitor.open()
        assert page.status == 200, page.text
        return visitor

    async def admin(self, name: str = "root-admin") -> Visitor:
        return await self.log_in(
            name, [f"custom:gpudev:reserve!user={name}", "custom:gpudev:admin"]
        )


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    # What pages show does not depend on the database; operations are tested on both.
    return f"sqlite:///{tmp_path / 'pages.sqlite'}"


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return make_world(store, tmp_path)


@pytest.fixture
async def site(world: World) -> AsyncIterator[Site]:
    hub = HubDouble()
    sockets = bind_sockets(0, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    auth = NeverWaiting(
        api_url=f"{base}/hub/api",
        api_token="the-services-own-token",
        hub_prefix="/hub/",
        base_url=PREFIX,
        oauth_client_id="service-gpudev",
        oauth_redirect_uri=f"{PREFIX}oauth_callback",
        access_scopes={ACCESS},
        cache_max_age=1,
    )
    await world.ctx.hub.close()
    world.ctx.hub = Users()
    service = web.service(world.ctx, auth, prefix=PREFIX, loops=list)
    app = web.application(service, cookie_secret=b"0" * 32, pages=handlers(service))
    router = RuleRouter(
        [Rule(PathMatches("/(hub|user)/.*"), hub.application()), Rule(PathMatches("/.*"), app)]
    )
    server = HTTPServer(router)
    server.add_sockets(sockets)
    async with AsyncExitStack() as stack:
        yield Site(world, base, hub, stack)
    server.stop()
    await server.close_all_connections()
    await close_login()
    await world.ctx.background.close()
    await world.ctx.hub.close()
