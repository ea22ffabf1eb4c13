"""Requests that the fleet can never fulfil, refused with what it could."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from gpudev_client import words
from gpudev_service import planner
from gpudev_service.context import Context
from gpudev_service.disks import base as backend
from gpudev_service.disks.reach import Reach
from gpudev_service.errors import Refusal
from gpudev_service.kube import KubeAway, KubeRefused
from gpudev_service.store.models import DiskRow

from . import labels, places
from .admission import Admitted

log = logging.getLogger(__name__)


class AtDisk(Refusal):
    """The disk is elsewhere, and a clone of it would help. `without_clones` is the answer where the
    storage makes none."""

    def __init__(self, message: str, without_clones: Refusal, *, field: str, accepted: Any) -> None:
        super().__init__("impossible", message, field=field, accepted=accepted)
        self.without_clones = without_clones


async def as_storage_can(ctx: Context, refused: Refusal) -> Refusal:
    """The refusal, without a clone in its advice where disks cannot be cloned. It asks the storage:
    not for use inside a transaction."""
    if not isinstance(refused, AtDisk):
        return refused
    try:
        await ctx.disks.require_snapshots()
    except backend.NoSnapshots:
        return refused.without_clones
    except (backend.DiskError, KubeAway, KubeRefused) as error:
        log.warning("whether disks can be cloned is not known: %s", error)
    return refused


def refusal(ctx: Context, admitted: Admitted, why: planner.Reason, disk: DiskRow | None) -> Refusal:
    """Why the planner has no place for what was admitted, in words."""
    if why is planner.Reason.ELSEWHERE:
        return _elsewhere(ctx, admitted, disk)
    if admitted.booked_for:
        return Refusal(
            "impossible",
            f"There is no room for {admitted.gpus} {admitted.spec.name} at that time. "
            "Choose another start, or leave it out to start as soon as possible.",
            field="starts_at",
        )
    drained = why is planner.Reason.DRAINED
    message = (
        f"All {admitted.spec.name} nodes that could hold this are drained at the moment."
        if drained
        else f"The fleet has no room for {admitted.gpus} {admitted.spec.name}, even when empty."
    )
    return Refusal("impossible", message, field="gpu_type" if drained else "gpus")


def _elsewhere(ctx: Context, admitted: Admitted, disk: DiskRow | None) -> Refusal:
    """There are such nodes, but not with these labels, or not where the disk is."""
    reach = None if disk is None or disk.reach is None else Reach.from_json(disk.reach)
    near = None if reach is None else places.area(reach, ctx.fleet.nodes())
    if disk is not None and reach is not None and near is not None:
        if not admitted.node_labels or not _is_enough(ctx, admitted, near):
            return _not_at_disk(ctx, admitted, disk, reach, near)
        fitting = labels.nodes_with(ctx, admitted.spec.name, admitted.node_labels)
        if _is_enough(ctx, admitted, fitting):
            return _not_both(ctx, admitted, disk, reach, near)
    what = words.gpus(admitted.gpus, admitted.spec.name, admitted.nodes)
    known = labels.choices(labels.offered(ctx, admitted.spec.name))
    return Refusal(
        "impossible",
        f"The nodes with {words.labels(admitted.node_labels)} cannot give you {what}, even when "
        f"empty. Ask for less, or for other labels. {labels.said(known)}",
        field="node_labels",
        accepted=known,
    )


def _is_enough(ctx: Context, admitted: Admitted, names: Collection[str]) -> bool:
    """Whether these nodes could hold it, were they empty."""
    size = ctx.fleet.types()[admitted.spec.name].units_of
    able = [
        spec
        for spec in ctx.fleet.nodes()
        if spec.name in names
        and spec.gpu_type == admitted.spec.name
        and size(spec) >= admitted.units_per_node
    ]
    return len(able) >= admitted.nodes


def _not_at_disk(
    ctx: Context, admitted: Admitted, disk: DiskRow, reach: Reach, near: Collection[str]
) -> Refusal:
    """A disk stays where its bytes are; a clone of it may begin elsewhere."""
    types = sorted({spec.gpu_type for spec in ctx.fleet.nodes() if spec.name in near})
    what = words.gpus(admitted.gpus, admitted.spec.name, admitted.nodes)
    instead = f" With this disk you can have {' or '.join(types)}." if types else ""
    where = f"No node that could give you {what} is where the disk {disk.name!r} is{_zones(reach)}."
    return AtDisk(
        f"{where} Clone the disk and reserve with the clone, which can begin anywhere.{instead}",
        Refusal(
            "impossible",
            f"{where} Take another disk.{instead}",
            field="disk",
            accepted={"gpu_types": types},
        ),
        field="disk",
        accepted={"clone": disk.name, "gpu_types": types},
    )


def _not_both(
    ctx: Context, admitted: Admitted, disk: DiskRow, reach: Reach, near: Collection[str]
) -> Refusal:
    """Either could be had without the other."""
    known = labels.choices(
        spec.labels
        for spec in ctx.fleet.nodes()
        if spec.name in near and spec.gpu_type == admitted.spec.name
    )
    where = (
        f"Not enough nodes with {words.labels(admitted.node_labels)} are where the disk "
        f"{disk.name!r} is{_zones(reach)}."
    )
    others = f"or ask for other labels. {labels.said(known)}"
    return AtDisk(
        f"{where} Clone the disk and reserve with the clone, which can begin anywhere, {others}",
        Refusal(
            "impossible",
            f"{where} Take another disk, {others}",
            field="node_labels",
            accepted=known,
        ),
        field="node_labels",
        accepted=known,
    )


def _zones(reach: Reach) -> str:
    return f" (in {' or '.join(reach.zones)})" if reach.zones else ""
