"""What goes into the planner and comes out: plain values, times in milliseconds since the epoch.

Fields that end in `_ms` are moments or spans in whole milliseconds. A pool is the nodes of one GPU
type; pools never share anything, so each is planned by itself. Units are GPUs, or shares of a node
for a type without GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

#: Where a demand stands among those of equal priority: lower comes first. All demands of a pool use
#: the same kind.
Order = int | tuple[int, str]


class Reason(StrEnum):
    """Why something cannot be, or could not stay, as asked; stable codes, not sentences."""

    # The fleet as it is can never hold the demand.
    NO_SUCH_POOL = "no_such_pool"
    TOO_MANY_UNITS = "too_many_units"  # no node of the pool has so many units
    TOO_FEW_NODES = "too_few_nodes"  # nodes have the units, but there are not so many nodes
    DRAINED = "drained"  # it would fit if enough of the drained nodes came back
    ELSEWHERE = "elsewhere"  # it would fit, but only on nodes that it must not be on
    QUOTA_TOO_SMALL = "quota_too_small"  # more at once than its quota will ever allow
    BOOKED_START_TAKEN = "booked_start_taken"  # no room at exactly the booked start

    # A promise that was given could not be kept.
    NODE_GONE = "node_gone"
    NODE_DRAINED = "node_drained"
    NODE_HELD_LONGER = "node_held_longer"  # a lease stays longer than it was to, or units are lost
    QUOTA_LOWERED = "quota_lowered"
    STARTED_LATE = "started_late"  # nobody began the lease when it was due
    QUEUE_PLANNED_AGAIN = "queue_planned_again"  # capacity was lost elsewhere in the pool

    # Why a hold cannot be extended (further).
    PROMISED_TO_OTHERS = "promised_to_others"
    NO_SUCH_HOLD = "no_such_hold"
    OVERSTAYED = "overstayed"  # it has ended; only its units are not free yet


class Quota(NamedTuple):
    """The most units that holds and slots with `key` (a user, a group) may have of one pool at any
    moment, for whoever asks for more."""

    key: str
    most: int


def keys(quotas: Iterable[Quota]) -> tuple[str, ...]:
    """What a lease counts under that was made for a demand with `quotas`."""
    return tuple([quota.key for quota in quotas])


class Slot(NamedTuple):
    """A start and the nodes for it. A start in the past means due: it begins now."""

    start_ms: int
    nodes: tuple[str, ...]
    units_per_node: int


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the fleet. While `available` is false nothing new is placed on it."""

    name: str
    pool: str
    units: int
    available: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """A lease that holds units now: `units` per node name, until `until_ms` (turnover included).

    One that has overstayed (`until_ms` is past) still occupies; see `Rules.overstay_ms`. It counts
    under its `quota_keys`.
    """

    id: str
    units: Mapping[str, int]
    until_ms: int
    quota_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """A reservation that waits: `units_per_node` on each of `nodes` different nodes, all at once.

    `duration_ms` includes the turnover. A booking has `booked_start_ms` and starts exactly then.
    `promise` is the slot that was promised before; None for one that has no promise yet. Lower
    `order` comes first among equal `priority`; higher priority comes first. With `among` it is
    placed on nodes with these names only. Its slot counts under the keys of its `quotas`, and they
    hold for it; whoever has a key has the same `most` for it.
    """

    id: str
    pool: str
    nodes: int
    units_per_node: int
    duration_ms: int
    priority: int
    order: Order
    not_before_ms: int | None = None
    booked_start_ms: int | None = None
    promise: Slot | None = None
    quotas: tuple[Quota, ...] = ()
    among: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.units_per_node < 1 or self.duration_ms < 1:
            raise ValueError(f"demand {self.id!r}: nodes, units and duration are at least 1")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decided.

    `overstay_ms`: a hold past its end counts as occupying for another span of this length, and
    another, until it is released. `late_start_ms`: a promised start that is carried out late by no
    more than this keeps its promised end, so that nobody behind it is touched; the lease ends at
    `Slot.start_ms` plus its duration.
    """

    overstay_ms: int = 60_000
    late_start_ms: int = 60_000

    def __post_init__(self) -> None:
        if self.overstay_ms < 1 or self.late_start_ms < 0:
            raise ValueError("overstay_ms is at least 1 and late_start_ms at least 0")


@dataclass(frozen=True, slots=True)
class Plan:
    """A start for everyone, and what is in the way of the rest.

    `slots`: by demand id. `start_now`: whose start is due, by start and then queue order.
    `position`: 1 for the next one to start, per pool, of those who do not start now. `impossible`
    demands have no slot. `moved_later`: whose promise could not be kept, with the cause; they have
    the earliest slot that could be found instead.
    """

    slots: dict[str, Slot]
    position: dict[str, int]
    start_now: tuple[str, ...]
    impossible: dict[str, Reason]
    moved_later: dict[str, Reason]


@dataclass(frozen=True, slots=True)
class Extension:
    """How much longer a hold may stay without moving a promised start.

    `reason` is None if all that was wanted is granted; else `blocked_by` is the demand in the way
    of more, if it is one.
    """

    granted_ms: int
    blocked_by: str | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What an event changed.

    `slots`: the new slots of those that have another one than before. `moved_later`: whose promise
    could not be kept, with the cause. `impossible`: who has no slot (any more), with the cause.
    """

    slots: dict[str, Slot]
    moved_later: dict[str, Reason]
    impossible: dict[str, Reason]
