"""What the Hub's own menu has for the viewer, as far as their login says it.

The Hub makes its menu from the viewer's rights; a login at gpudev carries only those that the
operator lets it carry (`oauth_client_allowed_scopes`). What it does not carry is not offered here:
the Hub's own pages, one click away, have the whole menu.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

_ACCESS = "access:services!service="


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    href: str
    here: bool = False


def services(scopes: Collection[str], prefix: str) -> list[Entry]:
    """The services that the viewer may open, by name; `prefix` is our own, whose last part is our
    name at the Hub."""
    parent, _, own = prefix.rstrip("/").rpartition("/")
    named = {scope.removeprefix(_ACCESS) for scope in scopes if scope.startswith(_ACCESS)}
    return [
        Entry(name, f"{parent}/{quote(name, safe='')}/", here=name == own)
        for name in sorted(named | {own})
    ]


def has_admin(scopes: Collection[str]) -> bool:
    """Whether the Hub offers its page for administrators."""
    return "admin-ui" in scopes
