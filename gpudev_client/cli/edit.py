"""`gpu-dev edit`: a longer lease, and who else may see or use it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from gpudev_client import words
from gpudev_client.states import LEASED, LIVE

from . import pick, say, verbs
from .app import App, pass_app
from .show import emit_json

if TYPE_CHECKING:
    from gpudev_client import models


@click.command()
@click.argument("reservation", metavar="[ID]", required=False)
@click.option("--extend", "hours", type=float, metavar="HOURS", help="Extend the lease.")
@click.option("--add-user", "added", multiple=True, metavar="USER", help="Invite; repeatable.")
@click.option(
    "--role",
    type=click.Choice(["use", "view"]),
    help="What those who are added may: use the server (default), or see the reservation.",
)
@click.option(
    "--until",
    type=verbs.when,
    metavar="TIME",
    help="When their invitation ends; without it, with the lease.",
)
@click.option(
    "--remove-user", "removed", multiple=True, metavar="USER", help="Take it back; repeatable."
)
@verbs.as_json
@pass_app
def edit(
    app: App,
    reservation: str | None,
    hours: float | None,
    added: tuple[str, ...],
    role: models.Role | None,
    until: datetime | None,
    removed: tuple[str, ...],
    as_json: bool,
) -> None:
    """Change a reservation: extend its lease, invite others, take invitations back.

    Whoever is invited finds the reservation in `gpu-dev list`. With the role `use` they open the
    server in the browser and by SSH. Without options it says how far the lease could be extended.
    """
    if hours is not None and not 0 < hours < float("inf"):
        raise click.UsageError("--extend takes a number of hours above 0, such as 0.5.")
    if (role or until) and not added:
        raise click.UsageError("--role and --until say how --add-user invites; name somebody.")
    if hours is None and not added and not removed:
        found = pick.reservation_id(app, reservation, LEASED)
        offer = app.client.extension(found)
        emit_json(offer) if as_json else app.tell(offer_in_words(app, offer))
        return
    states = LIVE if hours is None else LEASED
    # Whoever leaves means one that is shared with them.
    found = pick.reservation_id(app, reservation, states, own=bool(added or hours))
    changed, said = _change(app, found, hours, added, role or "use", until, removed)
    if as_json:
        emit_json(changed)
    else:
        app.tell("\n".join(said))


def _change(
    app: App,
    key: str,
    hours: float | None,
    added: tuple[str, ...],
    role: models.Role,
    until: datetime | None,
    removed: tuple[str, ...],
) -> tuple[models.Reservation | None, list[str]]:
    changed, said = None, []
    if hours is not None:
        changed = app.client.extend(key, hours)
        standing = say.standing(changed, app.now(), app.zone)
        said.append(f"Extended by {words.hours(hours)}: {standing}.")
    for user in removed:
        changed = app.client.uninvite(key, user)
        said.append(f"{user} is not invited any more.")
    for user in added:
        changed = app.client.invite(key, user, role, until)
        may = "use the server" if role == "use" else "see the reservation"
        end = words.moment(until, app.now(), app.zone) if until else "the lease's end"
        said.append(f"{user} may {may} until {end}.")
    return changed, said


def offer_in_words(app: App, offer: models.ExtensionOffer) -> str:
    """How far a lease could be extended."""
    why = f" ({app.told(offer.limited_by)})" if offer.limited_by else ""
    if offer.possible_hours <= 0 or offer.extendable_until is None:
        return f"not possible now{why}"
    until = words.moment(offer.extendable_until, app.now(), app.zone)
    return f"up to {words.hours(offer.possible_hours)} more, until {until}{why}"
