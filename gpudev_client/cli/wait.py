"""Waiting for a reservation: live on a terminal, line by line in a pipe, and what Ctrl-C means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gpudev_client.config import absolute
from gpudev_client.errors import ServerFault, Unreachable
from gpudev_client.states import WAITING, State

from . import say
from .app import INTERRUPTED, App
from .ask import choose
from .show import note, out, wrapped
from .watch import shown

if TYPE_CHECKING:
    from gpudev_client import models


def until_active(
    app: App, made: models.Reservation, *, may_ask: bool, stays: bool = True
) -> models.Reservation:
    """Wait until the lease is active; ends the command if it ends first or is left.

    Without `stays` an interruption is the caller's, who gives the reservation back.
    """
    current = made
    while True:
        try:
            return _follow(app, current)
        except (Unreachable, ServerFault):
            note(
                f"Reservation {made.id} goes on; `gpu-dev show {made.id[:8]}` tells how it stands.",
                app.error_width,
            )
            raise
        except KeyboardInterrupt:
            if not stays:
                raise
            current = app.client.reservation(made.id)
            if not may_ask:
                _leave(app, current)
            if not _goes_on(app, current):
                click.get_current_context().exit(INTERRUPTED)


def result(app: App, made: models.Reservation) -> None:
    """What the reservation is now, on standard output."""
    out(wrapped(f"{made.id} {say.waiting(made, app.now(), app.zone)}", app.width))
    if made.state is State.ACTIVE and made.url:
        out(absolute(made.url, app.client.url))


def _follow(app: App, made: models.Reservation) -> models.Reservation:
    latest = made

    def line() -> str:
        return wrapped(say.waiting(latest, app.now(), app.zone), app.error_width)

    with shown(line, err=True) as screen:
        from gpudev_client._waiting import wait_until_active

        def changed(r: models.Reservation) -> None:
            nonlocal latest
            latest = r
            screen.update()

        screen.update()
        return app.client.transport.run(wait_until_active(made.id, changed))


def _goes_on(app: App, current: models.Reservation) -> bool:
    """Asks what to do with a reservation that is waited for; True keeps waiting."""
    stay = "leave it queued" if current.state in WAITING else "leave it running"
    try:
        answer = choose(
            "What now",
            [("leave", stay), ("cancel", "cancel the reservation"), ("wait", "keep waiting")],
            "leave",
        )
    except (click.Abort, KeyboardInterrupt):
        answer = "leave"
    if answer == "wait":
        return True
    if answer == "cancel":
        ended = app.client.cancel(current.id)
        note(f"Reservation {ended.id} is {ended.state.value}.", app.error_width)
        return False
    _leave(app, current)
    return False


def _leave(app: App, current: models.Reservation) -> None:
    """Says that the reservation stays, and ends the command."""
    standing = say.waiting(current, app.now(), app.zone)
    note(
        f"Reservation {current.id} stays as it is ({standing}). "
        f"To end it: gpu-dev cancel {current.id}",
        app.error_width,
    )
    click.get_current_context().exit(INTERRUPTED)
