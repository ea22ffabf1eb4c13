"""The service as a running whole: put together, bound, started, and ended in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerConnectionDelegate
from tornado.netutil import bind_sockets
from tornado.web import Application

from gpudev_client.models import LoopHealth

from .api import routes as api_routes
from .api import web
from .api.service import Service
from .clock import SteadyClock
from .config import ConfigurationError, GpuDevWeb
from .context import Context
from .disks.base import DiskBackend
from .disks.directories import DirectoryDisks
from .fleet import Fleet, KubernetesFleet, NvmlFleet, StaticFleet
from .hub import Hub
from .keeper import AGAIN
from .kube import Cluster, NoCredentials, watched
from .leading import Leading, lead_of
from .loops import Runner
from .operations import doubts, status
from .operations.listings import volume_disks
from .other_clocks import OtherClocks
from .pages import routes as page_routes
from .servers import LocalServers, PodServers, SharedFolders
from .settings import Settings
from .standby import Standby, Switch
from .store import address, migrate
from .store.engine import Store
from .store.lead import Lead
from .wake import Wake

if TYPE_CHECKING:
    from .kube.connection import Kube

log = logging.getLogger(__name__)

#: Seconds that requests under way get to end when the service ends.
GRACE = 3.0
#: Seconds to wait for the port: the service before may be just letting it go.
PORT_PATIENCE = 10.0
#: So many new objects more than are gone let the garbage collector look at the young ones.
_COLLECTED_AFTER = 5_000


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
    hub: Hub
    other_clocks: OtherClocks


def _disks(kind: str, settings: Settings, store: Store, kube: Kube | None) -> DiskBackend:
    if kind == "volumes" and kube is not None:
        return volume_disks(kube, settings, store)
    return DirectoryDisks(settings.data_dir / "disks")


@asynccontextmanager
async def context(
    settings: Settings, kinds: Kinds, db_url: str, hub: HubAccess, lead: Lead | None = None
) -> AsyncIterator[Context]:
    """The parts of the service on a migrated database; closed at the end of the block.

    With a `lead` they change nothing, in the database or outside, while it belongs to others."""
    may_act = _always if lead is None else lead.acts
    # Whoever answers anyway says what the time is there, from the first answer on.
    clocks = OtherClocks()
    if lead is not None:
        lead.hears = partial(clocks.heard, "the database's")
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
                kube = await stack.enter_async_context(connect(settings, may_act))
            except NoCredentials as error:
                raise ConfigurationError(f"GpuDev.kubeconfig: {error}") from None
            kube.hears = partial(clocks.heard_date, "the API server's")
            cluster = await stack.enter_async_context(watched(kube, settings))
        store = Store(db_url)
        store.fence = lead
        stack.push_async_callback(store.close)
        disks = _disks(kinds.disks, settings, store, kube)
        stack.push_async_callback(asyncio.to_thread, disks.close)
        hub_client = Hub(hub.api_url, hub.token, settings.times.hub_patience, may_act)
        hub_client.hears = partial(clocks.heard_date, "the Hub's")
        stack.push_async_callback(hub_client.close)
        parts = _Parts(store, disks, cluster, hub_client, clocks)
        revision = await migrate.upgrade(store)
        log.info("database at revision %s", revision)
        yield _context(settings, kinds, parts)


def _context(settings: Settings, kinds: Kinds, parts: _Parts) -> Context:
    cluster, wake, clock = parts.cluster, Wake(), SteadyClock()
    pods = cluster if _are_pods(kinds) else None
    patience = timedelta(seconds=settings.times.node_patience)
    return Context(
        settings=settings,
        store=parts.store,
        clock=clock,
        fleet=_fleet(kinds.fleet, settings, cluster, wake),
        disks=parts.disks,
        servers=PodServers(pods, patience, clock) if pods else LocalServers(),
        hub=parts.hub,
        other_clocks=parts.other_clocks,
        shared=_shared(settings, pods) if pods else None,
        wake=wake,
    )


def _shared(settings: Settings, cluster: Cluster) -> SharedFolders | None:
    options = settings.kubernetes
    if options.shared_storage_class is None:
        return None
    return SharedFolders(
        cluster.kube, options.namespace, options.shared_storage_class, options.disk_size_gb
    )


def _always() -> bool:
    return True


@asynccontextmanager
async def candidacy(db_url: str, options: GpuDevWeb) -> AsyncIterator[Lead | None]:
    """This replica's part in who leads, given back at the end of the block; None on SQLite, which
    one service at a time uses.

    Raises:
        ConfigurationError: there are to be other replicas, and the database is SQLite.
    """
    url = address.parse(db_url)
    if address.is_sqlite(url):
        if options.replica_url != options.bind_url:
            raise ConfigurationError(
                "GpuDevWeb.replica_url: replicas of the service share a PostgreSQL database, and "
                "GpuDev.db_url is SQLite. Accepted there: postgresql://USER:PASSWORD@HOST/NAME."
            )
        yield None
        return
    lead = lead_of(url, options.replica_url, options.lead_seconds)
    try:
        yield lead
    finally:
        await lead.close()


async def serve(
    ctx: Context,
    options: GpuDevWeb,
    hub_auth: HubOAuth,
    prefix: str,
    lead: Lead | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; where there may be several replicas, stands by before that
    until it has the `lead`. Binds before the loops begin: a second service that cannot bind must
    not act."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = Runner(ctx)
    leading = None if lead is None else Leading(lead, _begin_again)

    def health() -> list[LoopHealth]:
        return [*runner.health(), *([leading.health(ctx.clock)] if leading else [])]

    shared = web.service(
        ctx,
        hub_auth,
        prefix=prefix,
        loops=health,
        leads=lambda: leading is None or leading.leads,
        anonymous=(options.anonymous_rate, options.anonymous_burst),
        metrics_public=not options.authenticate_metrics,
        login_days=options.login_days,
    )
    application = _application(ctx, shared)
    async with AsyncExitStack() as stack:
        standby = None
        handler: HTTPServerConnectionDelegate = application
        if leading is not None:
            standby = await stack.enter_async_context(_passing_on(leading, stop))
            handler = Switch(application, standby, api_routes.of_this_replica(prefix))
        server = await _bind(handler, options, prefix)
        leave_alone_what_stays()
        if leading is not None:
            stack.enter_context(_running(leading.run(), stop))
        # The lead is kept until nothing runs any more.
        stack.push_async_callback(_end, server, shared, runner, standby)
        if leading is not None:
            await _first(stop.wait(), leading.begun.wait())
            # Whoever takes the lead reads the time of day, as at a start.
            ctx.clock = SteadyClock()
        if not stop.is_set():
            behind = await status.clock_behind(ctx)
            await doubts.look_back(ctx)
            runner.start(behind=behind)
        await stop.wait()
        log.info("ending")


def leave_alone_what_stays() -> None:
    """Takes what has been loaded by now out of the garbage collector's sight, and lets it look less
    often: each of its looks at everything holds up all who are served. See
    `docs/decisions/0024-the-collector-leaves-alone-what-stays.md`."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER, *gc.get_threshold()[1:])


