"""What the handlers of the API and of the pages share beside the operations' context."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpudev_client.models import LoopHealth
from gpudev_service.context import Context

from .auth import Authenticator
from .idempotency import Idempotency
from .logins import Logins
from .metrics import Metrics
from .people import People
from .ratelimit import RateLimit
from .tickets import Tickets


@dataclass(slots=True)
class Service:
    """Built once by `web.service`. `prefix` is where the Hub's proxy has the service."""

    ctx: Context
    prefix: str
    auth: Authenticator
    people: People
    limit: RateLimit
    idempotency: Idempotency
    logins: Logins
    openapi: bytes
    loops: Callable[[], list[LoopHealth]]
    tickets: Tickets = field(default_factory=Tickets)
    metrics: Metrics = field(default_factory=Metrics)
    #: Seconds after which a stream asks again whether its caller may still listen. With the time
    #: for which an answer of the Hub is believed, a revoked token is out after 5 seconds at most.
    recheck: float = 2.0
    keepalive: float = 15.0
    #: Seconds after which a reader who takes nothing is dropped.
    stuck: float = 30.0
    metrics_public: bool = False
    #: Whether this replica leads; one that stands by is asked only about itself.
    leads: Callable[[], bool] = lambda: True
    #: Event streams that are open.
    streams: set[asyncio.Task[Any]] = field(default_factory=set)
    _active: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def recheck_now(self) -> float:
        """The same for as many streams as there are: all together they ask 100 times a second at
        most, so that a thousand watchers (asking every 10 seconds then) do not wear the Hub out."""
        return max(self.recheck, len(self.streams) / 100)

    def end_streams(self) -> None:
        """Ends every open event stream; their readers come back to whoever serves next."""
        for stream in tuple(self.streams):
            stream.cancel()

    def begun(self) -> None:
        """A request is under way."""
        self._active += 1
        self._quiet.clear()

    def ended(self) -> None:
        self._active -= 1
        if not self._active:
            self._quiet.set()

    async def idle(self, seconds: float) -> bool:
        """Waits until no request is under way, at most `seconds`; whether that came about."""
        if self._active:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), seconds)
        return not self._active
