"""The engines: how connections are set up, and how a transaction begins on each database.

Writers and readers have pools of their own, so that readers never keep a writer waiting for a
connection, and a connection is set up for its purpose once and not at every transaction.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import URL, Connection, NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from . import address, inline
from .errors import StoreBroken, StoreMisconfigured

# Any number will do as long as every gpudev uses the same; advisory locks are per database.
WRITE_LOCK = 0x67707564
_LOCK = text("SELECT CAST(pg_current_xact_id() AS text) FROM pg_advisory_xact_lock(:key)")

# The same few are used again and again: each keeps pages of the database and prepared statements.
_READERS: Mapping[str, Any] = MappingProxyType(
    {"pool_size": 5, "max_overflow": 15, "pool_use_lifo": True}
)
# Kilobytes of the database that one of SQLite's readers keeps: as soon as anybody writes, it begins
# anew, and the system has them at hand. A writer keeps SQLite's own 2,000.
_READER_KEEPS = 512
# A session that holds the write lock and says nothing for so long is ended by the server.
_IDLE_LIMIT_MS = 60_000
# How long a server may say nothing that is not kept waiting by a lock; no less than the network may
# leave unacknowledged what was sent.
_SILENCE_MS = 10_000
# Under what the URL says: notice a server that is gone without a word within seconds.
_PSYCOPG = {
    "application_name": "gpudev",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": _SILENCE_MS,
}
# A table that is rewritten takes its time, in which the server says nothing.
_REWRITING_S = 600.0


def _read_json(text: str | bytes) -> Any:
    """Half of a character, which Python's own reader lets pass, may stand in an older row."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


# No statement's values in an error's words.
_COMMON: Mapping[str, Any] = MappingProxyType(
    {"hide_parameters": True, "json_deserializer": _read_json}
)


class _File:
    """Whether a SQLite database is still the file that was opened first.

    SQLite goes on with one that has been replaced or removed: what it accepts then is gone with the
    process, and new connections join another file with the journal of this one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[int, int] | None = None

    def opened(self) -> None:
        """A connection to it is there."""
        self._opened = self._opened or self._found()

    def check(self) -> None:
        """Raises `StoreBroken` where it is not."""
        if self._opened is not None and self._found() != self._opened:
            raise StoreBroken(
                "The database cannot be used: its file was replaced or removed while it was in use;"
                " stop the service, restore the file or a backup, and start it again."
            )

    def forget(self) -> None:
        """All connections are closed."""
        self._opened = None

    def _found(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class Engines:
    """One engine for write transactions, one for reading."""

    write: AsyncEngine
    read: AsyncEngine
    file: _File | None = None

    async def dispose(self) -> None:
        await self.write.dispose()
        await self.read.dispose()
        if self.file is not None:
            self.file.forget()


def create(url: URL, patience: float) -> Engines:
    """Engines for `url`; a writer waits at most `patience` seconds for another process's lock."""
    wait_ms = int(patience * 1000)
    if address.is_sqlite(url):
        return _sqlite_engines(url, wait_ms)
    return _postgres_engines(url, wait_ms)


def migration_engine(url: URL, patience: float) -> AsyncEngine:
    """An engine whose write transactions may change tables; for one use, without a pool.

    SQLite changes a table by copying it, which foreign keys must not be enforced for.
    """
    wait_ms = int(patience * 1000)
    if address.is_sqlite(url):
        return _sqlite(
            url,
            wait_ms,
            _File(address.sqlite_file(url)),
            begin="BEGIN IMMEDIATE",
            foreign_keys=False,
            # A table that is copied takes its time, in which a signal may come.
            in_thread=True,
            poolclass=NullPool,
        )
    return _postgres(
        url,
        wait_ms,
        silence=_REWRITING_S,
        isolation_level="READ COMMITTED",
        poolclass=NullPool,
    )


def lead_engine(url: URL, seconds: float) -> AsyncEngine:
    """An engine for the connection by which a replica leads or stands by (PostgreSQL).

    No answer is waited for longer than a leader acts without one, half of `seconds`: there is time
    left for a sign of life by another connection. No statement waits for a lock for longer, so that
    the lead can always be looked at.
    """
    acts_ms = int(seconds * 500)
    return _postgres(
        url,
        acts_ms,
        silence=seconds / 2,
        isolation_level="READ COMMITTED",
        poolclass=NullPool,
        limits={"connect_timeout": max(2, int(seconds)), "tcp_user_timeout": acts_ms},
    )


