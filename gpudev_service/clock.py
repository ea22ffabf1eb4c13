"""The service's only clock.

Leases are promises about spans of time, so a step of the machine's clock must not move them: the
time of day is read once at start-up and carried on by the monotonic clock. A clock that was stepped
meanwhile is reported (`drift`), and followed only at the next start.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment, aware and UTC."""
        ...

    def drift(self) -> timedelta:
        """How far the machine's clock has been moved since the start; positive when ahead."""
        ...


class SteadyClock:
    """Time of day at start-up plus what the monotonic clock has counted since."""

    def __init__(self) -> None:
        self._anchor = datetime.now(UTC)
        self._started = time.monotonic()

    def now(self) -> datetime:
        return self._anchor + timedelta(seconds=time.monotonic() - self._started)

    def drift(self) -> timedelta:
        """How far the machine's clock has been moved since the start; positive when ahead."""
        return datetime.now(UTC) - self.now()
