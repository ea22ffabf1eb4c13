"""Notices that the machine has slept.

A suspended machine's timers stand still: a loop that was to look again in five seconds would do so
five seconds after the machine is awake. The service's clock goes on meanwhile, so the two tell of
it together, to whichever loop runs next.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from gpudev_client import words
from gpudev_service.context import Context

log = logging.getLogger(__name__)

#: What the timers may be behind before that is called sleep.
_LEAST = timedelta(seconds=2)


class Slept:
    """How far the timers of this process have fallen behind the service's clock."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._clock, self._timer = self._read()

    def look(self) -> None:
        """Wakes the loops that leases and promises go by where the machine has slept since the last
        look; the others, which only look after things, follow when their pause is over."""
        clock, timer = self._read()
        slept = (clock - self._clock) - timedelta(seconds=timer - self._timer)
        self._clock, self._timer = clock, timer
        if slept >= _LEAST:
            told = words.duration(slept.total_seconds())
            log.warning("this machine has slept for %s; what is due since is done now", told)
            self._ctx.wake.set()

    def _read(self) -> tuple[datetime, float]:
        return self._ctx.clock.now(), asyncio.get_running_loop().time()
