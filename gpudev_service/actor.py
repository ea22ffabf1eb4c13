"""Who acts: the caller of an operation, after the API has authenticated them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """A user, or the service itself, with the Hub groups that policy looks at.

    `name` is a Hub user name; the service's own doings carry `SERVICE`.
    """

    name: str
    groups: tuple[str, ...] = ()
    admin: bool = False


#: The service's own name in histories; a Hub user cannot be called so (":" is refused there).
SERVICE = Actor(name="gpudev:service", admin=True)
