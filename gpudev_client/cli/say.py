"""Reservations, plans and disks in sentences; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from gpudev_client import words
from gpudev_client.states import State

if TYPE_CHECKING:
    from gpudev_client import models


def gpus(reservation: models.Reservation) -> str:
    """ "2 x t4", and whether they are simulated."""
    said = words.gpus(reservation.gpus, reservation.gpu_type, reservation.nodes)
    return f"{said} (simulated)" if reservation.simulated else said


def standing(r: models.Reservation, now: datetime, zone: tzinfo | None) -> str:
    """Where a reservation stands, in one sentence without its state's name."""
    match r.state:
        case State.SCHEDULED:
            start = r.booked_for or r.promised_start
            booked = words.at_moment(start, now, zone) if start else ""
            return f"booked, starts {booked}".rstrip()
        case State.QUEUED:
            start_said = words.start_in_words(r.promised_start, now, zone)
            return f"{words.queue_place(r.position)}, {start_said}" if r.position else start_said
        case State.PREPARING:
            return "the server is starting on its GPUs"
        case State.ACTIVE:
            return _active(r, now, zone)
        case State.STOPPING:
            return "the server is being stopped"
        case _:
            ended = words.at_moment(r.ended_at, now, zone) if r.ended_at else ""
            said = words.told(r.reason or "", now, zone)
            why = f": {said}" if r.state is State.FAILED and said else ""
            return f"ended {ended}".rstrip() + why


def shared_with(r: models.Reservation, now: datetime, zone: tzinfo | None) -> str:
    """Who is invited: "grace, linus (view), sam (until 18:40)"."""
    return ", ".join(_invited(one, r, now, zone) for one in r.collaborators)


def _invited(
    one: models.Collaborator, r: models.Reservation, now: datetime, zone: tzinfo | None
) -> str:
    said: list[str] = [] if one.role == "use" else [one.role]
    if one.until is not None and one.until != r.expires_at:
        said.append(f"until {words.moment(one.until, now, zone)}")
    return f"{one.user} ({', '.join(said)})" if said else one.user


def waiting(r: models.Reservation, now: datetime, zone: tzinfo | None) -> str:
    """What somebody who waits for a reservation wants to read."""
    said = f"{r.state.value}: {standing(r, now, zone)}"
    first, promised = r.first_promised_start, r.promised_start
    if r.state is State.QUEUED and first and promised and (first - promised).total_seconds() >= 60:  # noqa: PLR2004
        said += f"; earlier than first promised ({words.latest(first, now, zone)})"
    return limited(said, r)


def limited(said: str, r: models.Reservation) -> str:
    """A sentence about a reservation, and after it which limit keeps it waiting."""
    return f"{said}. {r.limited_by}" if r.limited_by else said


def plan(p: models.Plan, now: datetime, zone: tzinfo | None) -> str:
    """When a request would start."""
    what = words.gpus(p.gpus, p.gpu_type)
    length = words.hours(p.hours)
    if p.starts_now:
        return f"{what} for {length}: starts now, until {words.moment(p.expires_at, now, zone)}."
    start = words.start_in_words(p.starts_at, now, zone)
    return f"{what} for {length}: {words.queue_place(p.position)}, {start}."


def earliest(starts: Sequence[models.EarliestStart], now: datetime, zone: tzinfo | None) -> str:
    """Which counts of GPUs could start when: "1 to 4: now, 8: 18:40"; just the time for a type
    without GPUs."""
    groups: list[tuple[str, list[int]]] = []
    for start in starts:
        said = start_of(start, now, zone)
        if groups and groups[-1][0] == said:
            groups[-1][1].append(start.gpus)
        else:
            groups.append((said, [start.gpus]))
    if [start.gpus for start in starts] == [0]:
        return groups[0][0]
    return ", ".join(f"{_counts(counts)}: {said}" for said, counts in groups)


def start_of(start: models.EarliestStart, now: datetime, zone: tzinfo | None) -> str:
    """When one count of GPUs could start: "now", "18:40", or why it could not."""
    if start.starts_at is None:
        return start.reason or "not possible"
    soon = (start.starts_at - now).total_seconds() < 60  # noqa: PLR2004
    return "now" if soon else words.latest(start.starts_at, now, zone)


def _counts(counts: Sequence[int]) -> str:
    if len(counts) > 2 and counts[-1] - counts[0] == len(counts) - 1:  # noqa: PLR2004
        return f"{counts[0]} to {counts[-1]}"
    return "/".join(str(count) for count in counts)


def _active(r: models.Reservation, now: datetime, zone: tzinfo | None) -> str:
    left = words.time_left(r.expires_at, now, zone) if r.expires_at else "ready"
    if r.server_lost_at is None:
        return left
    if r.restart_until is None:
        return f"the server has stopped; {left}"
    until = words.moment(r.restart_until, now, zone)
    return f"the server has stopped and can be started again until {until}; {left}"
