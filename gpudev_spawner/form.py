"""The reservation form inside the Hub's own spawn page.

Rendered from what the service says at that moment; without a script it shows the same facts and
works the same, only the start for exactly this choice is not looked up while one picks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gpudev_client import errors, words
from gpudev_client.models import (
    Availability,
    Disk,
    EarliestStart,
    GpuType,
    Plan,
    Reservation,
    ReservationRequest,
)
from gpudev_client.states import FINAL, WAITING, State

from . import again, options, stash
from .options import FormValues
from .progress import start_html, time_html
from .refusals import refused

if TYPE_CHECKING:
    from .mixin import GpuDevMixin

#: Lengths that the form offers beside the free entry, in hours.
PRESETS: Sequence[float] = (0.5, 1, 2, 4, 8, 12, 24)
#: What the form calls its fields, in its order.
_LABELS: Mapping[str, str] = {
    "gpu_type": "GPU type",
    "gpus": "Number of GPUs",
    "hours": "For how long",
    "disk": "Disk",
    "name": "Name",
    "image": "Container image",
}
#: The disk that a person without disks is offered to create.
FIRST_DISK = "home"


@dataclass(frozen=True, slots=True)
class CountChoice:
    """One number of GPUs of a type, with when it could start."""

    value: int
    label: str
    start: str
    starts_at: datetime | None
    possible: bool


@dataclass(frozen=True, slots=True)
class TypeChoice:
    """One GPU type as the form offers it."""

    kind: GpuType
    free: str
    counts: Sequence[CountChoice]
    selected: bool
    count: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the service said for one form."""

    types: Sequence[GpuType]
    availability: Mapping[str, Availability]
    disks: Sequence[Disk]
    live: Reservation | None
    past: Sequence[Reservation] = ()


async def render(spawner: GpuDevMixin) -> str:
    """The form's HTML for the Hub's spawn page."""
    answering_get = _answers_get(spawner)
    kept = stash.take(spawner.user, spawner.name if answering_get else None)
    server_name = kept.server_name if kept else spawner.name
    frame = {
        "base": spawner.hub.base_url,
        "user": spawner.user.name,
        "server_name": server_name,
        "pages_url": spawner.pages_url,
        "xsrf": spawner.handler.xsrf_token.decode("ascii") if answering_get else None,
    }
    try:
        facts = await gather(spawner, server_name)
    except errors.GpuDevError as error:
        spawner.log.warning("the form cannot be filled: %s", error)
        return _rendered("away.html", frame, {"message": refused(error).message})
    now = datetime.now(UTC)
    if facts.live is not None:
        return _rendered("live.html", frame, live_view(facts.live, now))
    values = kept.values if kept else _last(spawner.user_options)
    faults = kept.errors if kept else {}
    return _rendered("form.html", frame, form_view(facts, values, faults, now))


async def gather(spawner: GpuDevMixin, server_name: str) -> Facts:
    """What the form shows, asked for all at once."""
    client, user = spawner.connection.client, spawner.user.name
    types, availability, disks, live, past = await asyncio.gather(
        client.gpu_types(user).all(),
        client.availability(user=user).all(),
        client.disks(user=user).all(),
        spawner.connection.live(user, server_name),
        client.reservations(user, FINAL).page(again.LOOKED_AT),
    )
    # Others' that are shared with this person are none to go on with.
    own = [reservation for reservation in past.items if reservation.user == user]
    return Facts(types, {a.gpu_type: a for a in availability}, disks, live, own)


