"""Answers from whole states, for callers that keep nothing in memory."""

from __future__ import annotations

from collections.abc import Iterable

from .model import Demand, Extension, Hold, Node, Plan, Reason, Rules, Slot
from .seats import queue_key
from .world import World


def plan(
    nodes: Iterable[Node],
    holds: Iterable[Hold],
    demands: Iterable[Demand],
    rules: Rules,
    now_ms: int,
) -> Plan:
    """A start for every demand; `pool` explains how and why it holds.

    Give each demand the slot of the last plan as its `promise`: without it, it counts as new.
    """
    return World(nodes, holds, demands, rules, now_ms).plan()


def what_if(
    nodes: Iterable[Node],
    holds: Iterable[Hold],
    demands: Iterable[Demand],
    rules: Rules,
    now_ms: int,
    demand: Demand,
) -> Slot | Reason:
    """The slot that `plan` would give `demand` beside the others; nothing is kept."""
    ahead = [
        other
        for other in demands
        if other.promise is not None or queue_key(other) < queue_key(demand)
    ]
    return World(nodes, holds, ahead, rules, now_ms).what_if(demand)


def max_extension(
    nodes: Iterable[Node],
    holds: Iterable[Hold],
    demands: Iterable[Demand],
    rules: Rules,
    now_ms: int,
    hold_id: str,
    wanted_ms: int,
) -> Extension:
    """How much longer, up to `wanted_ms`, a lease may stay so that no promised start moves later.

    Others may be given other nodes, at or before their promised start. Demands without a promise
    are not in the way of anything.
    """
    promised = [demand for demand in demands if demand.promise is not None]
    return World(nodes, holds, promised, rules, now_ms).max_extension(hold_id, wanted_ms)


def extendable_until(
    nodes: Iterable[Node],
    holds: Iterable[Hold],
    demands: Iterable[Demand],
    rules: Rules,
    now_ms: int,
    hold: Hold,
    at_most_ms: int,
) -> int:
    """Until when `hold` may be extended, no further than `at_most_ms` (both with turnover)."""
    wanted = at_most_ms - hold.until_ms
    found = max_extension(nodes, holds, demands, rules, now_ms, hold.id, wanted)
    return hold.until_ms + found.granted_ms


def earliest(
    nodes: Iterable[Node],
    holds: Iterable[Hold],
    demands: Iterable[Demand],
    rules: Rules,
    now_ms: int,
    pool: str,
    shapes: Iterable[tuple[int, int]],
    duration_ms: int,
) -> dict[tuple[int, int], Slot | Reason]:
    """When each shape, (nodes, units per node), could start for `duration_ms` if asked for now."""
    return World(nodes, holds, demands, rules, now_ms).earliest(pool, shapes, duration_ms)
