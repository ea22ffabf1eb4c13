"""The service as a running whole: put together, bound, started, and ended in order."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
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
from .disks.base import DiskBackend
from .disks.directories import DirectoryDisks
from .fleet import Fleet, KubernetesFleet, NvmlFleet, StaticFleet
from .hub import Hub
from .kube import Cluster, NoCredentials, watched
from .loops import Runner
from .operations import status
from .operations.listings import volume_disks
from .pages import routes as page_routes
from .servers import LocalServers, PodServers
from .settings import Settings
from .store import migrate
from .store.engine import Store
from .wake import Wake

if TYPE_CHECKING:
    from .kube.connection import Kube

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


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a context is put together from."""

    store: Store
    disks: DiskBackend
    cluster: Cluster | None


def _disks(kind: str, settings: Settings, store: Store, kube: Kube | None) -> DiskBackend:
    if kind == "volumes" and kube is not None:
        return volume_disks(kube, settings, store)
    return DirectoryDisks(settings.data_dir / "disks")


@asynccontextmanager
async def context(
    settings: Settings, kinds: Kinds, db_url: str, hub: HubAccess
) -> AsyncIterator[Context]:
    """The parts of the service on a migrated database; closed at the end of the block."""
    async with AsyncExitStack() as stack:
        kube = cluster = None
        if {"kubernetes", "volumes"} & {kinds.fleet, kinds.servers, kinds.disks}:
            try:
                # Its libraries are an extra, and take half a second to load.
                from .kube.connection import connect
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    f"GpuDev.fleet: Kubernetes needs {error.name}; install gpudev[kubernetes]"
                ) from None
            try:
                kube = await stack.enter_async_context(connect(settings))
            except NoCredentials as error:
                raise ConfigurationError(f"GpuDev.kubeconfig: {error}") from None
            cluster = await stack.enter_async_context(watched(kube, settings))
        store = Store(db_url)
        stack.push_async_callback(store.close)
        disks = _disks(kinds.disks, settings, store, kube)
        stack.push_async_callback(asyncio.to_thread, disks.close)
        parts = _Parts(store, disks, cluster)
        yield await stack.enter_async_context(_context(settings, kinds, hub, parts))


@asynccontextmanager
async def _context(
    settings: Settings, kinds: Kinds, hub: HubAccess, parts: _Parts
) -> AsyncIterator[Context]:
    cluster, wake = parts.cluster, Wake()
    hub_client = Hub(hub.api_url, hub.token, patience=settings.times.hub_patience)
    try:
        revision = await migrate.upgrade(parts.store)
        log.info("database at revision %s", revision)
        yield Context(
            settings=settings,
            store=parts.store,
            clock=SteadyClock(),
            fleet=_fleet(kinds.fleet, settings, cluster, wake),
            disks=parts.disks,
            servers=PodServers(cluster) if cluster and _are_pods(kinds) else LocalServers(),
            hub=hub_client,
            wake=wake,
        )
    finally:
        await hub_client.close()


async def serve(ctx: Context, options: GpuDevWeb, hub_auth: HubOAuth, prefix: str) -> None:
    """Serves until SIGTERM or SIGINT. Binds before the loops begin: a second service that cannot
    bind must not act."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = Runner(ctx, behind=await status.clock_behind(ctx))
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
