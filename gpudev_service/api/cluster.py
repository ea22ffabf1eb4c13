"""The fleet: nodes, what runs where, the queue; drains."""

from __future__ import annotations

from gpudev_client.models import Cluster, DrainRequest, NodeView
from gpudev_service.events import Owner
from gpudev_service.operations import capacity

from .permissions import Right
from .route import Access, Call, NoQuery, Route


async def cluster(call: Call[NoQuery, None]) -> Cluster:
    caller = call.caller

    def visible(owner: Owner) -> bool:
        return caller.grants.may(Right.READ, owner)

    # "Mine" is what the caller's own scopes cover: a server's token is not its owner.
    viewer = caller.name if visible(caller.owner) and caller.kind == "user" else ""
    return await capacity.cluster(call.ctx, viewer, visible)


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
        "Nodes, what runs where until when, and the queue. Whose it is only where the caller "
        "may see it.",
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
