"""A bell for the loops: whoever waits when it rings wakes up, and no ring is missed."""

from __future__ import annotations

import asyncio


class Wake:
    """Take `current` before looking at the world, then wait for it: a change in between counts."""

    def __init__(self) -> None:
        self.current = asyncio.Event()

    def set(self) -> None:
        rung, self.current = self.current, asyncio.Event()
        rung.set()
