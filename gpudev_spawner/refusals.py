"""How the spawner says no, so that every surface of the Hub shows the reason.

The Hub's form and pages show `jupyterhub_message` or `jupyterhub_html_message`, its API the first
of them or the log message, its progress stream the exception's own text where these are missing.
All three are set here, and all three are public.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from tornado.web import HTTPError

from gpudev_client import errors, words
from gpudev_client.models import Reservation

from .progress import told_html

#: What people read when the service gives no answer.
AWAY = (
    "The reservation service does not answer at the moment, so nothing could be reserved. "
    "Please try again in a minute."
)


class SpawnRefused(HTTPError):  # noqa: N818 - an answer, not a fault
    """A start that is refused for a reason that a person can act on.

    Args:
        message: one or two sentences for a person; plain text.
        status: the HTTP status of the answer; below 500 the Hub does not count it as its failure.
        field: the input of the form that is at fault, by its name in `ReservationRequest`.
    """

    def __init__(
        self, message: str, *, status: int = HTTPStatus.BAD_REQUEST, field: str | None = None
    ) -> None:
        super().__init__(status, message)
        now = datetime.now(UTC)
        self.message = words.told(message, now, UTC, show_zone=True)
        self.field = field
        self.jupyterhub_message = self.message
        self.jupyterhub_html_message = str(told_html(message, now))


class PrefillOnly(HTTPError):  # noqa: N818
    """Ends the Hub's own handling of query arguments: the form appears, filled, with no error.

    The Hub would start a server from a link; only the form's button may do that.
    """

    def __init__(self) -> None:
        super().__init__(HTTPStatus.OK, "Query arguments fill the form; they start nothing.")
        self.jupyterhub_message = ""
        self.jupyterhub_html_message = ""


def refused(error: errors.GpuDevError) -> SpawnRefused:
    """What the service said no with, as an answer of the Hub.

    A refused token is the operator's matter and not the visitor's: they read that the service is
    not available.
    """
    if isinstance(error, (errors.NotAuthenticated, errors.NotAllowed)):
        return SpawnRefused(AWAY, status=HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, errors.RefusalError):
        status = error.status if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else 409
        return SpawnRefused(error.message, status=status, field=error.field)
    return SpawnRefused(AWAY, status=HTTPStatus.SERVICE_UNAVAILABLE)


def over(reservation: Reservation) -> SpawnRefused:
    """The answer to a start of a reservation that has ended."""
    why = f": {reservation.reason.rstrip('.')}" if reservation.reason else ""
    return SpawnRefused(
        f"This reservation is over ({reservation.state}{why}). Make a new one to go on working.",
        status=HTTPStatus.GONE,
    )


def ended(reservation: Reservation) -> SpawnRefused:
    """The answer to a start whose reservation ended under way; the reason is the reservation's."""
    why = f": {reservation.reason}" if reservation.reason else "."
    return SpawnRefused(
        f"The reservation ended before the server was ready{why}", status=HTTPStatus.CONFLICT
    )
