"""The verbs around reservations that exist: list, show, cancel."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from gpudev_client import words
from gpudev_client.states import FINAL, LIVE, State

from . import pick, say, verbs
from .app import App, Refused, pass_app
from .edit import offer_in_words
from .show import details, emit_json, out, table
from .trace import trace
from .watch import shown

if TYPE_CHECKING:
    from gpudev_client import models

_STATES = [state.value for state in State]


@click.command("list")
@click.option("-u", "--user", metavar="USER", help="Somebody else's; '*' is everybody's.")
@click.option(
    "-s", "--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these."
)
@click.option("-a", "--all", "everything", is_flag=True, help="Those that ended as well.")
@click.option("--watch", is_flag=True, help="Keep showing changes; Ctrl-C ends it.")
@verbs.as_json
@pass_app
def list_(
    app: App,
    user: str | None,
    states: tuple[str, ...],
    everything: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """List your reservations and those shared with you, newest first."""
    wanted = frozenset(State(s) for s in states) or (frozenset() if everything else LIVE)
    found = app.client.reservations(user=user, states=wanted).all()
    if watch:
        _watch(app, found, wanted or frozenset(State), user, as_json)
    elif as_json:
        emit_json(found)
    else:
        out(_listing(app, found, with_user=user is not None or _shared(found)))


@click.command("show")
@click.argument("reservation", metavar="[ID]", required=False)
@click.option("--trace", "traced", is_flag=True, help="Where the time went, step by step.")
@verbs.as_json
@pass_app
def show_(app: App, reservation: str | None, traced: bool, as_json: bool) -> None:
    """Show a reservation. Without ID, the only live one."""
    found = pick.reservation(app, reservation)
    history = app.client.history(found.id).all() if traced or not as_json else []
    if as_json:
        emit_json(
            {**found.model_dump(), "history": history, "trace": trace(history, app.now())}
            if traced
            else found
        )
        return
    out(_details(app, found))
    shown_steps = trace(history, app.now()) if traced else []
    if shown_steps:
        rows = [
            (
                f"  {step.what}" if step.step else step.what,
                words.duration(step.seconds),
                words.moment(step.began_at, app.now(), app.zone),
            )
            for step in shown_steps
        ]
        out("\nWhere the time went\n" + table(("STEP", "TOOK", "FROM"), rows, app.width))
    out("\nHistory\n" + _history(app, history))


@click.command()
@click.argument("reservation", metavar="[ID]", required=False)
@click.option("-a", "--all", "everything", is_flag=True, help="All your live reservations.")
@click.option("--reason", help="Why; it is kept in the history.")
@verbs.yes
@verbs.as_json
@pass_app
def cancel(
    app: App,
    reservation: str | None,
    everything: bool,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """End a reservation: leave the queue, or stop the server and free its GPUs."""
    if everything and reservation:
        raise click.UsageError("Give an ID or --all, not both.")
    if everything:
        me = app.client.me().name
        chosen = app.client.reservations(user=me, states=LIVE - {State.STOPPING}).all()
    else:
        chosen = [pick.reservation(app, reservation, own=True)]
    over = [r for r in chosen if r.state in FINAL]
    if over:
        raise Refused(f"Reservation {over[0].id} is {over[0].state.value} already.")
    if chosen and not app.confirm(_question(app, chosen), yes=yes):
        raise Refused("Nothing was cancelled.")
    ended = [app.client.cancel(r.id, reason) for r in chosen]
    if as_json:
        emit_json(ended)
    elif not ended:
        app.tell("You have no live reservation.")
    else:
        for r in ended:
            what = "is being stopped" if r.state is State.STOPPING else f"is {r.state.value}"
            app.tell(f"Reservation {r.id} ({r.name}) {what}.")


def _listing(app: App, found: Sequence[models.Reservation], *, with_user: bool) -> str:
    if not found:
        return "No reservations."
    now = app.now()
    rows = [
        (
            r.id,
            r.name,
            r.user if with_user else "",
            r.state.value,
            say.gpus(r),
            words.labels(r.node_labels),
            r.disk or "",
            say.shared_with(r, now, app.zone),
            say.limited(say.standing(r, now, app.zone), r),
        )
        for r in found
    ]
    titles = ("ID", "NAME", "USER", "STATE", "GPUS", "NODES WITH", "DISK", "SHARED WITH", "TIME")
    return table(titles, rows, app.width)


def _shared(found: Sequence[models.Reservation]) -> bool:
    """Whether it has to be said whose each one is."""
    return any(r.collaborators for r in found)


def _watch(
    app: App,
    found: list[models.Reservation],
    wanted: frozenset[State],
    user: str | None,
    as_json: bool,
) -> None:
    known = {r.id: r for r in reversed(found)}
    mine = None if user else app.client.me().name

    def render() -> str:
        newest = sorted(known.values(), key=lambda r: r.submitted_at, reverse=True)
        return _listing(app, newest, with_user=user is not None or _shared(newest))

    def fits(r: models.Reservation) -> bool:
        invited = [one.user for one in r.collaborators]
        is_mine = mine in (None, r.user) or mine in invited
        return r.state in wanted and user in (None, "*", r.user) and is_mine

    if as_json:
        for event in app.client.events():
            if fits(event.reservation) or event.reservation.id in known:
                known[event.reservation.id] = event.reservation
                emit_json(event, one_line=True)
        return
    with shown(render) as screen:
        screen.update()
        for event in app.client.events():
            if fits(event.reservation):
                known[event.reservation.id] = event.reservation
            else:
                known.pop(event.reservation.id, None)
            screen.update()


def _details(app: App, r: models.Reservation) -> str:
    now, zone = app.now(), app.zone

    def at(moment: datetime | None) -> str | None:
        return words.moment(moment, now, zone) if moment else None

    placed = ", ".join(
        f"{p.node} ({', '.join(str(u) for u in p.units)})" if p.units else p.node
        for p in r.placement
    )
    first = r.first_promised_start
    promised = words.latest(first, now, zone) if first else None
    extension = r.extension
    return details(
        [
            ("id", r.id),
            ("name", r.name),
            ("user", r.user),
            ("state", f"{r.state.value}: {say.standing(r, now, zone)}"),
            ("reason", app.told(r.reason) if r.reason else None),
            ("server", f"{at(r.notice.at)}: {app.told(r.notice.text)}" if r.notice else None),
            ("limit", r.limited_by),
            ("GPUs", say.gpus(r)),
            ("placed on", placed),
            ("node labels", words.labels(r.node_labels)),
            ("disk", r.disk or "none, files are not kept"),
            ("shared with", say.shared_with(r, now, zone)),
            ("asked for", words.hours(r.hours)),
            ("extended by", words.hours(r.extended_hours) if r.extended_hours else None),
            (
                "extension",
                offer_in_words(app, extension) if extension and r.state is State.ACTIVE else None,
            ),
            ("use", app.told(r.idle.summary) if r.idle else None),
            ("submitted", at(r.submitted_at)),
            ("booked for", at(r.booked_for)),
            ("first promised", promised),
            ("lease from", at(r.starts_at)),
            ("lease until", at(r.expires_at)),
            ("ended", at(r.ended_at)),
            ("address", r.url if r.state is State.ACTIVE else None),
            ("SSH host", r.ssh_host if r.state is State.ACTIVE else None),
        ],
        app.width,
    )


def _history(app: App, history: Sequence[models.HistoryEntry]) -> str:
    rows = [
        (words.moment(entry.at, app.now(), app.zone), entry.state.value, app.told(entry.reason))
        for entry in history
    ]
    return details([(f"{when}  {state}", reason or "-") for when, state, reason in rows], app.width)


def _question(app: App, chosen: Sequence[models.Reservation]) -> str:
    now = app.now()
    told = "; ".join(
        f"{r.id} ({r.name}, {say.gpus(r)}, {r.state.value}, {say.standing(r, now, app.zone)})"
        for r in chosen
    )
    what = "this reservation" if len(chosen) == 1 else f"these {len(chosen)} reservations"
    return f"Cancel {what}: {told}?"