def form_view(
    facts: Facts, typed: FormValues, faults: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    """The template's variables for a new reservation."""
    values = with_defaults(typed, facts)
    longest = max((t.max_hours for t in facts.types), default=24.0)
    presets = [p for p in PRESETS if p <= longest]
    return {
        "types": [type_choice(t, facts.availability.get(t.name), values, now) for t in facts.types],
        "presets": [{"value": f"{p:g}", "label": words.hours(p)} for p in presets],
        "disks": facts.disks,
        "values": values,
        "images": list(dict.fromkeys(one for t in facts.types for one in t.images)),
        "again": None
        if faults
        else again.offered(facts.past, facts.disks, facts.types, facts.availability, now),
        "faults": faults,
        **_summary(faults, facts, values),
        "simulated": any(t.simulated for t in facts.types),
    }


def _summary(faults: Mapping[str, str], facts: Facts, values: FormValues) -> dict[str, Any]:
    """Where the faults are, in the form's order, and the sentences that have no field here."""
    kind = next((t for t in facts.types if t.name == values.gpu_type), None)
    counted = kind is not None and kind.gpus_per_node > 0 and not kind.maintenance
    imaged = any(t.images for t in facts.types)
    shown = {
        key: label
        for key, label in _LABELS.items()
        if (key != "gpus" or counted) and (key != "image" or imaged)
    }
    return {
        "faulty": [(field, label) for field, label in shown.items() if field in faults],
        "elsewhere": [sentence for field, sentence in faults.items() if field not in shown],
    }


def with_defaults(values: FormValues, facts: Facts) -> FormValues:
    """`values` with what is empty chosen sensibly, and what exists no more chosen anew."""
    names = [t.name for t in facts.types]
    if values.gpu_type not in names:
        usable = [t.name for t in facts.types if not t.maintenance]
        values = replace(values, gpu_type=(usable or names or [""])[0], gpus="")
    kind = next((t for t in facts.types if t.name == values.gpu_type), None)
    if not values.hours and kind is not None:
        preset = next((p for p in PRESETS if p == kind.default_hours), None)
        values = replace(
            values,
            hours="other" if preset is None else f"{preset:g}",
            hours_other=f"{kind.default_hours:g}" if preset is None else values.hours_other,
        )
    return _with_disk(values, facts.disks)


def _with_disk(values: FormValues, disks: Sequence[Disk]) -> FormValues:
    present = {d.name for d in disks}
    free = [d for d in disks if not d.in_use_by]
    if values.disk_choice == "new" and values.new_disk in present:
        # Created by the last start with this form.
        values = replace(values, disk_choice="existing", disk=values.new_disk, new_disk="")
    if values.disk_choice == "existing" and values.disk not in {d.name for d in free}:
        values = replace(values, disk_choice="", disk="")
    if values.disk_choice:
        return values
    if free:
        newest = max(free, key=lambda d: d.last_used_at or d.created_at)
        return replace(values, disk_choice="existing", disk=newest.name)
    return replace(values, disk_choice="new", new_disk=_new_name(present))


def _new_name(present: set[str]) -> str:
    candidates = [FIRST_DISK, *(f"{FIRST_DISK}-{n}" for n in range(2, len(present) + 3))]
    return next(name for name in candidates if name not in present)


def type_choice(
    kind: GpuType, availability: Availability | None, values: FormValues, now: datetime
) -> TypeChoice:
    """How one type is offered."""
    selected = kind.name == values.gpu_type
    earliest = {e.gpus: e for e in availability.earliest} if availability else {}
    counts = [_count(kind, count, earliest.get(count), now) for count in kind.counts]
    typed = values.gpus if selected else values.counts.get(kind.name, "")
    chosen = typed if typed in {str(count) for count in kind.counts} else str(kind.counts[0])
    return TypeChoice(kind, _free(kind, availability), counts, selected, chosen)


def _count(kind: GpuType, count: int, earliest: EarliestStart | None, now: datetime) -> CountChoice:
    label = words.counted(count, "GPU") if count else "a share of a node"
    if count > kind.gpus_per_node > 0:
        label += f" on {count // kind.gpus_per_node} nodes"
    if earliest is None:
        return CountChoice(count, label, "", None, possible=True)
    if earliest.starts_at is None:
        why = earliest.reason or "not possible now"
        return CountChoice(count, label, why, None, possible=False)
    if earliest.starts_at <= now:
        return CountChoice(count, label, "starts now", None, possible=True)
    start = words.moment(_whole_minute(earliest.starts_at), now, UTC, show_zone=True)
    return CountChoice(count, label, f"starts by {start}", earliest.starts_at, possible=True)


def _whole_minute(at: datetime) -> datetime:
    """Rounded up: a promise of 18:40:30 must not be shown as 18:40."""
    rest = timedelta(seconds=at.second, microseconds=at.microsecond)
    return at + timedelta(minutes=1) - rest if rest else at


def _free(kind: GpuType, availability: Availability | None) -> str:
    if kind.maintenance:
        return f"In maintenance: {kind.maintenance}"
    if availability is None:
        return ""
    what = "" if kind.gpus_per_node else " shares"
    text = f"{availability.free} of {availability.total}{what} free now"
    if availability.queue_length:
        text += f", {availability.queue_length} waiting"
    if kind.added_within_minutes is not None:
        text += f"; more nodes within {words.duration(60 * kind.added_within_minutes)} when needed"
    return text


def live_view(reservation: Reservation, now: datetime) -> dict[str, Any]:
    """The template's variables where this server has a reservation that is not over."""

    def when(at: datetime | None) -> Markup | None:
        if at is None:
            return None
        return time_html(at, words.at_moment(at, now, UTC, show_zone=True))

    return {
        "reservation": reservation,
        "what": words.gpus(reservation.gpus, reservation.gpu_type, reservation.nodes),
        "waiting": reservation.state in WAITING,
        "ending": reservation.state is State.STOPPING,
        "place": words.queue_place(reservation.position),
        "start": start_html(reservation.promised_start, now),
        "expires": when(reservation.expires_at),
        "restart_until": when(reservation.restart_until),
    }


def start_view(plan: Plan) -> dict[str, Any]:
    """A plan in plain words, for the form's script."""
    now = datetime.now(UTC)
    until = time_html(plan.expires_at, words.at_moment(plan.expires_at, now, UTC, show_zone=True))
    if plan.starts_now:
        return {"starts_now": True, "html": str(Markup("Starts now and ends {}.").format(until))}
    text = Markup("{}: {}.").format(
        words.queue_place(plan.position).capitalize(), start_html(plan.starts_at, now)
    )
    return {"starts_now": False, "html": str(text)}


def _answers_get(spawner: GpuDevMixin) -> bool:
    """Whether the form answers a GET; after a failed POST the Hub renders it without a handler, or
    with one that has finished long ago."""
    handler = spawner.handler
    return handler is not None and not handler._finished and handler.request.method == "GET"


def _last(user_options: Mapping[str, Any] | None) -> FormValues:
    """The values of the last start, where they are a request."""
    try:
        asked = options.parse(user_options or {})
    except options.InvalidOptions:
        return FormValues()
    if isinstance(asked, ReservationRequest):
        return options.values_of(asked, PRESETS)
    return FormValues()


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _rendered(name: str, frame: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    return _environment().get_template(name).render(frame, **view)
