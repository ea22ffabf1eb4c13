"""Tickets: each lets one person make one SSH connection to one reservation's server.

They live in memory, as hashes, for a minute; a service that ends in between costs the client
another call. Nobody can push out the tickets of somebody else by asking for many.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gpudev_service.clock import elapsed

#: Seconds until a ticket is void; how many one person may have open, and all together.
LIFE = 60.0
EACH_MAX, ALL_MAX = 200, 20_000


@dataclass(frozen=True, slots=True)
class _Ticket:
    reservation_id: str
    user: str
    issued: float


class Tickets:
    """Issues tickets and redeems each once.

    Args:
        time: seconds, monotonic.
    """

    def __init__(self, time: Callable[[], float] = elapsed) -> None:
        self._time = time
        self._open: OrderedDict[str, _Ticket] = OrderedDict()
        self._of: dict[str, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def issue(self, reservation_id: str, user: str) -> str:
        """A fresh ticket."""
        self._drop_old()
        own = self._of.setdefault(user, OrderedDict())
        if len(own) >= EACH_MAX:
            self._take(next(iter(own)))
        elif len(self._open) >= ALL_MAX:
            self._take(next(iter(self._open)))
        ticket = secrets.token_urlsafe(32)
        key = _hash(ticket)
        self._open[key] = _Ticket(reservation_id, user, self._time())
        self._of.setdefault(user, OrderedDict())[key] = None
        return ticket

    def redeem(self, reservation_id: str, ticket: str) -> str | None:
        """Whose ticket it is, or None. It is used up either way: one that was shown to the wrong
        server is no secret any more."""
        found = self._take(_hash(ticket))
        if found is None or self._time() - found.issued >= LIFE:
            return None
        return found.user if found.reservation_id == reservation_id else None

    def _take(self, key: str) -> _Ticket | None:
        found = self._open.pop(key, None)
        if found is not None:
            own = self._of[found.user]
            del own[key]
            if not own:
                del self._of[found.user]
        return found

    def _drop_old(self) -> None:
        while self._open:
            key, oldest = next(iter(self._open.items()))
            if self._time() - oldest.issued < LIFE:
                return
            self._take(key)


def _hash(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
