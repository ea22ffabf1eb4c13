"""What can go wrong, as one tree.

    GpuDevError
    ├── RefusalError            the service said no, with a reason that a person can act on
    │   ├── InvalidInput        a field is wrong; `field` and `accepted` say which and what would do
    │   ├── NotAuthenticated    no token, or one that is unknown, expired or revoked
    │   ├── NotAllowed          the token may not do this
    │   ├── NotFound            not there, or not to be seen by this caller: the same answer
    │   ├── Conflict            policy, quota, a taken name, a disk in use, the wrong state
    │   └── TooManyRequests     slow down
    ├── Unreachable             no answer: not connected, cut off, timed out, still unavailable
    ├── ServerFault             an answer that is not the API's, or an internal error over there
    ├── ReservationEnded        a reservation that was waited for is over; carries it
    ├── WaitTimeout             a wait with a time limit that has passed
    ├── RemoteError             a program or a file on a server that could not be reached or copied
    └── ConfigError             nothing configured, or a configuration that must not be used

Every message is a sentence for a person and carries neither a token nor an internal path.
"""

# ruff: noqa: N818 - the names say what happened; "Error" would add nothing at the call
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import Reservation


class GpuDevError(Exception):
    """Base of everything that the client raises on purpose."""


class ConfigError(GpuDevError):
    """There is no usable configuration; the message says how to mend it."""


class Unreachable(GpuDevError):
    """The service gave no answer in time. A repeated call is safe: it carries the same key."""


class ServerFault(GpuDevError):
    """The service answered, but not as the API does. `request_id` finds it in the service's log."""

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class WaitTimeout(GpuDevError):
    """The time limit of a wait has passed; the reservation goes on."""


class RemoteError(GpuDevError):
    """Something could not be done on a server by SSH; the message says what and why."""


class ReservationEnded(GpuDevError):
    """A reservation that was waited for is over. `reservation` is its last state."""

    def __init__(self, reservation: Reservation) -> None:
        reason = f": {reservation.reason}" if reservation.reason else "."
        super().__init__(f"Reservation {reservation.id} is {reservation.state.value}{reason}")
        self.reservation = reservation


class RefusalError(GpuDevError):
    """The service refused.

    Attributes:
        code: stable word for programs, such as `quota` or `disk_in_use`.
        message: a sentence or two for a person.
        field: the input that is at fault, if one is.
        accepted: what would be accepted in its place (choices, a number, a range), if known.
        status: the HTTP status.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: str | None = None,
        accepted: Any = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.accepted = accepted
        self.status = status


class InvalidInput(RefusalError):
    """A field is wrong."""


class NotAuthenticated(RefusalError):
    """The token is missing, unknown, expired or revoked."""


class NotAllowed(RefusalError):
    """The token may not do this."""


class NotFound(RefusalError):
    """Not there, or not for this caller."""


class Conflict(RefusalError):
    """It cannot be done as things stand."""


class TooManyRequests(RefusalError):
    """Too many calls; slow down."""


_BY_STATUS: dict[int, type[RefusalError]] = {
    400: InvalidInput,
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: InvalidInput,
    422: InvalidInput,
    429: TooManyRequests,
}


def refusal(
    status: int, code: str, message: str, field: str | None = None, accepted: Any = None
) -> RefusalError:
    """The error of the tree that fits an answer with this HTTP status."""
    kind = _BY_STATUS.get(status, RefusalError)
    return kind(code, message, field=field, accepted=accepted, status=status)
