"""Which units are held, as the fleet is now.

A lease is written down with the node's name, the number of the unit and its device. Meanwhile the
node may be called otherwise, belong to another type, or number its devices otherwise. What a lease
holds is the device, where it has one, and else a part of the machine, whatever both are called now:
nobody else gets it. The place that it was given stays taken, too: that is the key of its row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.context import Context
from gpudev_service.settings import GpuTypeSpec, NodeSpec
from gpudev_service.store.models import LeaseUnitRow


class Unit(NamedTuple):
    """A held unit, as it was written down."""

    reservation_id: str
    node: str
    number: int
    gpu_type: str
    gpu_id: str


_row = LeaseUnitRow
#: Units are asked for by node on so many at most, as databases have a limit on what they are asked,
#: and on few of all, since else it is quicker to read them all.
_MOST, _FEW = 256, 0.5
#: What is read of each, in the order of `Unit`.
UNITS = select(_row.reservation_id, _row.node, _row.unit, _row.gpu_type, _row.gpu_id)


@dataclass(slots=True)
class Held:
    """Numbers of units held, by node and lease. The nodes `moved` have leases that were begun on
    something else: a node of another type, or of another name."""

    numbers: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)

    def taken(self, node: str) -> set[int]:
        """What nobody else can have on a node."""
        return set().union(*self.numbers.get(node, {}).values())

    def _add(self, node: str, reservation_id: str, number: int) -> None:
        self.numbers.setdefault(node, {}).setdefault(reservation_id, set()).add(number)


def located(
    fleet: Sequence[NodeSpec], types: Mapping[str, GpuTypeSpec], units: Iterable[Unit]
) -> Held:
    """Where `units` are held. A unit whose machine and device are not there any more is nowhere."""
    held = Held()
    names = {node.name: node for node in fleet}
    elsewhere: _Elsewhere | None = None
    without_number: list[tuple[str, Unit]] = []
    for unit in units:
        own = names.get(unit.node)
        if own is not None:
            held._add(own.name, unit.reservation_id, unit.number)
            if own.gpu_type == unit.gpu_type and _is_there(own, unit):
                continue
            held.moved.add(own.name)
        elsewhere = elsewhere or _Elsewhere(fleet, types)
        device = elsewhere.device(unit)
        if device is not None:
            held._add(device[0], unit.reservation_id, device[1])
            held.moved.add(device[0])
        elif own is None:
            without_number += [(name, unit) for name in elsewhere.parts(unit)]
    for name, unit in sorted(without_number):
        taken = held.taken(name)
        free = unit.number
        if free in taken:
            free = next(number for number in range(len(taken) + 1) if number not in taken)
        held._add(name, unit.reservation_id, free)
        held.moved.add(name)
    return held


def _is_there(node: NodeSpec, unit: Unit) -> bool:
    """Whether the unit has the device that it had."""
    if node.simulated or not unit.gpu_id:
        return True
    return node.gpu_ids[unit.number : unit.number + 1] == (unit.gpu_id,)


class _Elsewhere:
    """The fleet by what stays when a node is renamed: its devices, and the machine."""

    def __init__(self, fleet: Sequence[NodeSpec], types: Mapping[str, GpuTypeSpec]) -> None:
        self._types = types
        devices: dict[str, list[tuple[str, int]]] = {}
        self._machines: dict[str, list[NodeSpec]] = {}
        for node in fleet:
            self._machines.setdefault(node.machine, []).append(node)
            for number, device in enumerate(() if node.simulated else node.gpu_ids):
                devices.setdefault(device, []).append((node.name, number))
        # "0" is a device of each machine: it does not tell which.
        self._devices = {key: found[0] for key, found in devices.items() if len(found) == 1}

    def device(self, unit: Unit) -> tuple[str, int] | None:
        """The node that has the unit's device, and which of its devices that is."""
        return self._devices.get(unit.gpu_id)

    def parts(self, unit: Unit) -> Sequence[str]:
        """Nodes that are the machine of a node which had no devices, or are parts of it. A machine
        of several types has a node for each, `MACHINE.TYPE`."""
        machine = unit.node
        if machine not in self._machines:
            machine = machine.removesuffix(f".{unit.gpu_type}")
        there = self._machines.get(machine, ())
        same = [node.name for node in there if node.gpu_type == unit.gpu_type]
        return same or [
            node.name
            for node in there
            if _resource(self._types.get(unit.gpu_type)) in {None, self._resource_of(node)}
        ]

    def _resource_of(self, node: NodeSpec) -> str | None:
        return _resource(self._types.get(node.gpu_type))


def _resource(kind: GpuTypeSpec | None) -> str | None:
    """What units of a type are to the machine; None where nobody knows."""
    if kind is None:
        return None
    return kind.kubernetes.resource if kind.kubernetes else ("gpu" if kind.gpus_per_node else "")


async def free(ctx: Context, session: AsyncSession, names: Collection[str]) -> dict[str, list[int]]:
    """Numbers of the units that nobody holds on the nodes `names`."""
    held, types = await on(ctx, session, names), ctx.fleet.types()
    numbers: dict[str, list[int]] = {}
    for node in ctx.fleet.nodes():
        if node.name not in names:
            continue
        taken = held.taken(node.name)
        units = range(types[node.gpu_type].units_of(node))
        numbers[node.name] = [number for number in units if number not in taken]
    return numbers


async def on(ctx: Context, session: AsyncSession, names: Collection[str]) -> Held:
    """What is held on the nodes `names`, and perhaps on others."""
    fleet = ctx.fleet.nodes()
    nodes = [node for node in fleet if node.name in names]
    types = ctx.fleet.types()
    few = len(nodes) <= min(_MOST, _FEW * len(fleet))
    query = UNITS.where(_concerning(nodes, types)) if few else UNITS
    return located(fleet, types, map(Unit._make, await session.execute(query)))


def _concerning(nodes: Sequence[NodeSpec], types: Iterable[str]) -> ColumnElement[bool]:
    """All rows that may be located on one of the nodes, and few others. Parts of a machine for a
    type that is configured no more are left out: their numbers stand for no device."""
    names = {name for node in nodes for name in (node.name, node.machine)}
    names |= {f"{node.host}.{gpu_type}" for node in nodes if node.host for gpu_type in types}
    found: ColumnElement[bool] = _row.node.in_(names)
    devices = {device for node in nodes if not node.simulated for device in node.gpu_ids}
    if devices:
        found |= _row.gpu_id.in_(devices)
    return found


async def gpu_types(ctx: Context, session: AsyncSession, reservation_id: str) -> set[str]:
    """Types of the fleet of whose nodes a lease holds something; most often just its own."""
    rows = await session.execute(UNITS.where(_row.reservation_id == reservation_id))
    fleet = ctx.fleet.nodes()
    held = located(fleet, ctx.fleet.types(), map(Unit._make, rows))
    return {node.gpu_type for node in fleet if node.name in held.numbers}
