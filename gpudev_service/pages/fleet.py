"""The fleet: what is free when, the nodes, the queue; names only of whom the viewer may see."""

from __future__ import annotations

from pydantic import Field

from gpudev_client import limits, words
from gpudev_client.models import Cluster, GpuType
from gpudev_service.api import capacity as api
from gpudev_service.api import cluster as cluster_api
from gpudev_service.api.route import NoQuery
from gpudev_service.operations import cursors

from . import fleet_views as views
from .base import PageHandler

#: Nodes on one page, and rows of each queue.
_NODES = 60
_QUEUE = 50


class FleetQuery(NoQuery):
    """For which length the starts are computed, and the first node that is shown."""

    hours: float = Field(default=1.0, gt=0, le=limits.HOURS_MAX, allow_inf_nan=False)
    first: int = Field(default=0, ge=0, le=1_000_000)


class FleetPage(PageHandler):
    """Base of pages that show nodes."""

    async def types(self) -> list[GpuType]:
        page = await api.gpu_types(self.call(query=api.TypesQuery(limit=limits.PAGE_MAX)))
        return list(page.items)

    async def cluster(self, first: int, queue: int = 0) -> Cluster:
        """A page of nodes from the one with the number `first` on, and the first of each queue."""
        query = cluster_api.ClusterQuery(limit=_NODES, cursor=cursors.of_number(first), queue=queue)
        return await cluster_api.cluster(self.call(query=query))

    def more_nodes(self, page: str, cluster: Cluster, **given: str) -> str | None:
        """The address of the nodes that follow; None where there are none."""
        if cluster.next_cursor is None:
            return None
        following = cursors.number(cluster.next_cursor)
        return self.addresses.page(page, **given, first=str(following))


class Fleet(FleetPage):
    tab = "fleet"

    async def get(self) -> None:
        query = self.read_query(FleetQuery)
        types = await self.types()
        asked = api.AvailabilityQuery(hours=query.hours, limit=limits.PAGE_MAX)
        offers = await api.availability(self.call(query=asked))
        cluster = await self.cluster(query.first, _QUEUE)
        self.show(
            "fleet.html",
            types=views.type_rows(types, offers.items, cluster.at),
            nodes=views.node_rows(cluster.nodes, types),
            queues=views.queues(cluster.queue, cluster.queue_lengths),
            unseen=None if cluster.fresh else words.unseen(cluster.trouble),
            simulated=cluster.simulated,
            all_simulated=all(node.simulated for node in self.service.ctx.fleet.nodes()),
            hours=query.hours,
            more=self.more_nodes("fleet", cluster, hours=f"{query.hours:g}"),
        )
