"""Seeded fleets and queues for the planner's benchmarks, with every rule that their goals name:
gangs, bookings, priorities, quotas and drains. With `LABELS=1` one in ten asks for labels of nodes,
too.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gpudev_service.planner import Demand, Hold, Node, Quota, Rules

MINUTE = 60_000
HOUR = 60 * MINUTE
TURNOVER = 15_000
NOW = 1_800_000_000_000

#: GPUs of a request on one node, and how often it is asked for.
SIZES = {1: 34, 2: 22, 3: 2, 4: 18, 5: 1, 6: 2, 7: 1, 8: 20}


#: The nodes stand in so many zones, and half of them in each of two buildings.
PARTS = {"zone": 4, "building": 2}
#: Of so many one is for a part of the nodes only, where any is.
NARROW = 10
LABELS = os.environ.get("LABELS") == "1"


@dataclass(frozen=True)
class Queue:
    """What `plan` takes, and the labels of the nodes to which some demands are restricted."""

    nodes: list[Node]
    holds: list[Hold]
    demands: list[Demand]
    rules: Rules
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def parameters(nodes: int) -> str:
    """One line that says what the queues are made of."""
    return (
        f"{nodes} nodes of 8 GPUs, 2% drained, all busy with leases; requests for 1 to 8 GPUs and "
        "5% for 2 to 8 whole nodes, 0.5 to 24 h in steps of 5 min; 2% bookings within 7 days, "
        "2% not before a time within 2 days, 3 priorities, a user per 20 requests, half of the "
        "users with a quota of 24 GPUs at once"
        + ("; one in 10 only for nodes of one of 4 zones or 2 buildings" if LABELS else "")
    )


def queue(waiting: int, nodes: int = 1000, seed: int = 1) -> Queue:
    """`waiting` demands without a promise before a full fleet."""
    rng = random.Random(seed)
    fleet = [Node(f"n{at:05}", "h100", 8, rng.random() >= 0.02) for at in range(nodes)]
    users = [f"user-{at}" for at in range(max(20, waiting // 20))]
    limits = dict.fromkeys(users[::2], 24)
    holds = [hold for node in fleet for hold in _leases(node, users, rng)]
    demands = [_demand(at, users, limits, rng) for at in range(waiting)]
    wanted = _labels(demands, seed) if LABELS else {}
    parts = {
        (key, value): frozenset(
            node.name for at, node in enumerate(fleet) if labels_of(at)[key] == value
        )
        for key, number in PARTS.items()
        for value in map(str, range(number))
    }
    narrowed = {name: parts[label] for name, each in wanted.items() for label in each.items()}
    demands = [replace(each, among=narrowed.get(each.id)) for each in demands]
    return Queue(fleet, holds, demands, Rules(overstay_ms=TURNOVER), wanted)


def labels_of(at: int) -> dict[str, str]:
    """Those of the node of this number."""
    return {key: str(at % number) for key, number in PARTS.items()}


def _labels(demands: list[Demand], seed: int) -> dict[str, dict[str, str]]:
    """The label that some ask for, by the id of the demand; drawn by itself, so that it changes
    nothing else."""
    rng, found = random.Random(f"labels {seed}"), {}
    for demand in demands:
        if rng.randrange(NARROW) == 0:
            key = rng.choice(list(PARTS))
            found[demand.id] = {key: str(rng.randrange(PARTS[key]))}
    return found


def _leases(node: Node, users: list[str], rng: random.Random) -> list[Hold]:
    left, holds = node.units, []
    while left:
        units = min(left, _size(rng))
        left -= units
        until = NOW + rng.randrange(1_000, 24 * HOUR)
        name = f"lease-{node.name}-{left}"
        holds.append(Hold(name, {node.name: units}, until, (rng.choice(users),)))
    return holds


def _demand(at: int, users: list[str], limits: dict[str, int], rng: random.Random) -> Demand:
    user = rng.choice(users)
    nodes, units = 1, _size(rng)
    if rng.random() < 0.05:
        units = 8
        nodes = rng.randint(2, 3 if user in limits else 8)
    duration = rng.randrange(30 * MINUTE, 24 * HOUR + 1, 5 * MINUTE) + TURNOVER
    kind = rng.random()
    booked = NOW + rng.randrange(HOUR, 7 * 24 * HOUR, 5 * MINUTE) if kind < 0.02 else None
    later = NOW + rng.randrange(HOUR, 48 * HOUR, 5 * MINUTE) if 0.02 <= kind < 0.04 else None
    return Demand(
        id=f"d{at:06}",
        pool="h100",
        nodes=nodes,
        units_per_node=units,
        duration_ms=duration,
        priority=rng.choice((0, 0, 0, 0, 10, 20)),
        order=at,
        not_before_ms=later,
        booked_start_ms=booked,
        quotas=(Quota(user, limits[user]),) if user in limits else (),
    )


def _size(rng: random.Random) -> int:
    return rng.choices(list(SIZES), weights=list(SIZES.values()))[0]
