"""Since when the Hub answers, and which starts it is known to carry out: nobody is blamed for a
start that nobody could carry out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

#: For how long a start is left to a spawner that follows the events and says nothing of it, and to
#: one that is just beginning to follow them.
_SILENCE, _ARRIVAL = timedelta(seconds=60), timedelta(seconds=10)
#: Most starts of which something is kept, the queue included.
_KEPT = 50_000


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


class Starts:
    """Starts that the Hub's spawner looks after, by user and server name.

    It says what it does with each, and follows everybody's events while it starts anything; that
    stream ends with its Hub. To ask the Hub about each start all the time would leave it no time
    to carry them out.
    """

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], datetime] = {}
        self._streams = 0

    def heard(self, user: str, server_name: str, now: datetime) -> None:
        """The spawner has just told of this start."""
        self._heard.pop((user, server_name), None)
        self._heard[user, server_name] = now
        while len(self._heard) > _KEPT:
            del self._heard[next(iter(self._heard))]

    def seen(self, user: str, server_name: str, now: datetime) -> None:
        """The Hub has this start under way. Without a spawner that follows it may forget it."""
        if self._streams:
            self.heard(user, server_name, now)

    @contextmanager
    def following(self) -> Iterator[None]:
        """While a spawner follows the events."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
            if not self._streams:
                self._heard.clear()

    def looked_after(
        self, user: str, server_name: str, since: datetime | None, now: datetime
    ) -> bool:
        """Whether a start that is due `since` then may be left to the spawner."""
        heard = self._heard.get((user, server_name))
        if heard is None:
            return False
        last = heard if since is None else max(heard, since)
        return now - last < (_SILENCE if self._streams else _ARRIVAL)
