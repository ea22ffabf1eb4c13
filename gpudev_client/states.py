"""The states of a reservation, in one place for every surface.

    scheduled ──► queued ──► preparing ──► active ──► stopping ──► expired | cancelled | failed

`scheduled` is a booking that waits for its time. Every live state may also go straight to a final
one where there is nothing to stop. The service's `operations.transitions` holds the table of moves
that are allowed; this module only says what each state means, without heavy imports, so that the
command line can use it at once.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a reservation stands."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    PREPARING = "preparing"
    ACTIVE = "active"
    STOPPING = "stopping"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


#: Waits for GPUs; holds none.
WAITING = frozenset({State.SCHEDULED, State.QUEUED})
#: A lease runs: GPUs are held (`stopping` holds them until the server is verified to be gone).
LEASED = frozenset({State.PREPARING, State.ACTIVE, State.STOPPING})
#: Not over yet: the disk is locked, the server's name is taken.
LIVE = WAITING | LEASED
#: Over; never left again.
FINAL = frozenset({State.EXPIRED, State.CANCELLED, State.FAILED})
