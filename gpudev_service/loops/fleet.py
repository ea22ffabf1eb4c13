"""Plans anew what the fleet's own changes concern: nodes that come, go, are closed or opened, GPUs
that break or that others use. Does nothing while the fleet cannot be seen."""

from __future__ import annotations

from datetime import datetime

from gpudev_service.context import Context
from gpudev_service.operations import planning, views


async def run(ctx: Context) -> datetime | None:
    """Plans the GPU types whose capacity has changed since they were last planned."""
    with ctx.fleet.changes() as types:
        if types:
            outcome = await ctx.store.run(
                lambda session: planning.replan(ctx, session, ctx.clock.now(), sorted(types))
            )
            await views.publish(ctx, outcome.entries)
    return None
