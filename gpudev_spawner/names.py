"""Server names that cannot be confused with another server of the Hub.

The Hub joins user and server name with "-" where it names a server's OAuth client, so `alice` with
the server `prod` and the user `alice-prod` would share one client, and whoever starts second takes
the logins of the first. Our spawners give every server a client id that no other pair can have, and
on top of it refuse a name that reads like another server once both are joined, because other parts
of an installation (proxies, logs, pods) join names the same way. Ids that gpudev makes are random
and without "-"; nobody can aim at one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from jupyterhub import orm

from gpudev_client import limits

from .refusals import SpawnRefused


def client_id(user: str, server_name: str) -> str:
    """The OAuth client id of a server; different for every pair of user and server name.

    Quoting leaves no "!" in either name, so the mark between them is always the one set here. It
    may stand in a cookie's name, which is what the single-user server makes of it.
    """
    joined = f"jupyterhub-user-{quote(user, safe='')}"
    return f"{joined}!{quote(server_name, safe='')}" if server_name else joined


def collides(db: Any, user: str, server_name: str) -> bool:
    """Whether a person's own server name reads like another server of the Hub.

    The default server and names that gpudev made never do. Looked at in both directions: a user
    whose name is ours joined, and another user with a server whose joined name is the same.
    `db` is the Hub's own database session.
    """
    if not server_name or limits.is_reservation_id(server_name):
        return False
    joined = f"{user}-{server_name}"
    if db.query(orm.User.id).filter_by(name=joined).first() is not None:
        return True
    return any(
        db.query(orm.Spawner.id)
        .join(orm.User)
        .filter(orm.User.name == other_user, orm.Spawner.name == other_server)
        .first()
        is not None
        for other_user, other_server in _splits(joined)
        if other_user != user
    )


def check(db: Any, user: str, server_name: str) -> None:
    """Raises `SpawnRefused` where the name collides; says nothing about who the other one is."""
    if collides(db, user, server_name):
        raise SpawnRefused(
            f"A server named “{server_name}” could be confused with another one of this Hub. "
            "Please use “Reserve GPUs” on the home page: it chooses a name for you.",
            status=409,
            field="server_name",
        )


def _splits(joined: str) -> Iterator[tuple[str, str]]:
    for at, character in enumerate(joined):
        if character == "-" and joined[:at] and joined[at + 1 :]:
            yield joined[:at], joined[at + 1 :]
