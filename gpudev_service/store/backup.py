"""A copy of a SQLite database while it is in use."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL

from . import address
from .errors import StoreError, StoreMisconfigured

#: Pages per step; between steps the database is free for writers. 1024 pages are 4 MiB.
_STEP_PAGES = 1024

Progress = Callable[[int, int], None]


class BackupFailed(StoreError):  # noqa: N818 - says what is the matter
    """No backup was written; chained to the cause where there is one."""


def backup_sqlite(url: str | URL, destination: Path, *, progress: Progress | None = None) -> Path:
    """Writes a consistent copy of the database to `destination` and returns that path.

    Blocks until it is done (call it in a thread from async code). Writers go on meanwhile; the
    copy is the state of one moment. `destination` is replaced at once and only by a copy that
    is complete, checked and on the disk; it is readable by its owner only. `progress` is called
    after each step with the pages that remain and the pages in all.

    Raises:
        StoreMisconfigured: the database is not SQLite, or the file does not exist.
        BackupFailed: the copy is damaged, or could not be read or written.
    """
    parsed = address.parse(url)
    if not address.is_sqlite(parsed):
        raise StoreMisconfigured(
            "Only a SQLite database is backed up this way; use pg_dump for PostgreSQL."
        )
    source, destination = address.sqlite_file(parsed).absolute(), destination.absolute()
    if not source.is_file():
        raise StoreMisconfigured(f"There is no database to back up: {source}")
    if destination.exists() and destination.samefile(source):
        raise StoreMisconfigured("A backup cannot replace the database itself.")
    partial = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.touch(mode=0o600, exist_ok=False)
        _copy(source, partial, progress)
        _check(partial)
        _sync(partial)
        partial.replace(destination)
        _sync(destination.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"The backup to {destination} failed: {error}") from error
    finally:
        for leftover in (partial, *(Path(f"{partial}{end}") for end in ("-wal", "-shm"))):
            leftover.unlink(missing_ok=True)
    return destination


def _copy(source: Path, partial: Path, progress: Progress | None) -> None:
    def told(_: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(remaining, total)

    # Read-only by URI: a mistyped name must not create an empty database.
    with (
        closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as origin,
        closing(sqlite3.connect(partial)) as copy,
    ):
        # An open read transaction pins the moment: otherwise every commit meanwhile would make
        # the copying start over, and under steady writing it would never end.
        origin.execute("BEGIN")
        origin.execute("SELECT count(*) FROM sqlite_master").fetchone()
        origin.backup(copy, pages=_STEP_PAGES, progress=told, sleep=0)
        origin.rollback()
        # One file that is whole by itself, wherever it is carried.
        copy.execute("PRAGMA journal_mode = DELETE")


def _check(path: Path) -> None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as copy:
        verdict = [row[0] for row in copy.execute("PRAGMA integrity_check")]
        dangling = copy.execute("PRAGMA foreign_key_check").fetchone()
    if verdict != ["ok"] or dangling is not None:
        raise BackupFailed("The copy is damaged; the database should be checked.")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
