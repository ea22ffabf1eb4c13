"""Addresses of pages, put together in one place so that every name in them is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode


@dataclass(frozen=True, slots=True)
class Addresses:
    """`prefix` is where the pages live, `hub` the Hub's own pages; both end with "/"."""

    prefix: str
    hub: str

    @property
    def home(self) -> str:
        return self.prefix

    @property
    def reserve(self) -> str:
        """The Hub's form for a new reservation."""
        return f"{self.hub}gpudev/new"

    @property
    def events(self) -> str:
        return f"{self.prefix}api/v1/events"

    def page(self, *parts: str, **query: str | None) -> str:
        """The page at `parts`; parameters that are None or empty are left out."""
        path = self.prefix + "/".join(quote(part, safe="") for part in parts)
        given = {name: value for name, value in query.items() if value}
        return f"{path}?{urlencode(given)}" if given else path

    def reservation(self, key: str, *more: str) -> str:
        return self.page("reservations", key, *more)

    def disk(self, name: str, *more: str, user: str | None = None, **query: str | None) -> str:
        return self.page("disks", name, *more, user=user, **query)
