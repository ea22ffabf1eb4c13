"""A service in the tests' own process that asks a real Hub who calls.

Tests can look inside (`ctx`, `shared`), give it other routes, and end it at any point, which they
could not with the service that the Hub manages.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from gpudev_hub_config import roles
from gpudev_hub_config.secrets import secret
from gpudev_service.api import web
from gpudev_service.api.route import Route
from gpudev_service.api.routes import ROUTES
from gpudev_service.api.service import Service
from gpudev_service.clock import SteadyClock
from gpudev_service.context import Context
from gpudev_service.hub import Hub
from gpudev_service.pages import routes as pages
from gpudev_service.settings import Policy
from gpudev_service.store.engine import Store
from tests.fixtures.hub import RunningHub
from tests.fixtures.logins import close_login
from tests.fixtures.world import make_world

PREFIX = "/services/gpudev/"


@dataclass
class Site:
    """A running service. `base` is its address without a slash at the end."""

    base: str
    ctx: Context
    shared: Service
    http: httpx.AsyncClient

    async def call(
        self,
        method: str,
        path: str,
        token: str | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """A call of the API; `path` begins below `/api/v1`."""
        own = {} if token is None else {"Authorization": f"token {token}"}
        return await self.http.request(
            method,
            f"{self.base}/api/v1{path}",
            json=json,
            content=content,
            headers={**own, **(headers or {})},
        )

    @asynccontextmanager
    async def stream(
        self, path: str, token: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Reader]:
        """An open event stream."""
        own = {"Authorization": f"token {token}", **(headers or {})}
        url = f"{self.base}/api/v1{path}"
        async with self.http.stream("GET", url, headers=own) as answer:
            yield Reader(answer)


class Reader:
    """Reads an event stream message by message."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def message(self) -> dict[str, Any]:
        """The next message: its id and its data; comments are passed over."""
        found: dict[str, Any] = {}
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "id":
                found["id"] = int(value)
            elif name == "data":
                found["data"] = json.loads(value)
            elif not line and "data" in found:
                return found
        raise EOFError("the stream has ended")

    async def comment(self) -> str:
        """The next comment."""
        async for line in self._lines:
            if line.startswith(":"):
                return line.removeprefix(":").strip()
        raise EOFError("the stream has ended")

    async def end(self) -> None:
        """Returns when the service ends the stream."""
        async for _ in self._lines:
            pass


@asynccontextmanager
async def running(
    hub: RunningHub,
    store: Store,
    folder: Path,
    *,
    routes: Iterable[Route] = ROUTES,
    anonymous: tuple[float, float] = (10_000, 10_000),
    hub_url: str | None = None,
    policy: Policy | None = None,
    **spans: float,
) -> AsyncIterator[Site]:
    """A service on `store`, at a free port, until the end of the block. `spans` replace those of
    `Service`, in seconds."""
    token = secret(hub.home / "secrets", "service_token")
    hub_api = hub_url or f"{hub.ports.url(hub.ports.hub)}/hub/api"
    auth = HubOAuth(
        api_url=hub_api,
        api_token=token,
        base_url=PREFIX,
        oauth_client_id="service-gpudev",
        access_scopes={roles.ACCESS},
        cache_max_age=1,
    )
    ctx = make_world(store, folder, policy=policy).ctx
    await ctx.hub.close()
    ctx.hub, ctx.clock = Hub(hub_api, token), SteadyClock()
    table = tuple(routes)
    shared = web.service(ctx, auth, prefix=PREFIX, loops=list, routes=table, anonymous=anonymous)
    for name, seconds in spans.items():
        setattr(shared, name, seconds)
    application = web.application(
        shared, cookie_secret=b"s" * 32, routes=table, pages=pages.handlers(shared)
    )
    server = HTTPServer(application, xheaders=True)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}{PREFIX.rstrip('/')}"
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        try:
            yield Site(address, ctx, shared, http)
        finally:
            server.stop()
            shared.end_streams()
            await shared.idle(5)
            await server.close_all_connections()
            await close_login()
            await ctx.background.close()
            await ctx.hub.close()
