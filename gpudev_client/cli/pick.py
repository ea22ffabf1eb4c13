"""Which reservation is meant: an id, the beginning of one, or the only live one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from gpudev_client import limits
from gpudev_client.errors import NotFound
from gpudev_client.states import LIVE, State

from .app import App, Refused

if TYPE_CHECKING:
    from gpudev_client import models

#: How many of the newest reservations are searched for a prefix.
_SEARCHED = 1000


def match(ids: Iterable[str], prefix: str, what: str) -> str:
    """The one id that begins with `prefix`; Refused where there is none or more than one."""
    ids = list(dict.fromkeys(ids))
    if prefix in ids:
        return prefix
    if len(prefix) < limits.ID_PREFIX_MIN:
        raise Refused(
            f"{prefix!r} is too short for the beginning of an id; "
            f"give at least {limits.ID_PREFIX_MIN} characters."
        )
    found = [known for known in ids if known.startswith(prefix)]
    if not found:
        raise Refused(f"There is no {what} whose id begins with {prefix!r}.")
    if len(found) > 1:
        raise Refused(f"{prefix!r} fits more than one {what}: {', '.join(sorted(found))}.")
    return found[0]


def reservation_id(
    app: App, given: str | None, states: frozenset[State] = LIVE, *, own: bool = False
) -> str:
    """The id that `given` stands for; without one, the caller's only reservation in `states`:
    theirs or shared with them, or only their `own`."""
    if given is None:
        user = app.client.me().name if own else None
        return _only(app.client.reservations(user=user, states=states).all())
    given = given.strip().lower()
    if limits.is_reservation_id(given):
        return given
    if len(given) < limits.ID_PREFIX_MIN:
        return match([], given, "reservation")
    live = [r.id for r in app.client.reservations(states=LIVE)]
    if any(known.startswith(given) for known in live):
        return match(live, given, "reservation")
    known_ids = [r.id for r in islice(app.client.reservations(), _SEARCHED)]
    if not any(known.startswith(given) for known in known_ids) and app.client.me().admin:
        known_ids = [r.id for r in islice(app.client.reservations(user="*"), _SEARCHED)]
    return match(known_ids, given, "reservation")


def reservation(
    app: App, given: str | None, states: frozenset[State] = LIVE, *, own: bool = False
) -> models.Reservation:
    """The same, with all that is known about it."""
    chosen = reservation_id(app, given, states, own=own)
    try:
        return app.client.reservation(chosen)
    except NotFound:
        raise Refused(f"There is no reservation {given or chosen}.") from None


def _only(found: Sequence[models.Reservation]) -> str:
    if not found:
        raise Refused("You have no live reservation. `gpu-dev list --all` shows those that ended.")
    if len(found) > 1:
        told = ", ".join(f"{r.id} ({r.name}, {r.state.value})" for r in found)
        raise Refused(f"You have {len(found)} reservations; say which one: {told}.")
    return found[0].id
