"""Tasks that outlive the call which began them.

What such a task does is also written in the database, so that a crash loses the task but not the
work: the reconcile loop takes it up again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

log = logging.getLogger(__name__)


#: The longest of the growing pauses, in seconds.
LONGEST_PAUSE = 60


class Pauses:
    """Until when what was refused is left alone, by key: twice as long each time."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, datetime]] = {}

    def lengthen(self, key: str, now: datetime, longest: int = LONGEST_PAUSE) -> int:
        """Begins the next pause; returns how many there were, this one included."""
        times = self._kept.get(key, (0, now))[0] + 1
        seconds = min(longest, 2 ** min(times - 1, 16))
        self._kept[key] = (times, now + timedelta(seconds=seconds))
        return times

    def last(self, key: str, now: datetime) -> bool:
        """Whether the pause is not over yet."""
        return self.until(key, now) is not None

    def until(self, key: str, now: datetime) -> datetime | None:
        """When the pause is over; None when it is."""
        end = self._kept.get(key, (0, now))[1]
        return end if now < end else None

    def forget(self, key: str) -> None:
        """It is not refused any more."""
        self._kept.pop(key, None)


class Background:
    """Keeps tasks by key, one at a time for each, and reports what they raise."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: What long work says of its progress, by the id of what it works on.
        self.progress: dict[str, str] = {}
        self.pauses = Pauses()

    def running(self, key: str) -> bool:
        return key in self._tasks

    def start(self, key: str, work: Coroutine[Any, Any, None]) -> bool:
        """Runs `work` unless something under `key` runs already; True if it was begun."""
        if key in self._tasks:
            work.close()
            return False
        task = asyncio.create_task(work, name=key)
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return True

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work %s failed", key, exc_info=error)

    async def ended(self, key: str, until: float) -> None:
        """Waits for what runs under `key`, until this time of the event loop at most."""
        task = self._tasks.get(key)
        if task is not None:
            await asyncio.wait({task}, timeout=until - asyncio.get_running_loop().time())

    async def settle(self) -> None:
        """Waits for everything that runs, also what begins meanwhile."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Cancels what runs; its record in the database lets a later start take it up."""
        while self._tasks:  # what is cancelled may begin something else
            for task in self._tasks.values():
                task.cancel()
            await asyncio.wait(self._tasks.values())
