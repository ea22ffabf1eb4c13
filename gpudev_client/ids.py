"""Random names for reservations, disks and servers, made the same way by service and spawner."""

import secrets
import string

_FIRST = string.ascii_lowercase
_REST = string.ascii_lowercase + string.digits


def new_id() -> str:
    """A fresh id of sixteen characters, `limits.RESERVATION_ID` in shape; not guessable."""
    return secrets.choice(_FIRST) + "".join(secrets.choice(_REST) for _ in range(15))
