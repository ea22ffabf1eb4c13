"""Each failure of a database is one that passes, one that somebody has to mend, or a fault."""

import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from gpudev_service.store.transient import (
    is_damage,
    is_transient,
    lasting_cause,
    name_of,
    pause_after,
)


def wrapped(orig: BaseException, *, lost: bool = False) -> DBAPIError:
    """As SQLAlchemy raises it."""
    return DBAPIError("SELECT secret", None, orig, connection_invalidated=lost)


def sqlite(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("of a kind")
    error.sqlite_errorcode = code
    return error


def postgres(state: str) -> psycopg.Error:
    return psycopg.errors.lookup(state)("of a kind")


@pytest.mark.parametrize(
    "orig",
    [
        *map(sqlite, (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_BUSY_SNAPSHOT)),
        *map(postgres, ("40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "25P03")),
        *map(postgres, ("08006", "08001")),
        psycopg.OperationalError("no connection was to be had"),
    ],
    ids=repr,
)
def test_what_passes_is_tried_again(orig: Exception) -> None:
    assert is_transient(wrapped(orig))
    assert lasting_cause(wrapped(orig)) is None


@pytest.mark.parametrize(
    ("orig", "cause"),
    [
        (sqlite(sqlite3.SQLITE_FULL), "its disk is full"),
        (sqlite(sqlite3.SQLITE_READONLY), "its file cannot be written"),
        (sqlite(sqlite3.SQLITE_READONLY_DBMOVED), "its file cannot be written"),
        (sqlite(sqlite3.SQLITE_PERM), "its file cannot be written"),
        (sqlite(sqlite3.SQLITE_CANTOPEN), "its file cannot be opened"),
        (sqlite(sqlite3.SQLITE_IOERR), "its disk reports errors"),
        (sqlite(sqlite3.SQLITE_CORRUPT), "it is damaged; restore a backup"),
        (
            sqlite(sqlite3.SQLITE_NOTADB),
            "its file is not a SQLite database, or damaged; restore a backup",
        ),
        (postgres("53100"), "its disk is full"),
        (postgres("53200"), "it has no memory left"),
        (postgres("25006"), "it takes no changes, as a standby does"),
        (postgres("58030"), "its disk reports errors"),
        (postgres("XX001"), "it is damaged; restore a backup"),
        (postgres("XX002"), "it is damaged; restore a backup"),
    ],
    ids=repr,
)
def test_what_lasts_is_said_in_words(orig: Exception, cause: str) -> None:
    assert not is_transient(wrapped(orig))
    assert lasting_cause(wrapped(orig)) == cause


@pytest.mark.parametrize(
    "error",
    [
        wrapped(sqlite(sqlite3.SQLITE_ERROR)),
        wrapped(sqlite3.OperationalError("without a code")),
        wrapped(postgres("42P01")),
        wrapped(psycopg.ProgrammingError("without a state")),
        wrapped(ValueError("of no database")),
        IntegrityError("SELECT secret", None, sqlite(sqlite3.SQLITE_CONSTRAINT)),
        ValueError("not even of the store"),
    ],
    ids=repr,
)
def test_a_fault_is_neither(error: Exception) -> None:
    assert not is_transient(error)
    assert lasting_cause(error) is None


def test_a_lost_connection_and_a_full_pool_pass() -> None:
    assert is_transient(wrapped(postgres("42P01"), lost=True))
    assert is_transient(PoolTimeoutError("all are taken"))
    assert lasting_cause(PoolTimeoutError("all are taken")) is None
    # A refused row stays refused, whatever has become of the connection.
    refused = IntegrityError("INSERT", None, postgres("23505"), connection_invalidated=True)
    assert not is_transient(refused)


def test_a_log_gets_the_kind_and_the_code_only() -> None:
    assert name_of(wrapped(postgres("40001"))) == "SerializationFailure 40001"
    named = sqlite3.OperationalError("of a kind")
    named.sqlite_errorname = "SQLITE_BUSY"
    assert name_of(wrapped(named)) == "OperationalError SQLITE_BUSY"
    assert name_of(wrapped(ValueError("secret"))) == "ValueError"
    assert name_of(TimeoutError("secret")) == "TimeoutError"


@pytest.mark.parametrize(
    ("attempt", "jitter", "seconds"),
    [(1, 0.0, 0.01), (1, 1.0, 0.02), (2, 0.0, 0.02), (3, 0.5, 0.06), (6, 0.0, 0.32), (7, 0.0, 0.5)],
)
def test_pauses_double_up_to_a_limit(attempt: int, jitter: float, seconds: float) -> None:
    assert pause_after(attempt, jitter) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("orig", "damaged"),
    [
        (sqlite(sqlite3.SQLITE_CORRUPT), True),
        (sqlite(sqlite3.SQLITE_NOTADB), True),
        (sqlite3.OperationalError("Could not decode to UTF-8 column"), True),
        *((sqlite(getattr(sqlite3, f"SQLITE_{name}")), False)
          for name in ("FULL", "READONLY", "PERM", "CANTOPEN", "IOERR", "BUSY", "ERROR")),
        (postgres("XX001"), False),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_damage_of_a_file(orig: Exception, damaged: bool) -> None:
    """After that nothing is written any more: a disk that is full for a while must not count."""
    assert is_damage(wrapped(orig)) is damaged
