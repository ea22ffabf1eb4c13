"""The one connection between a reservation's server and the service.

`Link` follows the reservation's event stream with the server's own token and reads the lab view
anew on each event: who may come in, until when, what the disk has. While the stream is up nothing
is polled; when it is down, it is tried again with pauses that grow to a bound, and what is known
stays in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine

from gpudev_client import AsyncClient, errors
from gpudev_client.models import (
    ClosingReport,
    Event,
    LabView,
    SshHostReport,
    TicketHolder,
)
from gpudev_client.states import FINAL

log = logging.getLogger(__name__)

#: Seconds between two attempts to reach a service that is away: the first pause and the longest.
#: Whoever was removed meanwhile has to be out within five seconds after the service is back.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 4.0
#: The shortest part of a pause: the rest is left to chance, so that not all servers come at once.
_SHORTEST_PART = 0.5
#: Seconds for which a stream has to last to count as sound, so that the next pause is the first.
_SOUND = 30.0
#: Seconds without a sign of life after which the stream counts as dead; the service sends one every
#: fifteen.
SILENCE = 35.0
#: Seconds that a last word to the service may take.
_CLOSING_PATIENCE = 5.0

#: Called after each new view, and when the service goes away or is back.
Listener = Callable[[], None]


class Link:
    """What this server knows of its reservation, kept up to date.

    Attributes:
        view: the newest view; None until the service has answered for the first time.
        away: a sentence that says why the view may be old; None while the service answers.
    """

    def __init__(
        self,
        client: AsyncClient,
        reservation_id: str,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.client = client
        self.reservation_id = reservation_id
        self.view: LabView | None = None
        self.away: str | None = None
        #: Is given each event of the reservation.
        self.on_event: Callable[[Event], Awaitable[None]] | None = None
        self._pause = pause
        self._listeners: dict[object, Listener] = {}
        self._following: asyncio.Task[None] | None = None
        self._stream: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[LabView] | None = None
        #: The read that follows the present one, as long as it has not begun.
        self._next: asyncio.Task[LabView] | None = None

    def start(self) -> None:
        """Begins to follow; called once, in the event loop."""
        self._following = asyncio.create_task(self._follow(), name="gpudev events")

    async def stop(self) -> None:
        """Ends the connection."""
        for task in (self._following, self._stream, self._next, self._reading):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, errors.GpuDevError):
                    await task
        await self.client.close()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` after each new view, and when the service goes away or is back; returns
        what ends that."""
        key = object()
        self._listeners[key] = listener

        def unsubscribe() -> None:
            self._listeners.pop(key, None)

        return unsubscribe

    # --- what the service is asked and told -----------------------------------------------------

    async def refresh(self) -> LabView:
        """Reads the view; callers at the same time share one request, also one that is on its way.

        Raises:
            GpuDevError: the service does not answer, or refuses.
        """
        if self._next is not None:
            return await asyncio.shield(self._next)
        return await self._joined(self._reading)

    async def renew(self) -> LabView:
        """The same because of news: the answer is to a request that began after this call, since
        one that is on its way may have passed the service's database before the news.

        Raises:
            GpuDevError: the service does not answer, or refuses.
        """
        if self._next is None:
            before = self._reading
            if before is None or before.done():
                return await self._joined(None)
            self._next = self._begun(self._read_after(before))
        return await asyncio.shield(self._next)

    async def redeem(self, ticket: str) -> TicketHolder:
        """Whose ticket it is; each is good for one time."""
        return await self.client.redeem_ssh_ticket(self.reservation_id, ticket)

    async def publish_host(self, report: SshHostReport) -> None:
        """Tells how this server is reached by SSH."""
        await self.client.report_ssh_host(self.reservation_id, report)

    async def closing(self, report: ClosingReport) -> None:
        """Tells what was saved before the end; the end waits for it, so it is quick or given up."""
        async with asyncio.timeout(_CLOSING_PATIENCE):
            await self.client.report_closing(self.reservation_id, report)

    # --- inside -----------------------------------------------------------------------------------

    async def _joined(self, reading: asyncio.Task[LabView] | None) -> LabView:
        """The answer to `reading`, or to a new request where that is over."""
        if reading is None or reading.done():
            reading = self._reading = self._begun(self._read())
        # Shielded: a caller who gives up does not take the answer away from the others.
        return await asyncio.shield(reading)

    def _begun(self, work: Coroutine[None, None, LabView]) -> asyncio.Task[LabView]:
        task = asyncio.create_task(work, name="gpudev view")
        # What went wrong is known already, also where nobody waits for it any more.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _read_after(self, before: asyncio.Task[LabView]) -> LabView:
        """One read at a time: an older answer never replaces a newer one."""
        await asyncio.wait([before])
        self._reading, self._next = self._next, None
        return await self._read()

    async def _read(self) -> LabView:
        try:
            view = await self.client.lab(self.reservation_id)
        except (errors.Unreachable, errors.ServerFault) as error:
            self._lost(error)
            # A proxy may keep a stream open whose other end is dead: it is opened anew.
            if self._stream is not None:
                self._stream.cancel()
            raise
        changed = view != self.view or self.away is not None
        self.view, self.away = view, None
        if changed:
            self._tell()
        return view

    async def _follow(self) -> None:
        """Until the reservation is over."""
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            self._stream = asyncio.create_task(self._follow_once(), name="gpudev event stream")
            try:
                await asyncio.wait([self._stream])
            finally:
                self._stream.cancel()
            if not self._stream.cancelled():
                error = self._stream.exception()
                if isinstance(error, Exception):
                    self._lost(error)
                elif self.view is not None and self.view.reservation.state in FINAL:
                    return  # the last event told a final state
            lasted = asyncio.get_running_loop().time() - began
            failures = 1 if lasted > _SOUND else failures + 1
            bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
            part = random.uniform(_SHORTEST_PART, 1.0)  # noqa: S311 - not a secret
            await self._pause(bound * part)

    async def _follow_once(self) -> None:
        """One connection to the stream; its first event is the present state."""
        async for event in self.client.events(self.reservation_id, attempts=1, silence=SILENCE):
            if self.on_event is not None:
                await self.on_event(event)
            await self.renew()

    def _lost(self, error: Exception) -> None:
        told = self.away
        self.away = (
            "The reservation service does not answer at the moment; "
            "what is shown is the last that is known."
        )
        if isinstance(error, errors.RefusalError):
            self.away = f"The reservation service refuses this server: {error}"
        if not isinstance(error, errors.GpuDevError):
            # Of our own making. Following goes on, or nobody who is removed would have to leave.
            log.error("following the reservation service failed", exc_info=error)
        elif told is None:
            log.warning("the reservation service: %s", error)
        if told != self.away:
            self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener()
            except Exception:
                # The others close connections of people who may not come in any more.
                log.exception("a part of this server could not take in news of the reservation")
