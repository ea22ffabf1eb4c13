"""What one server knows and runs for its lease, held together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from gpudev_client import AsyncClient, errors

from . import panel
from .closing import Closing, Saved
from .gpu import Sampler
from .guard import Guard
from .link import Link

#: What pages are told over the event bus, as `events/lease.yaml` has it.
Hint = Literal["changed", "save"]

log = logging.getLogger(__name__)

#: Seconds for which a view is fresh: what others do moves how far this lease can be extended
#: without an event of its own.
FRESH = 20.0
#: Seconds that a page waits for a fresher view before it gets the one that is known.
_PATIENCE = 2.0
#: Most visitors whose connections to the service are kept.
_CLIENTS = 8
#: Seconds between looks at a snapshot that is being taken, and how many there are.
_SNAPSHOT_EVERY, _SNAPSHOT_LOOKS = 2.0, 150


class LabState:
    """The parts of the extension. `link` is None on a server that stands on no reservation.

    Args:
        owner: whose server it is.
        announce: tells all open pages that something is new.
        event_path: the path of the event bus, by which open pages are counted.
    """

    def __init__(
        self,
        link: Link | None,
        owner: str,
        *,
        sampler: Sampler | None,
        announce: Callable[[Hint], None],
        event_path: str,
        home: Path,
    ) -> None:
        self.link, self.owner, self.sampler = link, owner, sampler
        self.guard = Guard(owner)
        self.closing = (
            None
            if link is None
            else Closing(
                link,
                home,
                tabs=lambda: self.guard.tabs(event_path),
                announce=lambda: announce("save"),
            )
        )
        self._announce, self._home = announce, home
        self._clients: OrderedDict[str, AsyncClient] = OrderedDict()
        self._read_at = -FRESH
        self._snapshot: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """In the event loop, once."""
        if self.link is not None:
            self.link.subscribe(self._news)
            self.link.start()
        if self.sampler is not None:
            self.sampler.start()

    async def stop(self) -> None:
        if self._snapshot is not None:
            self._snapshot.cancel()
        self.guard.close()
        for part in (self.closing, self.sampler, self.link):
            if part is not None:
                await part.stop()
        for client in self._clients.values():
            await client.close()

    def _news(self) -> None:
        assert self.link is not None  # noqa: S101 - subscribed to it
        self._read_at = time.monotonic()
        if self.link.view is not None:
            self.guard.update(self.link.view)
        if self.closing is not None:
            self.closing.update()
        self._announce("changed")

    # --- for the endpoints --------------------------------------------------------------------

    def client_for(self, token: str) -> AsyncClient:
        """The service, asked with a visitor's token. Connections of the last few are kept."""
        assert self.link is not None  # noqa: S101 - asked by endpoints of a reservation
        client = self._clients.pop(token, None) or AsyncClient(self.link.client.url, token)
        self._clients[token] = client
        while len(self._clients) > _CLIENTS:
            _, old = self._clients.popitem(last=False)
            task = asyncio.create_task(old.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        return client

    async def freshen(self) -> None:
        """Reads the view anew where it is old, for a moment; what is known stays otherwise."""
        if self.link is None or time.monotonic() - self._read_at < FRESH:
            return
        self._read_at = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.link.refresh()
        except (errors.GpuDevError, TimeoutError) as error:
            log.debug("no fresher view: %s", error)

    def lease(self, visitor: panel.Visitor) -> panel.Lease:
        now = datetime.now(UTC)
        gpu = self.sampler.look() if self.sampler is not None else None
        if self.link is None:
            return panel.Lease(now=now, visitor=visitor, pages_url="", gpu=gpu)
        return panel.lease(
            self.link,
            visitor,
            now=now,
            folder=str(self._home),
            pages_url=urlsplit(self.link.client.url).path.rstrip("/") + "/",
            gpu=gpu,
            save=self.closing.request if self.closing is not None else None,
        )

    def saved(self, told: Saved) -> None:
        if self.closing is not None:
            self.closing.take(told)

    def watch_snapshot(self) -> None:
        """Looks from time to time until the snapshot that was begun is there: it has no event."""
        if self._snapshot is None or self._snapshot.done():
            self._snapshot = asyncio.create_task(self._until_taken(), name="gpudev snapshot")

    async def _until_taken(self) -> None:
        for _ in range(_SNAPSHOT_LOOKS):
            await asyncio.sleep(_SNAPSHOT_EVERY)
            assert self.link is not None  # noqa: S101 - there is a snapshot of its disk
            try:
                view = await self.link.refresh()
            except errors.GpuDevError as error:
                log.debug("no view while a snapshot is taken: %s", error)
                continue
            if not any(snapshot.state == "taking" for snapshot in view.snapshots):
                return
