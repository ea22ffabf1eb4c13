"""The Hub process's one connection to the reservation service, shared by all spawners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from gpudev_client import AsyncClient, errors
from gpudev_client.models import Reservation, ServerReport
from gpudev_client.states import LIVE

from .waiting import Watch

log = logging.getLogger(__name__)

#: Most seconds between the attempts of a report that must arrive, and how many there are.
_REPORT_PAUSE, _REPORT_ATTEMPTS = 30.0, 20


class Connection:
    """Client, event stream and background reports of one Hub process."""

    def __init__(self, url: str, token: str) -> None:
        self.client = AsyncClient(url, token)
        self.watch = Watch(self.client)
        self._sentinel: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()

    def arm(self) -> None:
        """Makes `hub_is_stopping` able to tell; called when a start begins."""
        if self._sentinel is None or self._sentinel.done():
            self._sentinel = asyncio.create_task(_for_ever(), name="gpudev sentinel")

    def hub_is_stopping(self) -> bool:
        """Whether the Hub is cancelling all of its tasks, not just the one of a caller.

        A stopping Hub and a person who leaves the queue look alike to a waiting start; only the
        former also cancels a task that belongs to nobody.
        """
        return self._sentinel is not None and self._sentinel.cancelling() > 0

    async def live(self, user: str, server_name: str) -> Reservation | None:
        """The reservation of this server that is not over, if there is one."""
        async for reservation in self.client.reservations(user=user, states=LIVE):
            if reservation.server_name == server_name:
                return reservation
        return None

    async def report(
        self, reservation_id: str, report: ServerReport, *, patience: float | None = None
    ) -> Reservation | None:
        """Tells the service about a server and returns the reservation as it stands then.

        A service that is away, or does not answer within `patience` seconds, is told later, in the
        background (then None is returned); its refusal is logged, since by then the reservation has
        moved on without us.
        """
        try:
            async with asyncio.timeout(patience):
                return await self.client.report_server(reservation_id, report)
        except (errors.Unreachable, errors.ServerFault, TimeoutError):
            self.later(self._report_until_heard(reservation_id, report))
        except errors.RefusalError as refusal:
            log.info("%s of %s was not taken: %s", report.status, reservation_id, refusal)
        return None

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs `work` beside the caller and keeps hold of it until it is done."""
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _report_until_heard(self, reservation_id: str, report: ServerReport) -> None:
        for attempt in range(_REPORT_ATTEMPTS):
            await asyncio.sleep(min(_REPORT_PAUSE, 2.0**attempt))
            try:
                await self.client.report_server(reservation_id, report)
            except (errors.Unreachable, errors.ServerFault):
                continue
            except errors.RefusalError as refusal:
                log.info("%s of %s was not taken: %s", report.status, reservation_id, refusal)
            return
        log.warning("%s of %s could not be reported", report.status, reservation_id)


async def _for_ever() -> None:
    await asyncio.Event().wait()


_connections: dict[tuple[str, str], Connection] = {}


def shared(url: str, token: str) -> Connection:
    """The connection for this service and token; one per process and event loop."""
    key = (url, token)
    if key not in _connections:
        _connections[key] = Connection(url, token)
    return _connections[key]
