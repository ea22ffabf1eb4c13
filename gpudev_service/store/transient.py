"""Which failures pass by themselves, how long to wait before the next attempt, and what somebody
has to put right where waiting does not help."""

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

# What Python says, without a code, of text that is none: nothing else writes such.
_GARBLED = "Could not decode to UTF-8"
_FULL = "its disk is full"
_DAMAGED = "it is damaged; restore a backup"
#: What is the matter until somebody acts, by SQLite's primary codes and PostgreSQL's SQLSTATE.
_LASTING: dict[int | str, str] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: "its file cannot be written",
    sqlite3.SQLITE_PERM: "its file cannot be written",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_IOERR: "its disk reports errors",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: "its file is not a SQLite database, or damaged; restore a backup",
    "53100": _FULL,
    "53200": "it has no memory left",
    "25006": "it takes no changes, as a standby does",
    "58030": "its disk reports errors",
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}


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
        return _primary(orig) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    import psycopg

    if not isinstance(orig, psycopg.Error):
        return False
    if orig.sqlstate is None:  # the driver's own failure, e.g. no connection was to be had
        return isinstance(orig, psycopg.OperationalError)
    return orig.sqlstate in _PASSING or orig.sqlstate.startswith(_CONNECTION_CLASS)


def lasting_cause(error: BaseException) -> str | None:
    """What has to be put right before the database can be used again, in words for an operator."""
    if not isinstance(error, DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        if str(error.orig).startswith(_GARBLED):
            return _DAMAGED
        return _LASTING.get(_primary(error.orig))
    return _LASTING.get(getattr(error.orig, "sqlstate", None) or "")


def is_damage(error: BaseException) -> bool:
    """Whether a SQLite file is damaged. What is written into it from then on would be lost with it,
    also where the part that is written to is still whole, or is still in memory."""
    if not isinstance(error, DBAPIError) or not isinstance(error.orig, sqlite3.Error):
        return False
    broken = _primary(error.orig) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return broken or lasting_cause(error) == _DAMAGED


def _primary(error: sqlite3.Error) -> int:
    """Extended codes carry the primary one in their low byte."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


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
