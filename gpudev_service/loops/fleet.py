"""Plans anew what the fleet's own changes concern: nodes that come, go, are closed or opened, GPUs
that break or that others use. Asks for nodes that were promised and are still to be added. Does
nothing while the fleet cannot be seen."""

from __future__ import annotations

import logging
from datetime import datetime

from gpudev_service.context import Context
from gpudev_service.fleet import FleetAway
from gpudev_service.operations import planning

log = logging.getLogger(__name__)


async def run(ctx: Context) -> datetime | None:
    """Plans the GPU types whose capacity has changed since they were last planned."""
    with ctx.fleet.changes() as types:
        if types:
            await planning.plan_again(ctx, sorted(types))
    if ctx.fleet.view().fresh and _can_grow(ctx):
        async with ctx.store.reading() as session:
            wanted = await planning.wanted_nodes(ctx, session, ctx.clock.now())
        try:
            await ctx.fleet.ask_for(wanted)
        except FleetAway as away:
            log.warning("nodes could not be asked for: %s", away)
    return None


def _can_grow(ctx: Context) -> bool:
    kinds = (spec.kubernetes for spec in ctx.fleet.types().values())
    return any(kind is not None and kind.scale_up is not None for kind in kinds)
