"""Tasks that outlive the call which began them.

What such a task does is also written in the database, so that a crash loses the task but not the
work: the reconcile loop takes it up again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """Keeps tasks by key, one at a time for each, and reports what they raise."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: What long work says of its progress, by the id of what it works on.
        self.progress: dict[str, str] = {}

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
