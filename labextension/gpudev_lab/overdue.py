"""A pod's server that should be gone ends itself.

The cluster ends pods, and where its API server was down, a node looks at it again only after a
pause that has grown meanwhile (up to half a minute). The lease is over all the same, so a server
that has heard so from the service does not wait for its node.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from gpudev_client.models import LabView
from gpudev_client.states import State

from .link import Link

log = logging.getLogger(__name__)

#: Seconds in which somebody else ends the server, after all that it was given time for. The
#: container is to be gone five seconds after the lease's end.
PATIENCE = 3.0


def overdue_at(view: LabView, now: datetime) -> datetime | None:
    """When a server that is still there ends itself, going by a view that is new at `now`; None
    while its lease goes on."""
    reservation = view.reservation
    if reservation.state is not State.STOPPING:
        return None
    until = now + timedelta(seconds=view.closing.early_seconds)
    end = reservation.expires_at or until
    # What is open is saved before the lease's end; an early one gives time for that first.
    return max(now, min(until, end)) + timedelta(seconds=PATIENCE)


def leave() -> None:
    """Ends this process, and with it the container: well, or its node would start it again."""
    log.warning("the lease is over and nobody has ended this server: it ends itself")
    logging.shutdown()
    os._exit(0)


class Overdue:
    """Waits for an end that does not come."""

    def __init__(
        self,
        link: Link,
        *,
        end: Callable[[], None] = leave,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._link, self._end, self._pause = link, end, pause
        self._task: asyncio.Task[None] | None = None

    def update(self) -> None:
        """Takes in what the link knows now; called after each new view."""
        view, now = self._link.view, datetime.now(UTC)
        at = None if view is None else overdue_at(view, now)
        if at is not None and self._task is None:
            self._task = asyncio.create_task(self._wait((at - now).total_seconds()))

    async def _wait(self, seconds: float) -> None:
        await self._pause(seconds)
        self._end()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
