"""SQLite without a thread in between, wherever nothing can be waited for.

aiosqlite hands each step of each statement over to a thread of the connection. A statement takes
some tens of microseconds, the way there and back as much again, four times for each. So only what
may wait goes that way: opening, the begin of a writer, which another process may hold up, and its
commit, which waits for the disk. `docs/decisions/0021-sqlite-without-a-hop.md` has the figures.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

import aiosqlite

#: What takes no lock and waits for no disk, of all that a connection does by itself.
_WRITER = frozenset({"cursor", "rollback"})
_READER = _WRITER | {"commit"}


class Connection(aiosqlite.Connection):
    """A connection whose statements are done where they are asked for, within a transaction.

    Args:
        reads: it never writes, so that its begin and commit wait for nobody either.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection], *, reads: bool) -> None:
        super().__init__(connector, iter_chunk_size=64)
        # The interpreter must be able to end while connections are open.
        self._thread.daemon = True
        self._reads = reads
        #: What was handed over to the thread, and what it has done of it. Whoever is cancelled no
        #: longer waits for the thread, but the next statement has to.
        self._sent = self._done = 0

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        open_now = self._running and self._connection is not None
        if open_now and self._sent == self._done and not self._may_wait(fn, *args):
            return fn(*args, **kwargs)
        self._sent += open_now  # the base class refuses the rest
        return await super()._execute(  # type: ignore[no-untyped-call]
            partial(self._count, fn), *args, **kwargs
        )

    def _count(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            self._done += 1

    def _may_wait(self, fn: Callable[..., Any], *args: Any) -> bool:
        owner, name = getattr(fn, "__self__", None), getattr(fn, "__name__", "")
        if isinstance(owner, sqlite3.Cursor):
            if not name.startswith("execute") or self._conn.in_transaction:
                return False
            # The first pragma of a connection opens the file, and its journal.
            return not (self._reads and str(args[0]).startswith("BEGIN"))
        return owner is not self._conn or name not in (_READER if self._reads else _WRITER)


def connect(database: str, *, reads: bool, **options: Any) -> Connection:
    """A connection to be awaited; `options` are those of `sqlite3.connect`."""
    # Used by two threads, though never at once; SQLite itself is built for that.
    options["check_same_thread"] = False
    return Connection(lambda: sqlite3.connect(database, **options), reads=reads)
