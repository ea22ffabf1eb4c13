"""A cluster of nodes and pods that a test writes down, seen through the service's own connection
and watches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gpudev_service.fleet import KubernetesFleet
from gpudev_service.kube import Cluster, Timing
from gpudev_service.kube.connection import connect
from gpudev_service.settings import GpuTypeSpec, KubernetesType, NodeSpec, Settings
from gpudev_service.store.engine import Store
from tests.fixtures.world import World, make_world

from .moody import Moody, moody_server, settings_for

QUICK = Timing(window=2, limit=5, pause=0.01, longest_pause=0.05)
H100 = GpuTypeSpec(name="h100", kubernetes=KubernetesType(), max_nodes=4)


class Time:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    moody: Moody
    cluster: Cluster
    fleet: KubernetesFleet
    settings: Settings
    clock: Time
    told: list[None]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.cluster.news()

    def node(self, name: str) -> NodeSpec:
        return next(node for node in self.fleet.nodes() if node.name == name)

    def world(self, store: Store, folder: Path) -> World:
        """A service whose nodes are these."""
        made = make_world(store, folder, types=self.settings.gpu_types, nodes=())
        made.ctx.settings, made.ctx.fleet = self.settings, self.fleet
        return made

    def freeze(self) -> None:
        """From now on nothing of the cluster is heard, and what is known is old."""
        self.moody.become("silent")
        self.clock.now += QUICK.limit + 1


@asynccontextmanager
async def site(
    folder: Path, *things: Mapping[str, object], types: tuple[GpuTypeSpec, ...] = (H100,)
) -> AsyncIterator[Site]:
    async with moody_server(folder) as (moody, kube):
        for thing in things:
            moody.set(dict(thing))
        url = str(kube.configuration.host)
        settings = settings_for(folder, url, {spec.name: spec for spec in types})
        async with connect(settings) as own:
            clock, told = Time(), list[None]()
            cluster = Cluster(own, settings, QUICK, clock)
            fleet = KubernetesFleet(settings, cluster, lambda: told.append(None))
            await cluster.start()
            try:
                yield Site(moody, cluster, fleet, settings, clock, told)
            finally:
                await cluster.close()
