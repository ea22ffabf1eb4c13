"""The service's only clock.

Leases are promises about spans of time, so a step of the machine's clock must not move them: the
time of day is read once at start-up and carried on by a clock that only counts. A clock that was
stepped meanwhile is reported (`drift`), and followed only at the next start.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

#: By system, the clock that goes on while the machine is suspended.
_COUNTS_SLEEP = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC_RAW"}


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment, aware and UTC."""
        ...

    def drift(self) -> timedelta:
        """How far the machine's clock has been moved since the start; positive when ahead."""
        ...


def elapsed() -> float:
    """Seconds that only ever grow, those included for which the machine has slept.

    `time.monotonic` stands still while a machine is suspended, and a lease does not. Where the
    system has no clock that goes on meanwhile (anything but Linux and macOS), it is used all the
    same: after a sleep the machine's clock then counts as moved.
    """
    name = _COUNTS_SLEEP.get(sys.platform)
    return time.monotonic() if name is None else time.clock_gettime(getattr(time, name))


class SteadyClock:
    """Time of day at start-up plus what has been counted since.

    Args:
        count: seconds of a clock that is never moved.
    """

    def __init__(self, count: Callable[[], float] = elapsed) -> None:
        self._count = count
        self._anchor = datetime.now(UTC)
        self._started = count()

    def now(self) -> datetime:
        return self._anchor + timedelta(seconds=self._count() - self._started)

    def drift(self) -> timedelta:
        """How far the machine's clock has been moved since the start; positive when ahead."""
        return datetime.now(UTC) - self.now()
