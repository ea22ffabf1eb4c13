"""SQLite without a thread: a statement is done where it is asked for.

aiosqlite gives every connection a thread and hands each statement over to it. In a simulation with
nobody else to wait for, that is most of the time, and an order of events that no seed decides.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry

from gpudev_service.store.drivers import Engines


class Inline(aiosqlite.Connection):
    """A connection whose statements are done at once."""

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    def __await__(self) -> Generator[Any, None, aiosqlite.Connection]:
        return self._opened().__await__()

    async def _opened(self) -> aiosqlite.Connection:
        self._connection = self._connector()
        return self

    async def close(self) -> None:
        self._running = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def stop(self) -> None:
        return


def _connect(database: str, **options: Any) -> Inline:
    return Inline(lambda: sqlite3.connect(database, **options), iter_chunk_size=64)


def at_once(engines: Engines) -> None:
    """Lets both engines make such connections. They wait for no disk: a life ends by exceptions,
    never by a power cut."""
    for engine in (engines.write, engines.read):

        @event.listens_for(engine.sync_engine, "do_connect")
        def inline(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
            options["async_creator_fn"] = _connect

        @event.listens_for(engine.sync_engine, "connect")
        def unsynced(connection: Any, _: ConnectionPoolEntry) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA synchronous = OFF")
            cursor.close()
