"""The service's fleet and servers on the test cluster, with a store of its own: everything but the
Hub and HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from gpudev_service.clock import SteadyClock
from gpudev_service.fleet import KubernetesFleet
from gpudev_service.kube import Cluster, Timing
from gpudev_service.kube.cluster import DEFAULT
from gpudev_service.kube.connection import Kube, connect
from gpudev_service.servers import PodServers
from gpudev_service.settings import GpuTypeSpec, KubernetesSettings, KubernetesType, Settings
from gpudev_service.store.engine import Store
from tests.fixtures.world import World, make_world
from tools.cluster import fleet as crowd

from .proxy import Proxy, proxy

#: Nodes that only seem to run pods have a taint of their own.
CROWD = {"key": crowd.TAINT["key"], "operator": "Exists"}


@dataclass
class Service:
    settings: Settings
    view: Cluster
    fleet: KubernetesFleet
    servers: PodServers
    proxy: Proxy
    #: The API server without the proxy between.
    direct: Kube

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.view.news()

    def world(self, store: Store, folder: Path) -> World:
        """The service's operations with this fleet, on a store."""
        made = make_world(store, folder, types=self.settings.gpu_types, nodes=())
        made.ctx.settings = self.settings
        made.ctx.fleet, made.ctx.servers = self.fleet, self.servers
        return made


def group_type(name: str, group: str, *, resource: str = "nvidia.com/gpu") -> GpuTypeSpec:
    """A GPU type whose nodes are those of one group of the crowd."""
    kubernetes = KubernetesType(
        resource=resource, node_selector={crowd.GROUP: group}, tolerations=(CROWD,)
    )
    return GpuTypeSpec(name=name, kubernetes=kubernetes, max_nodes=4)


@asynccontextmanager
async def service(
    kubeconfig: Path,
    folder: Path,
    types: Mapping[str, GpuTypeSpec],
    namespace: str = "default",
    timing: Timing = DEFAULT,
) -> AsyncIterator[Service]:
    """Connected through a proxy that can be broken."""
    upstream = _settings(kubeconfig, folder, types, namespace)
    async with connect(upstream) as direct, proxy(direct) as (between, url):
        path = folder / "through-the-proxy"
        path.write_text(_KUBECONFIG.format(url=url))
        settings = _settings(path, folder, types, namespace)
        async with connect(settings) as kube:
            view = Cluster(kube, settings, timing)
            patience = timedelta(seconds=settings.times.node_patience)
            fleet = KubernetesFleet(settings, view)
            servers = PodServers(view, patience, SteadyClock())
            await view.start()
            try:
                yield Service(settings, view, fleet, servers, between, direct)
            finally:
                await view.close()


_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: it
contexts: [{{name: it, context: {{cluster: it, user: it}}}}]
clusters: [{{name: it, cluster: {{server: "{url}"}}}}]
users: [{{name: it, user: {{}}}}]
"""


def _settings(
    kubeconfig: Path, folder: Path, types: Mapping[str, GpuTypeSpec], namespace: str
) -> Settings:
    return Settings(
        gpu_types=types,
        servers="kubernetes",
        data_dir=folder,
        kubernetes=KubernetesSettings(kubeconfig=kubeconfig, namespace=namespace),
    )