async def _end(
    server: HTTPServer, shared: Service, runner: Runner, standby: Standby | None
) -> None:
    server.stop()
    shared.end_streams()
    await shared.idle(GRACE)
    if standby is not None:
        await standby.idle(GRACE)
    await runner.close()
    await server.close_all_connections()


@asynccontextmanager
async def _passing_on(leading: Leading, stop: asyncio.Event) -> AsyncIterator[Standby]:
    standby = Standby(leading)
    try:
        with _running(standby.watch(), stop):
            yield standby
    finally:
        await standby.close()


@contextmanager
def _running(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> Iterator[None]:
    """Runs beside the block what the service cannot do without: should it fail, all ends."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the service cannot go on", exc_info=error)
            stop.set()

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()


async def _first(*work: Coroutine[Any, Any, Any]) -> None:
    """Waits for the first of them."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _begin_again() -> None:
    """Ends this process at once: nothing that it still has in hand may be done any more. Its
    keeper starts it again."""
    os._exit(AGAIN)


def _application(ctx: Context, shared: Service) -> Application:
    return web.application(
        shared,
        cookie_secret=web.cookie_secret(ctx.settings.data_dir),
        pages=page_routes.handlers(shared),
    )


async def _bind(
    handler: HTTPServerConnectionDelegate, options: GpuDevWeb, prefix: str
) -> HTTPServer:
    place = urlsplit(options.bind_url)
    if not place.hostname or not place.port:
        raise ConfigurationError(
            f"GpuDevWeb.bind_url: {options.bind_url!r} needs a host and a port, like "
            "http://127.0.0.1:10101."
        )
    server = HTTPServer(
        handler,
        xheaders=True,
        trusted_downstream=list(options.trusted_proxies),
        body_timeout=30,
        idle_connection_timeout=120,
    )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PORT_PATIENCE
    while True:
        try:
            sockets = bind_sockets(place.port, place.hostname)
            break
        except OSError as error:
            if loop.time() > deadline:
                raise ConfigurationError(
                    f"GpuDevWeb.bind_url: cannot listen at {options.bind_url}: {error.strerror}."
                ) from None
            await asyncio.sleep(0.2)
    server.add_sockets(sockets)
    log.info("listening at %s, at the Hub as %s", options.bind_url, prefix)
    return server


def _fleet(name: str, settings: Settings, cluster: Cluster | None, wake: Wake) -> Fleet:
    if name == "kubernetes" and cluster is not None:
        return KubernetesFleet(settings, cluster, wake.set)
    return NvmlFleet(settings) if name == "nvml" else StaticFleet(settings)


def _are_pods(kinds: Kinds) -> bool:
    return kinds.servers == "kubernetes"
