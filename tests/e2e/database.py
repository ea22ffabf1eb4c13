"""The service's database, read from outside as whoever operates it could."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import create_engine, text

from tests.fixtures.hub import RunningHub


class Database:
    """Read only; every query is a transaction of its own.

    Args:
        hub: whose database it is; None where the address is given.
        url: as for the service; without it, the SQLite file in the Hub's service directory.
    """

    def __init__(self, hub: RunningHub | None, url: str | None = None) -> None:
        if url is None:
            assert hub is not None
            url = f"sqlite:///{hub.data_dir / 'gpudev.sqlite'}"
        self._engine = create_engine(url)

    def rows(self, query: str, **values: Any) -> list[Mapping[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def close(self) -> None:
        self._engine.dispose()


def moment(value: Any) -> datetime | None:
    """A time as the database gives it: text on SQLite, aware or naive UTC elsewhere."""
    if value is None:
        return None
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    assert isinstance(found, datetime)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
