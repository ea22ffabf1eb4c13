"""Which failures pass by themselves, and how long to wait before the next attempt."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0

# SQLSTATE codes of PostgreSQL after which the same transaction may succeed.
_PASSING = {
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # a lock was not to be had within lock_timeout
    "57P01",  # the server shuts down, or somebody ended the session
    "57P02",  # the server crashed and restarts
    "57P03",  # the server is starting
    "53300",  # too many connections
    "25P03",  # the session idled inside its transaction
}
_CONNECTION_CLASS = "08"


def is_transient(error: BaseException) -> bool:
    """Whether repeating the whole transaction may help. A refused row never changes by that."""
    if isinstance(error, IntegrityError):
        return False
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    return _driver_says_so(error.orig)


def _driver_says_so(orig: BaseException | None) -> bool:
    if isinstance(orig, sqlite3.Error):
        # Extended codes carry the primary one in their low byte.
        primary = getattr(orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        return primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    import psycopg

    if not isinstance(orig, psycopg.Error):
        return False
    if orig.sqlstate is None:  # the driver's own failure, e.g. no connection was to be had
        return isinstance(orig, psycopg.OperationalError)
    return orig.sqlstate in _PASSING or orig.sqlstate.startswith(_CONNECTION_CLASS)


def name_of(error: BaseException) -> str:
    """The failure in a word for a log: never the statement, its values or the address."""
    orig = error.orig if isinstance(error, DBAPIError) and error.orig else error
    code = getattr(orig, "sqlstate", None) or getattr(orig, "sqlite_errorname", None)
    return f"{type(orig).__name__} {code}" if code else type(orig).__name__


def pause_after(attempt: int, jitter: float) -> float:
    """Seconds to wait after the failed attempt number `attempt` (from 1).

    Doubles from attempt to attempt up to a limit. `jitter` in [0, 1) spreads those who failed
    together over the second half of the span.
    """
    span = min(FIRST_PAUSE_S * 2.0 ** (attempt - 1), LONGEST_PAUSE_S)
    return span * (0.5 + jitter / 2)
