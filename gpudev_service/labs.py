"""Which reservations' own servers listen at this moment, and what is waited for from them.

A server follows its reservation's events. When a lease ends early it hears of it there, saves what
is open, and says so; the end waits for that, but only where somebody listens who could.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Labs:
    """Counts the servers' event streams, and passes on that one has closed."""

    def __init__(self) -> None:
        self._listening: Counter[str] = Counter()
        self._closed: dict[str, asyncio.Event] = {}

    def listens(self, key: str) -> bool:
        return self._listening[key] > 0

    @contextmanager
    def listening(self, key: str) -> Iterator[None]:
        """While a server follows the events of the reservation `key`."""
        self._listening[key] += 1
        try:
            yield
        finally:
            self._listening[key] -= 1
            if not self._listening[key]:
                del self._listening[key]
                # Nobody is left who could say more.
                self._closed.pop(key, asyncio.Event()).set()

    def closed(self, key: str) -> None:
        """The server has done what it does before its end."""
        if self.listens(key):
            self._closed.setdefault(key, asyncio.Event()).set()

    async def wait_closed(self, key: str, seconds: float) -> bool:
        """Waits until the server has closed or is gone, at most `seconds`; whether that came."""
        if not self.listens(key):
            return True
        try:
            async with asyncio.timeout(seconds):
                return await self._closed.setdefault(key, asyncio.Event()).wait()
        except TimeoutError:
            return False
