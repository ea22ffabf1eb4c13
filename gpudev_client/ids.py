"""Random names for reservations, disks and servers, made the same way by service and spawner; and
where a process finds the reservation that it belongs to."""

import secrets
import string

#: The environment variable with the reservation's id, set in every process of its servers: they
#: are found by it, to be counted and to be ended.
MARK = "GPUDEV_RESERVATION"

_FIRST = string.ascii_lowercase
_REST = string.ascii_lowercase + string.digits


def new_id() -> str:
    """A fresh id of sixteen characters, `limits.RESERVATION_ID` in shape; not guessable."""
    return secrets.choice(_FIRST) + "".join(secrets.choice(_REST) for _ in range(15))
