"""The fleet: nodes, what runs where, the queue; drains."""

from __future__ import annotations

from pydantic import Field

from gpudev_client import limits
from gpudev_client.models import Cluster, DrainRequest, NodeView
from gpudev_service.events import Owner
from gpudev_service.operations import capacity, cursors, overview

from .permissions import Right
from .route import Access, Call, NoQuery, PageQuery, Route


class ClusterQuery(PageQuery):
    """Which nodes, and how much of the queue."""

    limit: int = Field(
        default=limits.PAGE_DEFAULT, ge=1, le=limits.PAGE_MAX, description="Most nodes."
    )
    queue: int = Field(
        default=limits.PAGE_DEFAULT,
        ge=0,
        le=limits.PAGE_MAX,
        description="Most of those who wait, of each GPU type; as many of one's own behind them.",
    )


async def cluster(call: Call[ClusterQuery, None]) -> Cluster:
    caller, query = call.caller, call.query

    def visible(owner: Owner) -> bool:
        return caller.grants.may(Right.READ, owner)

    # "Mine" is what the caller's own scopes cover: a server's token is not its owner.
    viewer = caller.name if visible(caller.owner) and caller.kind == "user" else ""
    return await overview.cluster(
        call.ctx,
        viewer,
        visible,
        first=cursors.number(query.cursor) if query.cursor else 0,
        limit=query.limit,
        queue=query.queue,
    )


async def drain(call: Call[NoQuery, DrainRequest]) -> NodeView:
    return await capacity.drain(call.ctx, call.path["node"], call.body.reason, call.actor)


async def undrain(call: Call[NoQuery, None]) -> NodeView:
    return await capacity.undrain(call.ctx, call.path["node"], call.actor)


ROUTES = (
    Route(
        "cluster",
        "GET",
        "/cluster",
        Access.READ,
        cluster,
        "Nodes, page by page, what runs where until when, and the first of those who wait. Whose "
        "it is only where the caller may see it.",
        query=ClusterQuery,
        answer=Cluster,
    ),
    Route(
        "drain_node",
        "PUT",
        "/cluster/nodes/{node}/drain",
        Access.ADMIN,
        drain,
        "Place nothing new on a node; running leases go on to their end.",
        body=DrainRequest,
        answer=NodeView,
    ),
    Route(
        "undrain_node",
        "DELETE",
        "/cluster/nodes/{node}/drain",
        Access.ADMIN,
        undrain,
        "Use a node again.",
        answer=NodeView,
    ),
)
