"""Whether a request may be made at all: pure checks against types, policy and quota.

Every refusal names the field and what would be accepted. Whether and when there is room is the
planner's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from gpudev_client import words
from gpudev_client.models import PolicyView, ReservationRequest, hours_to_duration
from gpudev_service.errors import Refusal
from gpudev_service.settings import GpuTypeSpec, Policy

#: How far ahead a booking may lie.
BOOKING_HORIZON = timedelta(days=90)
#: A start that passed no longer ago than this means now: clocks differ, and requests take a moment.
_PRESENT = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user already has: live reservations, and GPUs in them."""

    reservations: int = 0
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that passed, in the planner's terms."""

    spec: GpuTypeSpec
    gpus: int
    nodes: int
    units_per_node: int
    duration: timedelta
    booked_for: datetime | None
    node_labels: Mapping[str, str] = field(default_factory=dict)


def admit(
    request: ReservationRequest,
    *,
    types: Mapping[str, GpuTypeSpec],
    maintenance: Mapping[str, str],
    policy: Policy,
    limits: PolicyView,
    standing: Standing,
    now: datetime,
) -> Admitted:
    """The request in the planner's terms.

    Raises:
        Refusal: with the field at fault and what would be accepted.
    """
    spec = gpu_type(request.gpu_type, types, maintenance)
    gpus = _gpus(request.gpus, spec)
    duration = _duration(request.hours, spec, policy, limits)
    booked_for = _booked_for(request.starts_at, now)
    _quota(gpus, limits, standing)
    if request.image is not None:
        image(request.image, limits.images)
    nodes, units = spec.shape(gpus)
    return Admitted(spec, gpus, nodes, units, duration, booked_for, request.node_labels or {})


def gpu_type(
    name: str, types: Mapping[str, GpuTypeSpec], maintenance: Mapping[str, str]
) -> GpuTypeSpec:
    """The type of that name, when it takes reservations."""
    spec = types.get(name)
    if spec is None:
        raise Refusal(
            "invalid_input",
            f"There is no GPU type {name!r}. There are: {', '.join(types) or 'none'}.",
            field="gpu_type",
            accepted=list(types),
        )
    message = maintenance.get(name) or spec.maintenance
    if message:
        open_types = [t for t in types if not (maintenance.get(t) or types[t].maintenance)]
        raise Refusal(
            "maintenance",
            f"{spec.label or name} is in maintenance: {message}",
            field="gpu_type",
            accepted=open_types,
        )
    return spec


def _gpus(asked: int | None, spec: GpuTypeSpec) -> int:
    counts = spec.valid_counts
    if asked is None:
        return counts[0]
    if asked not in counts:
        message = (
            f"{spec.name} has no GPUs: ask for 0."
            if counts == [0]
            else f"{asked} GPUs of {spec.name} cannot be asked for. Possible: {_list(counts)}."
        )
        raise Refusal("invalid_input", message, field="gpus", accepted=counts)
    return asked


def image(asked: str, patterns: Sequence[str]) -> None:
    """Whether a container image may be asked for: its full reference, with registry and tag, must
    match a pattern of the policy. `*` stands for anything, slashes too, and case counts.

    Raises:
        Refusal: with the patterns as what is accepted.
    """
    if any(fnmatchcase(asked, pattern) for pattern in patterns):
        return
    raise Refusal(
        "policy_limit",
        f"The image {asked} cannot be asked for. Possible: {', '.join(patterns)}."
        if patterns
        else "Images of one's own are not allowed here: leave it out.",
        field="image",
        accepted=list(patterns),
    )


def max_hours(spec: GpuTypeSpec, limits: PolicyView) -> float:
    """The longest first lease of this type: the type may allow more or less than the group."""
    return spec.max_hours if spec.max_hours is not None else limits.max_hours


def _duration(hours: float, spec: GpuTypeSpec, policy: Policy, limits: PolicyView) -> timedelta:
    longest = max_hours(spec, limits)
    asked = hours_to_duration(hours)
    # Compared as spans: nobody can type a third of an hour exactly.
    if not hours_to_duration(policy.min_hours) <= asked <= hours_to_duration(longest):
        raise Refusal(
            "policy_limit",
            f"You asked for {hours:g} hours; on {spec.name} you can have between "
            f"{words.hours(policy.min_hours)} and {words.hours(longest)}.",
            field="hours",
            accepted={"min": policy.min_hours, "max": longest},
        )
    return asked


def _booked_for(starts_at: datetime | None, now: datetime) -> datetime | None:
    """A start at this moment is no booking: the reservation starts as soon as it can."""
    if starts_at is None:
        return None
    if starts_at < now - _PRESENT:
        raise Refusal(
            "invalid_input",
            "That start has passed. Name a later one, or none to start as soon as possible.",
            field="starts_at",
            accepted={"min": now.isoformat(), "max": (now + BOOKING_HORIZON).isoformat()},
        )
    if starts_at <= now:
        return None
    if starts_at > now + BOOKING_HORIZON:
        raise Refusal(
            "policy_limit",
            f"A booking can lie {BOOKING_HORIZON.days} days ahead at most.",
            field="starts_at",
            accepted={"max": (now + BOOKING_HORIZON).isoformat()},
        )
    return starts_at


def _quota(gpus: int, limits: PolicyView, standing: Standing) -> None:
    if limits.max_reservations is not None and standing.reservations >= limits.max_reservations:
        raise Refusal(
            "quota",
            f"You have {standing.reservations} live reservations, and {limits.max_reservations} "
            "is your limit. Cancel one, or wait until one has ended.",
            accepted={"reservations": limits.max_reservations},
        )
    if limits.max_gpus is not None and standing.gpus + gpus > limits.max_gpus:
        left = max(0, limits.max_gpus - standing.gpus)
        raise Refusal(
            "quota",
            f"You may have {limits.max_gpus} GPUs at once and your live reservations have "
            f"{standing.gpus}, so you can ask for {left} at most now.",
            field="gpus",
            accepted={"max": left},
        )
    if limits.max_running_gpus is not None and gpus > limits.max_running_gpus:
        raise Refusal(
            "quota",
            f"You may have {limits.max_running_gpus} GPUs of a type at once, so you can ask for "
            "no more than these.",
            field="gpus",
            accepted={"max": limits.max_running_gpus},
        )


def _list(counts: list[int]) -> str:
    return ", ".join(map(str, counts))
