"""Where the database is: the operator's URL, turned into one with an async driver."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .errors import StoreMisconfigured

# What an operator may write before `://`, and the driver that it means.
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


def parse(url: str | URL) -> URL:
    """The URL with the async driver that is used for it.

    Raises:
        StoreMisconfigured: another database or driver, a database in memory (each connection
            would have its own), a SQLite file in a directory that does not exist.
    """
    try:
        given = make_url(url)
    except ArgumentError:
        # Not chained: the driver's message repeats the URL, with the password in it.
        raise StoreMisconfigured("The database URL cannot be read.") from None
    driver = _DRIVERS.get(given.drivername)
    if driver is None:
        raise StoreMisconfigured(
            f"{given.drivername!r} is not a database that gpudev knows: use "
            "sqlite:///FILE or postgresql://USER@HOST/NAME."
        )
    parsed = given.set(drivername=driver)
    if is_sqlite(parsed):
        _check_file(parsed)
    return parsed


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def sqlite_file(url: URL) -> Path:
    """The file of a SQLite URL."""
    return Path(url.database or "")


def shown(url: URL) -> str:
    """The URL as it may be logged: without its password, wherever that stands."""
    secret = {"password", "sslpassword"}
    query = {k: ("***" if k in secret else v) for k, v in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def _check_file(url: URL) -> None:
    name = url.database or ""
    if not name or ":memory:" in name or name.startswith("file:"):
        raise StoreMisconfigured("SQLite needs a file: sqlite:///relative or sqlite:////absolute.")
    if not Path(name).absolute().parent.is_dir():
        raise StoreMisconfigured(f"The directory of the database does not exist: {name}")
