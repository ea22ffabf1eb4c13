"""How what the loops depend on is: the clock, the database, the view of the fleet.

It stands among the health of the loops. Of the clock is told in the log, too, as the service does
not follow when the machine's is moved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from gpudev_client import words
from gpudev_client.models import LoopHealth
from gpudev_service.context import Context
from gpudev_service.other_clocks import LEAST, Difference

log = logging.getLogger(__name__)

#: A machine's clock that was moved by more than this is reported.
_DRIFT = timedelta(seconds=5)


class Surroundings:
    """What the loops of one service depend on."""

    def __init__(self, ctx: Context) -> None:
        self._ctx, self._behind = ctx, timedelta(0)
        self._drift_told = timedelta(0)
        self._differed = False

    def begin(self, behind: timedelta) -> None:
        """The service has started, with a clock that lay so far behind what had been written down
        before."""
        self._behind = behind
        if behind > _DRIFT:
            log.error("%s", _behind_words(behind))
        if absence := self._ctx.other_clocks.absence(self._ctx.clock.now()):
            log.warning("%s", absence.why)

    def health(self, now: datetime) -> list[LoopHealth]:
        return [*self._damage(now), *self._fleet(now), self._clock(now)]

    def tell(self) -> None:
        """What there is to say of the clock since the last time."""
        self._tell_drift()
        self._tell_difference()

    def _damage(self, now: datetime) -> Iterator[LoopHealth]:
        """Of a database that was found damaged: what the loops read may still be whole."""
        if damage := self._ctx.store.damage:
            yield LoopHealth(name="database", last_run_at=now, ok=False, message=damage)

    def _clock(self, now: datetime) -> LoopHealth:
        drift, clocks, wrong = self._ctx.clock.drift(), self._ctx.other_clocks, []
        if self._behind > _DRIFT:
            wrong.append(_behind_words(self._behind))
        elif abs(drift) > _DRIFT:
            wrong.append(_drift_words(drift))
        if difference := clocks.difference(now):
            wrong.append(_difference_words(difference))
        absence = clocks.absence(now)
        told = wrong or ([absence.why] if absence is not None else [])
        message = "; ".join(told) or None
        return LoopHealth(name="clock", last_run_at=now, ok=not wrong, message=message)

    def _fleet(self, now: datetime) -> Iterator[LoopHealth]:
        """The fleet as it is seen: while it is not, nothing new is placed. And whether it can be
        made larger where somebody is promised that it is."""
        view = self._ctx.fleet.view()
        yield LoopHealth(name="view", last_run_at=now, ok=view.fresh, message=view.trouble)
        grows = view.no_growth is None
        yield LoopHealth(name="scale_up", last_run_at=now, ok=grows, message=view.no_growth)

    def _tell_drift(self) -> None:
        """Once for each time that the clock is moved."""
        drift = self._ctx.clock.drift()
        if abs(drift - self._drift_told) > _DRIFT:
            log.warning("%s; leases keep to the time of before", _drift_words(drift))
            self._drift_told = drift

    def _tell_difference(self) -> None:
        """When it begins and when it ends."""
        difference = self._ctx.other_clocks.difference(self._ctx.clock.now())
        if (difference is not None) != self._differed:
            self._differed = difference is not None
            if difference is None:
                log.info("the service's clock and those of others agree again")
            else:
                log.error("%s", _difference_words(difference))


def _drift_words(drift: timedelta) -> str:
    told = f"the machine's clock was moved by {drift.total_seconds():+.0f} s since the start"
    if abs(drift) > LEAST:
        told += "; nothing is removed for good until the service starts again"
    return told


def _difference_words(difference: Difference) -> str:
    return (
        f"{difference}, so one of the two is wrong: leases keep to the service's, and nothing is"
        " removed for good until they agree. Set the one that is wrong; if it is this machine's,"
        " start the service again"
    )


def _behind_words(behind: timedelta) -> str:
    return (
        f"the machine's clock was {words.duration(behind.total_seconds())} behind the last entry of"
        " the database when the service started, so leases last longer than they should: set the"
        " clock and start the service again. If the clock is right now, it was ahead before: then"
        " this is over with a start after the next event of a reservation"
    )
