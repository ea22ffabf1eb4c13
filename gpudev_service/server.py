"""The service as a running whole: put together, bound, started, and ended in order."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from .api import web
from .api.service import Service
from .clock import SteadyClock
from .config import ConfigurationError, GpuDevWeb
from .context import Context
from .disks.directories import DirectoryDisks
from .fleet import Fleet, KubernetesFleet, NvmlFleet, StaticFleet
from .hub import Hub
from .kube import Cluster, NoCredentials, connect, watched
from .loops import Runner
from .pages import routes as page_routes
from .servers import LocalServers, PodServers
from .settings import Settings
from .store import migrate
from .store.engine import Store
from .wake import Wake

log = logging.getLogger(__name__)

#: Seconds that requests under way get to end when the service ends.
GRACE = 3.0
#: Seconds to wait for the port: the service before may be just letting it go.
PORT_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class HubAccess:
    """How the Hub is reached: its API's address, the service's own token, and the path where the
    Hub's proxy has the service."""

    api_url: str
    token: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which of its implementations each seam has."""

    fleet: str
    servers: str
    disks: str


@asynccontextmanager
async def context(
    settings: Settings, kinds: Kinds, db_url: str, hub: HubAccess
) -> AsyncIterator[Context]:
    """The parts of the service on a migrated database; closed at the end of the block."""
    async with AsyncExitStack() as stack:
        cluster = None
        if "kubernetes" in {kinds.fleet, kinds.servers}:
            try:
                kube = await stack.enter_async_context(connect(settings))
            except NoCredentials as error:
                raise ConfigurationError(f"GpuDev.kubeconfig: {error}") from None
            cluster = await stack.enter_async_context(watched(kube, settings))
        wake = Wake()
        yield await stack.enter_async_context(_context(settings, kinds, db_url, hub, cluster, wake))


@asynccontextmanager
async def _context(
    settings: Settings,
    kinds: Kinds,
    db_url: str,
    hub: HubAccess,
    cluster: Cluster | None,
    wake: Wake,
) -> AsyncIterator[Context]:
    store = Store(db_url)
    disks = DirectoryDisks(settings.data_dir / "disks")
    hub_client = Hub(hub.api_url, hub.token, patience=settings.times.hub_patience)
    try:
        revision = await migrate.upgrade(store)
        log.info("database at revision %s", revision)
        yield Context(
            settings=settings,
            store=store,
            clock=SteadyClock(),
            fleet=_fleet(kinds.fleet, settings, cluster, wake),
            disks=disks,
            servers=PodServers(cluster) if cluster and _are_pods(kinds) else LocalServers(),
            hub=hub_client,
            wake=wake,
        )
    finally:
        await hub_client.close()
        await store.close()
        await asyncio.to_thread(disks.close)


async def serve(ctx: Context, options: GpuDevWeb, hub_auth: HubOAuth, prefix: str) -> None:
    """Serves until SIGTERM or SIGINT. Binds before the loops begin: a second service that cannot
    bind must not act."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = Runner(ctx)
    shared = web.service(
        ctx,
        hub_auth,
        prefix=prefix,
        loops=runner.health,
        anonymous=(options.anonymous_rate, options.anonymous_burst),
        metrics_public=not options.authenticate_metrics,
        login_days=options.login_days,
    )
    server = await _bind(_application(ctx, shared), options)
    runner.start()
    try:
        await stop.wait()
        log.info("ending")
    finally:
        server.stop()
        shared.end_streams()
        await shared.idle(GRACE)
        await runner.close()
        await server.close_all_connections()


def _application(ctx: Context, shared: Service) -> Application:
    return web.application(
        shared,
        cookie_secret=web.cookie_secret(ctx.settings.data_dir),
        pages=page_routes.handlers(shared),
    )


async def _bind(application: Application, options: GpuDevWeb) -> HTTPServer:
    address = urlsplit(options.bind_url)
    if not address.hostname or not address.port:
        raise ConfigurationError(
            f"GpuDevWeb.bind_url: {options.bind_url!r} needs a host and a port, like "
            "http://127.0.0.1:10101."
        )
    server = HTTPServer(
        application,
        xheaders=True,
        trusted_downstream=list(options.trusted_proxies),
        body_timeout=30,
        idle_connection_timeout=120,
    )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PORT_PATIENCE
    while True:
        try:
            sockets = bind_sockets(address.port, address.hostname)
            break
        except OSError as error:
            if loop.time() > deadline:
                raise ConfigurationError(
                    f"GpuDevWeb.bind_url: cannot listen at {options.bind_url}: {error.strerror}."
                ) from None
            await asyncio.sleep(0.2)
    server.add_sockets(sockets)
    log.info("listening at %s, at the Hub as %s", options.bind_url, application.settings["prefix"])
    return server


def _fleet(name: str, settings: Settings, cluster: Cluster | None, wake: Wake) -> Fleet:
    if name == "kubernetes" and cluster is not None:
        return KubernetesFleet(settings, cluster, wake.set)
    return NvmlFleet(settings) if name == "nvml" else StaticFleet(settings)


def _are_pods(kinds: Kinds) -> bool:
    return kinds.servers == "kubernetes"
