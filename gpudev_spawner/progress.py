"""What the Hub's waiting page and progress stream say, in plain words.

A viewer may arrive at any time and nothing is replayed, so every message carries the whole present
state. The Hub does not know its viewer's time zone: the plain text says UTC, the HTML wraps each
time into a `<time>` that a script of the page turns into the viewer's own. The HTML goes into the
page as it is, so every value is escaped here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import TypedDict

from markupsafe import Markup

from gpudev_client import words
from gpudev_client.models import Reservation
from gpudev_client.pod_steps import Stage
from gpudev_client.states import WAITING


class Message(TypedDict):
    """One event of the Hub's progress stream. `progress` is a percentage."""

    progress: int
    message: str
    html_message: str


class Phase(Enum):
    """Where a start stands."""

    RESERVING = "reserving"
    WAITING = "waiting"
    STARTING = "starting"
    UP = "up"


def message(
    phase: Phase, reservation: Reservation | None, now: datetime, stage: Stage | None = None
) -> Message:
    """The whole present state of one start; `stage` is how far its server has come."""
    if reservation is None or phase is Phase.RESERVING:
        return _said(5, "Making the reservation.")
    what = words.gpus(reservation.gpus, reservation.gpu_type, reservation.nodes)
    if phase is Phase.WAITING and reservation.state in WAITING:
        return _waiting(reservation, what, now)
    if phase is Phase.UP:
        return _said(90, f"JupyterLab answers on {_where(reservation, what)}. Opening it.")
    begun = f"Your turn: starting JupyterLab on {_where(reservation, what)}"
    if stage is None:
        return _said(60, f"{begun}.")
    return _said(stage.progress, f"{begun}: {stage.words}.")


def time_html(at: datetime, text: str) -> Markup:
    """`text` about the time `at`, marked so that the page can show it in the viewer's zone."""
    moment = at.astimezone(UTC).isoformat(timespec="seconds")
    return Markup('<time datetime="{}" data-gpudev-time="at">{}</time>').format(moment, text)


def told_html(text: str, now: datetime) -> Markup:
    """A sentence of the service with its moments marked."""
    return Markup("").join(
        part
        if isinstance(part, str)
        else time_html(part, words.moment(part, now, UTC, show_zone=True))
        for part in words.pieces(text)
    )


def start_html(promised_start: datetime | None, now: datetime) -> Markup:
    """`words.start_in_words` with its time marked."""
    text = words.start_in_words(promised_start, now, UTC, show_zone=True)
    begin, latest, rest = text.partition(" at the latest")
    if promised_start is None or not latest:
        return Markup("{}").format(text)
    when = time_html(promised_start, begin.removeprefix("starts "))
    return Markup("starts {} at the latest{}").format(when, rest)


def _waiting(reservation: Reservation, what: str, now: datetime) -> Message:
    booked = reservation.booked_for is not None and reservation.booked_for > now
    place = "booked" if booked else words.queue_place(reservation.position)
    start = words.start_in_words(reservation.promised_start, now, UTC, show_zone=True)
    plain = f"{place.capitalize()} for {what}: {start}."
    html = Markup("{} for {}: {}.").format(
        place.capitalize(), what, start_html(reservation.promised_start, now)
    )
    if reservation.limited_by:
        plain += f" {reservation.limited_by}"
        html += Markup(" {}").format(reservation.limited_by)
    return Message(progress=20, message=plain, html_message=str(html))


def _where(reservation: Reservation, what: str) -> str:
    nodes = [place.node for place in reservation.placement]
    return f"{what} ({', '.join(nodes)})" if nodes else what


def _said(progress: int, text: str) -> Message:
    return Message(progress=progress, message=text, html_message=str(Markup("{}").format(text)))
