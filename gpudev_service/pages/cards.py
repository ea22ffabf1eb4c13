"""What a page says about one reservation: pure functions of the API's models and viewers' rights.

Sentences are lists of pieces: texts, and times that the template writes as `<time>` elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from gpudev_client import words
from gpudev_client.models import ExtensionOffer, Notice, Reservation
from gpudev_client.states import FINAL, LEASED, WAITING, State


@dataclass(frozen=True, slots=True)
class When:
    """A time in a sentence; `kind` is one of `rendering.KINDS`."""

    at: datetime
    kind: str = "moment"


Piece = str | When

#: Bootstrap's colour of a state's badge, and a sign, so that colour is never alone.
LOOKS: Mapping[State, tuple[str, str]] = MappingProxyType(
    {
        State.SCHEDULED: ("text-bg-secondary", "◷"),
        State.QUEUED: ("text-bg-warning", "…"),
        State.PREPARING: ("text-bg-info", "↑"),
        State.ACTIVE: ("text-bg-success", "●"),
        State.STOPPING: ("text-bg-warning", "↓"),
        State.EXPIRED: ("text-bg-secondary", "■"),
        State.CANCELLED: ("text-bg-secondary", "⊘"),
        State.FAILED: ("text-bg-danger", "!"),
    }
)

#: Extensions that are offered where they are possible, in hours.
_STEPS = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 48.0)
_MINUTE = 1 / 60


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of a list to choose from."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Extension:
    """How far a lease can be extended: amounts to choose from, or why there is none."""

    choices: tuple[Choice, ...]
    until: datetime | None
    limit: str | None


@dataclass(frozen=True, slots=True)
class Card:
    """One reservation as a card, a row, or the head of its own page."""

    id: str
    name: str
    user: str
    state: State
    badge: str
    sign: str
    what: str
    labels: str
    disk: str | None
    simulated: bool
    sentence: tuple[Piece, ...]
    reason: str | None
    notice: Notice | None
    limit: str | None
    alarm: bool
    open_url: str | None
    start_again: bool
    extension: Extension | None
    can_change: bool
    #: Whose it is, where it is shared with the viewer; and with whom the viewer shares theirs.
    shared_by: str | None = None
    shared_with: str = ""

    @property
    def live(self) -> bool:
        return self.state not in FINAL

    @property
    def can_cancel(self) -> bool:
        return self.can_change and self.live and self.state is not State.STOPPING

    @property
    def cancel_label(self) -> str:
        return "Leave the queue" if self.state in WAITING else "End now"


def card(view: Reservation, viewer: str, *, can_change: bool) -> Card:
    """What there is to say and to do about a reservation.

    Args:
        viewer: the name of whoever looks.
        can_change: whether they may extend and cancel it.
    """
    invited = {one.user: one.role for one in view.collaborators}
    shared = viewer != view.user and viewer in invited
    badge, sign = LOOKS[view.state]
    lost = view.state is State.ACTIVE and view.server_lost_at is not None
    offer = view.extension if view.state in {State.PREPARING, State.ACTIVE} else None
    return Card(
        id=view.id,
        name=view.name,
        user=view.user,
        state=view.state,
        badge=badge,
        sign=sign,
        what=words.gpus(view.gpus, view.gpu_type, view.nodes),
        labels=words.labels(view.node_labels),
        disk=view.disk,
        simulated=view.simulated,
        sentence=sentence(view),
        reason=view.reason if view.state in FINAL | {State.STOPPING} else None,
        notice=view.notice,
        limit=view.limited_by,
        alarm=lost,
        # Whoever was invited to see cannot open, and only the owner starts it again.
        open_url=view.url
        if view.state is State.ACTIVE and not (shared and (lost or invited[viewer] == "view"))
        else None,
        start_again=lost,
        extension=extension(offer) if offer is not None and can_change else None,
        can_change=can_change,
        shared_by=view.user if shared else None,
        shared_with="" if shared else ", ".join(invited),
    )


def sentence(view: Reservation) -> tuple[Piece, ...]:
    """Where the reservation stands, in one sentence."""
    if view.state in WAITING:
        return _waiting(view)
    if view.state is State.STOPPING:
        return ("The server is being stopped; the GPUs are free after that.",)
    if view.state in LEASED:
        return _leased(view)
    return ("Ended ", When(view.ended_at, "at")) if view.ended_at is not None else ()


def _waiting(view: Reservation) -> tuple[Piece, ...]:
    if view.state is State.QUEUED:
        return _capital(words.queue_place(view.position)), "; ", *_promise(view)
    if view.booked_for is not None:
        return "Booked for ", When(view.booked_for), "; ", *_promise(view)
    return _promise(view)


def _leased(view: Reservation) -> tuple[Piece, ...]:
    if view.server_lost_at is not None and view.restart_until is not None:
        return (
            "The server has stopped. Start it again before ",
            When(view.restart_until),
            ", or the GPUs go to the next in line.",
        )
    if view.expires_at is None:
        return ()
    begin = ("The server is starting; ",) if view.state is State.PREPARING else ()
    return (*begin, When(view.expires_at, "left"))


def _promise(view: Reservation) -> tuple[Piece, ...]:
    if view.promised_start is None:
        return (words.start_in_words(None, view.submitted_at),)
    return (When(view.promised_start, "start"),)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def extension(offer: ExtensionOffer) -> Extension:
    """The amounts that are possible now, the longest last, and what limits them."""
    most = offer.possible_hours
    steps = [step for step in _STEPS if step < most]
    if most >= _MINUTE:
        steps.append(most)
    choices = tuple(Choice(f"{step:g}", words.hours(step)) for step in steps)
    return Extension(choices, offer.extendable_until if choices else None, offer.limited_by)


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a reservation's facts."""

    label: str
    pieces: tuple[Piece, ...]


