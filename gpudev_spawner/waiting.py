"""Waiting for reservations: one event stream per Hub process for all who wait.

Each waiting start holds an `Entry` and sleeps on an event until the stream brings news of its
reservation; a thousand of them cost one connection and no polling. The stream is opened with the
first entry and closed with the last, reconnects for as long as somebody waits, with growing pauses,
and reads the state of everybody again after each gap, so that nothing depends on what was missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from gpudev_client import AsyncClient, errors
from gpudev_client.models import Reservation
from gpudev_client.states import LIVE

log = logging.getLogger(__name__)

#: Seconds between attempts to reach the service: the first pause and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class Entry:
    """One reservation that somebody waits for, as it was seen last."""

    def __init__(self, reservation: Reservation) -> None:
        self.reservation = reservation
        self.waiters = 1
        self.read_at = time.monotonic()
        self._changed = asyncio.Event()

    def update(self, reservation: Reservation) -> None:
        """Takes a newer state and wakes everybody who waits for one."""
        self.reservation = reservation
        self.read_at = time.monotonic()
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Returns with the next update."""
        await self._changed.wait()


class Watch:
    """The entries of one Hub process and the stream that feeds them."""

    def __init__(
        self, client: AsyncClient, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._client, self._pause = client, pause
        self._entries: dict[str, Entry] = {}
        self._stream: asyncio.Task[None] | None = None

    @contextmanager
    def entry(self, reservation: Reservation) -> Iterator[Entry]:
        """The entry of a reservation for as long as the block runs."""
        entry = self._entries.get(reservation.id)
        if entry is None:
            entry = self._entries[reservation.id] = Entry(reservation)
        else:
            entry.waiters += 1
        if self._stream is None or self._stream.done():
            self._stream = asyncio.create_task(self._follow(), name="gpudev events")
        try:
            yield entry
        finally:
            entry.waiters -= 1
            if entry.waiters == 0:
                del self._entries[reservation.id]
            if not self._entries and self._stream is not None:
                self._stream.cancel()
                self._stream = None

    async def read(self, entry: Entry, *, older_than: float = 0.0) -> None:
        """Asks the service for the state now, unless what is known is younger than `older_than`
        seconds. A service that is away changes nothing: the stream will bring the news."""
        if time.monotonic() - entry.read_at < older_than:
            return
        entry.read_at = time.monotonic()  # at once, so that many readers ask once
        with contextlib.suppress(errors.Unreachable, errors.ServerFault):
            entry.update(await self._client.reservation(entry.reservation.id))

    async def _follow(self) -> None:
        """Feeds the entries until it is cancelled."""
        failures = 0
        while True:
            try:
                async for event in self._client.events():
                    if failures:
                        log.info("the reservation service's events are back")
                    failures = 0
                    entry = self._entries.get(event.reservation.id)
                    if entry is not None:
                        entry.update(event.reservation)
            except errors.GpuDevError as error:
                failures += 1
                level = logging.WARNING if failures == 1 else logging.DEBUG
                log.log(level, "no events from the reservation service: %s", error)
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures, 10))
            await self._pause(pause * random.uniform(0.75, 1.25))  # noqa: S311
            await self._read_all()

    async def _read_all(self) -> None:
        """The state of every entry: the live ones page by page, the others one by one."""
        try:
            missing = set(self._entries)
            async for reservation in self._live():
                entry = self._entries.get(reservation.id)
                missing.discard(reservation.id)
                if entry is not None and entry.reservation != reservation:
                    entry.update(reservation)
            for reservation_id in missing & self._entries.keys():
                entry = self._entries[reservation_id]
                entry.update(await self._client.reservation(reservation_id))
        except errors.GpuDevError as error:
            log.debug("the reservations could not be read again: %s", error)

    async def _live(self) -> AsyncIterator[Reservation]:
        async for reservation in self._client.reservations(user="*", states=LIVE):
            yield reservation