async def begin_write(session: AsyncSession) -> str | None:
    """Begins the session's transaction and waits until it is the only writer.

    Returns PostgreSQL's id of the transaction, by which its outcome can be asked for later; None
    on SQLite, where a commit cannot get lost on the way.
    """
    connection = await session.connection()
    if connection.dialect.name == "sqlite":
        return None  # BEGIN IMMEDIATE has done it
    return str(await connection.scalar(_LOCK, {"key": WRITE_LOCK}))


def _sqlite_engines(url: URL, wait_ms: int) -> Engines:
    file = _File(address.sqlite_file(url))
    return Engines(
        write=_sqlite(url, wait_ms, file, begin="BEGIN IMMEDIATE", pool_size=1, max_overflow=2),
        read=_sqlite(
            url,
            wait_ms,
            file,
            begin="BEGIN DEFERRED",
            read_only=True,
            **_READERS,
        ),
        file=file,
    )


def _sqlite(
    url: URL,
    wait_ms: int,
    file: _File,
    *,
    begin: str,
    read_only: bool = False,
    foreign_keys: bool = True,
    in_thread: bool = False,
    **pool: Any,
) -> AsyncEngine:
    # isolation_level None: the driver would begin transactions by itself, late and only before
    # some statements; switched off, the listener below begins each one.
    options: dict[str, Any] = {"isolation_level": None}
    if not in_thread:
        options["async_creator_fn"] = partial(inline.connect, reads=read_only)
    engine = create_async_engine(url, connect_args=options, **_COMMON, **pool)
    pragmas = [
        f"PRAGMA busy_timeout = {wait_ms}",
        "PRAGMA journal_mode = WAL",
        # In WAL mode NORMAL would lose commits at a power cut: `ACCEPTED_STAYS`.
        "PRAGMA synchronous = FULL",
        f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}",
        f"PRAGMA query_only = {'ON' if read_only else 'OFF'}",
    ]
    if read_only:
        pragmas.append(f"PRAGMA cache_size = -{_READER_KEEPS}")

    @event.listens_for(engine.sync_engine, "do_connect")
    def create_private(*_: Any) -> None:
        file.check()
        # SQLite would create the file readable for everybody; the journal takes its mode. A file
        # that is there must not be opened here: closing it again would take all of this process's
        # locks on it away (POSIX), and another process could change it under our transactions.
        # What else is the matter, a read-only directory say, SQLite tells in its own way.
        with contextlib.suppress(OSError):
            os.close(os.open(address.sqlite_file(url), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: ConnectionPoolEntry) -> None:
        _execute_all(connection, pragmas)
        file.opened()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        file.check()
        connection.exec_driver_sql(begin)

    return engine


def _postgres_engines(url: URL, wait_ms: int) -> Engines:
    silence = (wait_ms + _silence_ms(url)) / 1000
    return Engines(
        # READ COMMITTED on purpose: each statement after the lock sees what the writer before
        # has committed; a snapshot taken by waiting for the lock would not.
        write=_postgres(
            url,
            wait_ms,
            silence=silence,
            isolation_level="READ COMMITTED",
            pool_size=1,
            max_overflow=2,
        ),
        read=_postgres(
            url,
            wait_ms,
            silence=silence,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
            **_READERS,
        ),
    )


def _silence_ms(url: URL) -> int:
    """What the URL says, if it does."""
    try:
        return int(str(url.query.get("tcp_user_timeout", 0))) or _SILENCE_MS
    except ValueError:
        raise StoreMisconfigured(
            "tcp_user_timeout in the database URL is no number of milliseconds."
        ) from None


def _postgres(
    url: URL,
    wait_ms: int,
    *,
    silence: float,
    limits: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> AsyncEngine:
    # The driver is loaded where it is needed.
    from .silence import connect

    connect_args = {k: v for k, v in {**_PSYCOPG, **limits}.items() if k not in url.query}
    connect_args["async_creator_fn"] = partial(connect, silence=silence)
    engine = create_async_engine(
        url, connect_args=connect_args, pool_pre_ping=True, **_COMMON, **options
    )
    settings = [
        f"SET lock_timeout = {wait_ms}",
        f"SET idle_in_transaction_session_timeout = {_IDLE_LIMIT_MS}",
        # An accepted reservation must outlive the server's crash, whatever its configuration.
        (
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        ),
    ]

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: ConnectionPoolEntry) -> None:
        # Outside a transaction, so that the settings stay when the first one is rolled back.
        connection.autocommit = True
        _execute_all(connection, settings)
        connection.autocommit = False

    return engine


def _execute_all(connection: Any, statements: list[str]) -> None:
    cursor = connection.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
    finally:
        cursor.close()
