"""What is kept in memory of a plan, compared with one that is made anew from the rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select

from gpudev_service import planner
from gpudev_service.context import Context
from gpudev_service.operations import facts
from gpudev_service.operations.kept import Kept
from gpudev_service.store.models import PlanCountRow


async def differences(ctx: Context) -> tuple[int, list[str]]:
    """How many kept plans there are that would be used, and in what they differ."""
    memory = ctx.store.memory
    found: list[str] = []
    compared = 0
    async with ctx.store.reading() as session:
        if memory.count != (await session.scalars(select(PlanCountRow.count))).one():
            return 0, []
        for name, known in memory.kept.items():
            if known.settings is not ctx.settings:
                continue
            then = facts.from_ms(known.live.now_ms)
            part = (await facts.world(ctx, session, then, [name])).parts([name])[name]
            compared += 1
            found += _differences(ctx, known, part, memory.stale.get(name, set()), then)
    return compared, found


def _differences(
    ctx: Context, known: Kept, part: facts.World, stale: set[str], then: datetime
) -> list[str]:
    holds = {hold.id: hold for hold in part.holds}
    demands = {demand.id: demand for demand in part.demands}
    found = [
        *_of(known.holds, holds, stale),
        *_of(known.demands, demands, stale),
    ]
    if found or stale:
        return found
    anew = planner.World(
        known.nodes, part.holds, part.demands, facts.rules(ctx), facts.to_ms(then)
    ).plan()
    kept = known.live.plan()
    if anew.slots != kept.slots:
        found.append(f"slots {kept.slots} for {anew.slots}")
    if anew.impossible != kept.impossible:
        found.append(f"without a place {kept.impossible} for {anew.impossible}")
    promised = {key: demand.promise for key, demand in demands.items() if demand.promise}
    if anew.slots != promised:
        found.append(f"slots {anew.slots} are not what was promised")
    return found


def _of(known: dict[str, Any], rows: dict[str, Any], stale: set[str]) -> list[str]:
    return [
        f"{key}: {known.get(key)} is kept for {rows.get(key)}"
        for key in sorted(known.keys() | rows.keys())
        if key not in stale and known.get(key) != rows.get(key)
    ]
