"""What the clocks of other machines say.

A clock that was ahead when the service read it looks, by the service's own data, like a time for
which the service was away. The database, the Hub and the API server have clocks too, and their
answers come with the time of day: nobody is asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from gpudev_client import words

from .clock import elapsed

#: By how much two clocks may differ before one of them counts as wrong.
LEAST = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Difference:
    """`by` is positive where the service's clock is ahead of the one that is `whose`."""

    whose: str
    by: timedelta

    def __str__(self) -> str:
        side = "ahead of" if self.by > timedelta(0) else "behind"
        return (
            f"the service's clock is {words.duration(abs(self.by).total_seconds())} {side} "
            f"{self.whose}"
        )


@dataclass(frozen=True, slots=True)
class _Said:
    """A time of day with the moments, as they are counted here, between which it was true."""

    moment: datetime
    asked: float
    answered: float


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the time of day may be wrong, in words, and until when that counts, if that is known."""

    why: str
    until: datetime | None


class OtherClocks:
    """The last that each of them has said, and what is known of the time before the start.

    Args:
        count: seconds of a clock that is never moved.
    """

    def __init__(self, count: Callable[[], float] = elapsed) -> None:
        self._count = count
        self._said: dict[str, _Said] = {}
        #: When the loops have begun; None where they do not run. Nobody has been heard before.
        self.begun: datetime | None = None
        self._absence: Doubt | None = None

    def was_away(self, absence: Doubt | None) -> None:
        """What was found out at the start."""
        self._absence = absence

    def absence(self, now: datetime) -> Doubt | None:
        """What is to be told of the time before the start; None once that is long ago."""
        until = None if self._absence is None else self._absence.until
        return self._absence if until is not None and now < until else None

    @property
    def heard_from(self) -> frozenset[str]:
        """Whose clocks have been heard."""
        return frozenset(self._said)

    def heard(self, whose: str, moment: datetime, asked: float) -> None:
        """`whose` clock said `moment` in the answer to what was `asked` then."""
        self._said[whose] = _Said(moment, asked, self._count())

    def heard_date(self, whose: str, header: str | None, asked: float) -> None:
        """The same from the header `Date` of an answer, which need not be there or make sense."""
        if header is None:
            return
        try:
            moment = parsedate_to_datetime(header)
            if moment.tzinfo is not None:
                self.heard(whose, moment.astimezone(UTC), asked)
        except (ValueError, OverflowError):
            return

    def difference(self, now: datetime) -> Difference | None:
        """The largest difference from the service's clock that cannot come from how long answers
        take; None where all agree."""
        found = [Difference(whose, self._by(said, now)) for whose, said in self._said.items()]
        largest = max(found, key=lambda one: abs(one.by), default=None)
        return largest if largest is not None and abs(largest.by) > LEAST else None

    def _by(self, said: _Said, now: datetime) -> timedelta:
        count, since = self._count(), now - said.moment
        least = timedelta(seconds=count - said.answered)
        # A header has whole seconds.
        most = timedelta(seconds=count - said.asked + 1)
        return min(timedelta(0), since - least) + max(timedelta(0), since - most)