def facts(view: Reservation) -> tuple[Fact, ...]:
    """Everything that is known of a reservation, for its own page; what is not known is left
    out."""
    where = [f"{place.node}: {_units(place.units, view.gpus)}" for place in view.placement]
    first = view.first_promised_start
    promised = words.rounded_up(first) if first and view.state in WAITING else None
    times: list[tuple[str, datetime | None]] = [
        ("Submitted", view.submitted_at),
        ("Booked for", view.booked_for),
        ("Promised at first", promised),
        ("Lease began", view.starts_at),
        ("Server ready", view.active_at),
        ("Lease ends" if view.state in LEASED else "Lease ended", _end(view)),
        ("Ended", view.ended_at),
    ]
    found = [
        Fact("Owner", (view.user,)),
        Fact("GPUs", (words.gpus(view.gpus, view.gpu_type, view.nodes),)),
        Fact("Asked for", (words.hours(view.hours),)),
    ]
    if view.extended_hours:
        found.append(Fact("Extended by", (words.hours(view.extended_hours),)))
    found.append(Fact("Disk", (view.disk or "none: files are gone at the end",)))
    if where:
        found.append(Fact("Runs on" if view.state in LEASED else "Ran on", ("; ".join(where),)))
    if view.node_labels:
        found.append(Fact("Nodes with", (words.labels(view.node_labels),)))
    found += [Fact(label, (When(at),)) for label, at in times if at is not None]
    found.append(Fact("Id", (view.id,)))
    return tuple(found)


def _end(view: Reservation) -> datetime | None:
    return view.expires_at if view.state in LEASED or view.ended_at is None else None


def _units(units: list[int], gpus: int) -> str:
    if not gpus:
        return "shared"
    return f"GPU {ranges(units)}"


def ranges(numbers: list[int]) -> str:
    """Numbers, ascending, with runs drawn together: [0, 1, 2, 5] is "0-2, 5"."""
    parts: list[str] = []
    run: list[int] = []
    for number in [*sorted(numbers), None]:
        if run and (number is None or number != run[-1] + 1):
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        if number is not None:
            run.append(number)
    return ", ".join(parts)
