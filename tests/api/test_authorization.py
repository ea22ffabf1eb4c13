"""Every route as every role: who may, who may not, and that a refusal tells nothing (R10)."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from gpudev_hub_config import roles as hub_roles
from gpudev_hub_config.secrets import secret
from gpudev_service.api import web
from gpudev_service.api.route import Access, Route
from gpudev_service.api.routes import ROUTES
from gpudev_service.clock import SteadyClock
from gpudev_service.hub import Hub
from gpudev_service.store.engine import Store
from tests.fixtures.hub import RunningHub
from tests.fixtures.world import make_world

from .matrix import OWNERS, Matrix, leaks
from .rules import ROLES

pytestmark = pytest.mark.hub


@pytest.mark.slow
async def test_every_route_as_every_role(
    running_hub: RunningHub, capsys: pytest.CaptureFixture[str]
) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        matrix = Matrix(running_hub, running_hub.service, http)
        await matrix.prepare()
        matrix.share()
        cells = await matrix.run(ROUTES)
        await _tidy(matrix)
    wrong = [str(cell) for cell in cells if not cell.right]
    with capsys.disabled():
        print(f"\nR10 cells={len(cells)} wrong={len(wrong)} leaks={len(leaks(cells))}")  # noqa: T201
    assert len(cells) == len(ROUTES) * len(ROLES) * len(OWNERS)
    assert wrong == []
    assert leaks(cells) == []


async def _tidy(matrix: Matrix) -> None:
    for path in ("/gpu-types/t4-small/maintenance", "/cluster/nodes/cpu-1/drain"):
        await matrix.call("DELETE", path, matrix.tokens["admin"])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("name", "access"),
    [
        ("cancel_reservation", Access.READ),
        ("show_reservation", Access.PUBLIC),
        ("reservation_history", Access.READ),
        ("report_server", Access.RESERVATION_WRITE),
        ("drain_node", Access.READ),
        ("rename_disk", Access.DISK_READ),
        ("me", Access.PUBLIC),
    ],
)
async def test_a_route_that_is_open_too_wide_is_found(
    name: str, access: Access, running_hub: RunningHub, store: Store, tmp_path: Path
) -> None:
    """The planted hole: the same cells at a service of which one route's access is loosened."""
    loosened = next(route for route in ROUTES if route.name == name)
    loosened = dataclasses.replace(loosened, access=access)
    routes = tuple(loosened if route.name == name else route for route in ROUTES)
    async with (
        _service(running_hub, store, tmp_path, routes) as base,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        matrix = Matrix(running_hub, base, http)
        await matrix.prepare()
        cells = await matrix.run([loosened])
    assert [str(cell) for cell in cells if not cell.right]


@asynccontextmanager
async def _service(
    hub: RunningHub, store: Store, folder: Path, routes: tuple[Route, ...]
) -> AsyncIterator[str]:
    """A service in this process, with other routes, that asks the same Hub."""
    token = secret(hub.home / "secrets", "service_token")
    hub_api = f"{hub.ports.url(hub.ports.hub)}/hub/api"
    auth = HubOAuth(
        api_url=hub_api,
        api_token=token,
        base_url="/services/gpudev/",
        oauth_client_id="service-gpudev",
        access_scopes={hub_roles.ACCESS},
        cache_max_age=1,
    )
    ctx = make_world(store, folder).ctx
    await ctx.hub.close()
    ctx.hub, ctx.clock = Hub(hub_api, token), SteadyClock()
    shared = web.service(
        ctx,
        auth,
        prefix="/services/gpudev/",
        loops=list,
        routes=routes,
        anonymous=(10_000, 10_000),
    )
    application = web.application(shared, cookie_secret=b"s" * 32, routes=routes)
    server = HTTPServer(application, xheaders=True)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}/services/gpudev"
    finally:
        server.stop()
        shared.end_streams()
        await shared.idle(5)
        await server.close_all_connections()
        await ctx.background.close()
        await ctx.hub.close()
