"""What a page says about those who are invited: pure functions of the API's models."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gpudev_client.models import Collaborator, Reservation
from gpudev_client.states import FINAL, State

#: Ends of an invitation that the form offers, in hours from now.
_HOURS = (1, 4, 24)


@dataclass(frozen=True, slots=True)
class Person:
    """One collaborator as the page shows them; `until` only where it is not the lease's end."""

    user: str
    what: str
    until: datetime | None
    can_remove: bool
    me: bool


def shown(view: Reservation, viewer: str, *, can_change: bool) -> list[Person]:
    """Everybody who is invited."""
    return [_person(one, view, viewer, can_change) for one in view.collaborators]


def _person(one: Collaborator, view: Reservation, viewer: str, can_change: bool) -> Person:
    me = one.user == viewer
    return Person(
        user=one.user,
        what="uses the server" if one.role == "use" else "sees the reservation",
        until=None if one.until == view.expires_at else one.until,
        can_remove=can_change or me,
        me=me,
    )


def can_invite(view: Reservation, *, can_change: bool) -> bool:
    return can_change and view.state not in FINAL | {State.STOPPING}


def ends(view: Reservation, now: datetime) -> list[int]:
    """The hours from now after which an invitation could end before the lease does."""
    left = None if view.expires_at is None else view.expires_at - now
    return [hours for hours in _HOURS if left is None or timedelta(hours=hours) < left]
