"""Continue where one left: the last work on a disk, offered as one button of the form.

Pure: the last reservations, the disks and what is free go in, at most two offers come out. An offer
is a link's query, so that it goes through the form's own validation like anything that is typed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from markupsafe import Markup

from gpudev_client import words
from gpudev_client.models import Availability, Disk, EarliestStart, GpuType, Reservation

from .progress import start_html

#: How many of the last reservations are looked at.
LOOKED_AT = 10


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to go on; `query` is what the form is filled with."""

    query: str
    what: str
    start: Markup
    now: bool


@dataclass(frozen=True, slots=True)
class Again:
    """What the form offers: the disk that was worked on, and how to go on, the same way first."""

    disk: str
    name: str
    offers: Sequence[Offer]


def offered(
    past: Iterable[Reservation],
    disks: Iterable[Disk],
    types: Sequence[GpuType],
    availability: Mapping[str, Availability],
    now: datetime,
) -> Again | None:
    """The last work on a disk that is there and free, or None.

    Args:
        past: reservations that are over, newest first.
    """
    free = {disk.name for disk in disks if not disk.in_use_by and not disk.busy}
    last = next((r for r in past if r.disk in free and r.active_at is not None), None)
    if last is None or last.disk is None:
        return None
    open_types = {kind.name: kind for kind in types if not kind.maintenance}
    same = _offer(last, open_types.get(last.gpu_type), last.gpus, availability, now)
    offers = [same] if same is not None else []
    # What else is free may have other labels than were asked for.
    if not last.node_labels and (same is None or not same.now):
        offers += _sooner(last, open_types.values(), availability, now)
    return Again(last.disk, last.name, offers) if offers else None


def _sooner(
    last: Reservation,
    types: Iterable[GpuType],
    availability: Mapping[str, Availability],
    now: datetime,
) -> list[Offer]:
    """The largest that could start now on another type, no larger than the last one."""
    found: list[tuple[int, Offer]] = []
    for kind in types:
        if kind.name == last.gpu_type or (kind.gpus_per_node == 0) != (last.gpus == 0):
            continue
        for count in sorted(kind.counts, reverse=True):
            offer = _offer(last, kind, count, availability, now) if count <= last.gpus else None
            if offer is not None and offer.now:
                found.append((count, offer))
                break
    return [max(found, key=lambda one: one[0])[1]] if found else []


def _offer(
    last: Reservation,
    kind: GpuType | None,
    gpus: int,
    availability: Mapping[str, Availability],
    now: datetime,
) -> Offer | None:
    if kind is None or gpus not in kind.counts:
        return None
    start = _start(availability.get(kind.name), gpus)
    if start is None or start.starts_at is None:
        return None
    hours = min(last.hours, kind.max_hours)
    of_nodes = words.labels(last.node_labels)
    query = {
        "gpu_type": kind.name,
        "gpus": gpus,
        "hours": f"{hours:.12g}",
        "disk": last.disk,
        "name": last.name,
        **({"image": last.image} if last.image else {}),
        **({"node_labels": of_nodes} if of_nodes else {}),
    }
    what = f"{words.gpus(gpus, kind.label or kind.name)} for {words.hours(hours)}"
    if of_nodes:  # availability is that of all nodes
        what = f"{what} on nodes with {of_nodes}"
        return Offer(urlencode(query), what, Markup("starts once such nodes are free"), now=False)
    starts_now = start.starts_at <= now
    return Offer(
        urlencode(query),
        what,
        Markup("starts now") if starts_now else start_html(start.starts_at.astimezone(UTC), now),
        starts_now,
    )


def _start(found: Availability | None, gpus: int) -> EarliestStart | None:
    return next((one for one in found.earliest if one.gpus == gpus), None) if found else None
