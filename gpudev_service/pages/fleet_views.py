"""What pages say about the fleet: types, nodes, queue; pure functions of the API's models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpudev_client import words
from gpudev_client.models import (
    Availability,
    EarliestStart,
    GpuType,
    NodeView,
    QueueEntry,
    UnitUse,
)

from .cards import ranges

#: A start that is this near is "now": the plan was made a moment ago.
_NOW = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Start:
    """The earliest start for some counts of GPUs: now, at a time, or never with the reason."""

    counts: str
    now: bool
    at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One GPU type: what is free, who waits, when how many could start."""

    name: str
    label: str
    description: str
    free: str
    waiting: str
    starts: tuple[Start, ...]
    maintenance: str | None
    simulated: bool


def type_rows(
    types: Iterable[GpuType], offers: Iterable[Availability], now: datetime
) -> list[TypeRow]:
    """The types in their order, each with what it offers now."""
    by_name = {offer.gpu_type: offer for offer in offers}
    return [_type_row(t, by_name[t.name], now) for t in types if t.name in by_name]


def _type_row(gpu_type: GpuType, offer: Availability, now: datetime) -> TypeRow:
    noun = unit(gpu_type.gpus_per_node)
    free = f"{offer.free} of {words.counted(offer.total, noun)} free"
    if offer.drained:
        free += f", {offer.drained} drained"
    return TypeRow(
        name=gpu_type.name,
        label=gpu_type.label,
        description=gpu_type.description,
        free=free,
        waiting=words.counted(offer.queue_length, "reservation") + " waiting",
        starts=starts(offer.earliest, now, noun),
        maintenance=offer.maintenance,
        simulated=offer.simulated,
    )


def starts(earliest: Sequence[EarliestStart], now: datetime, noun: str) -> tuple[Start, ...]:
    """Counts that could start at the same time are drawn together."""
    grouped: list[tuple[list[int], Start]] = []
    for one in earliest:
        soon = one.starts_at is not None and one.starts_at <= now + _NOW
        start = Start("", soon, None if soon else one.starts_at, one.reason)
        if grouped and grouped[-1][1] == start:
            grouped[-1][0].append(one.gpus)
        else:
            grouped.append(([one.gpus], start))
    return tuple(
        Start(_counts(counts, noun), start.now, start.at, start.reason) for counts, start in grouped
    )


def _counts(counts: list[int], noun: str) -> str:
    if counts == [0]:
        return f"1 {noun}"
    return f"{ranges(counts)} {noun if counts == [1] else noun + 's'}"


def unit(gpus_per_node: int) -> str:
    """What a node is divided into."""
    return "GPU" if gpus_per_node else "share"


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """GPUs (or shares) of a node that have one and the same fate. `kind` is "free", "held",
    "mine" or "drained"."""

    units: str
    number: int
    kind: str
    until: datetime | None = None
    reservation: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node with its GPUs in groups."""

    name: str
    gpu_type: str
    free: str
    drained: bool
    reason: str | None
    simulated: bool
    groups: tuple[UnitGroup, ...]


def node_rows(nodes: Iterable[NodeView], types: Iterable[GpuType]) -> list[NodeRow]:
    """The nodes in their order."""
    gpus = {gpu_type.name: gpu_type.gpus_per_node for gpu_type in types}
    return [_node_row(node, unit(gpus.get(node.gpu_type, 1))) for node in nodes]


def _node_row(node: NodeView, noun: str) -> NodeRow:
    free = f"{node.free} of {words.counted(node.units, noun)} free"
    return NodeRow(
        name=node.name,
        gpu_type=node.gpu_type,
        free="drained" if node.drained else free,
        drained=node.drained,
        reason=node.reason,
        simulated=node.simulated,
        groups=_groups(node, noun),
    )


def _groups(node: NodeView, noun: str) -> tuple[UnitGroup, ...]:
    held = {use.unit: use for use in node.held}
    found: list[tuple[list[int], UnitGroup]] = []
    # What is held may have a number beyond those that can be had: some have gone since.
    for number in sorted({*range(node.units), *held}):
        group = _fate(held.get(number), drained=node.drained)
        if found and found[-1][1] == group:
            found[-1][0].append(number)
        else:
            found.append(([number], group))
    return tuple(
        UnitGroup(
            units=f"{noun if len(numbers) == 1 else noun + 's'} {ranges(numbers)}",
            number=len(numbers),
            kind=group.kind,
            until=group.until,
            reservation=group.reservation,
            user=group.user,
        )
        for numbers, group in found
    )


def _fate(use: UnitUse | None, *, drained: bool) -> UnitGroup:
    if use is None:
        return UnitGroup("", 0, "drained" if drained else "free")
    return UnitGroup("", 0, "mine" if use.mine else "held", use.until, use.reservation, use.user)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One who waits; `who` is "you", a name that the viewer may see, or "somebody"."""

    position: int
    what: str
    hours: str
    promised: datetime | None
    who: str
    mine: bool
    reservation: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Queue:
    """Those who wait for one type; `more` are not shown."""

    gpu_type: str
    rows: tuple[QueueRow, ...]
    more: int


def queues(entries: Iterable[QueueEntry], lengths: Mapping[str, int]) -> list[Queue]:
    """The queue of each type that has one, as much as is shown of the `lengths` by type."""
    by_type: dict[str, list[QueueEntry]] = {}
    for entry in entries:
        by_type.setdefault(entry.gpu_type, []).append(entry)
    found = []
    for gpu_type, waiting in by_type.items():
        rows = tuple(_queue_row(entry) for entry in waiting)
        found.append(Queue(gpu_type, rows, lengths[gpu_type] - len(rows)))
    return found


def _queue_row(entry: QueueEntry) -> QueueRow:
    return QueueRow(
        position=entry.position,
        what=words.gpus(entry.gpus, entry.gpu_type),
        hours=words.hours(entry.hours),
        promised=entry.promised_start,
        who="you" if entry.mine else entry.user or "somebody",
        mine=entry.mine,
        reservation=entry.reservation,
        name=entry.name,
    )
