"""What a person typed, kept between a refused start and the form that comes back.

On an error the Hub renders the form of the person's default spawner, whichever server was asked
for, so values that a spawner keeps on itself would be lost. They are kept beside the Hub's user
object, one set at a time, and given out once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from jupyterhub.user import User

from .options import FormValues

#: Seconds after which what was typed is old news.
_FRESH = 600.0


@dataclass(frozen=True, slots=True)
class Stash:
    """What was typed for which server, and a sentence per field that was at fault."""

    server_name: str
    values: FormValues
    errors: Mapping[str, str] = field(default_factory=dict)
    kept_at: float = field(default_factory=time.monotonic)


_stashes: WeakKeyDictionary[User, Stash] = WeakKeyDictionary()


def keep(user: User, stash: Stash) -> None:
    _stashes[user] = stash


def take(user: User, server_name: str | None) -> Stash | None:
    """The stash for a server (None: for whichever was asked for last), which is then gone."""
    stash = _stashes.get(user)
    if stash is None or (server_name is not None and stash.server_name != server_name):
        return None
    del _stashes[user]
    return stash if time.monotonic() - stash.kept_at < _FRESH else None


def drop(user: User) -> None:
    _stashes.pop(user, None)


def blame(user: User, server_name: str, at: str | None, sentence: str) -> None:
    """Adds a sentence at a field to what is kept of this server's form, if anything is."""
    stash = _stashes.get(user)
    if at and stash is not None and stash.server_name == server_name:
        _stashes[user] = replace(stash, errors={**stash.errors, at: sentence})
