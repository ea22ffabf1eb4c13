"""Since when the Hub answers: nobody is blamed for a start that nobody could carry out."""

from __future__ import annotations

from datetime import datetime


class Contact:
    """Whether the Hub answers the service, and since when it has done so without a break.

    `since` is None before the first answer of this process and while the Hub is away.
    """

    def __init__(self) -> None:
        self.since: datetime | None = None

    def answered(self, now: datetime) -> None:
        if self.since is None:
            self.since = now

    def lost(self) -> None:
        self.since = None
