"""The seam between the service and whatever runs the servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Handle = Mapping[str, Any]


class ServersAway(Exception):  # noqa: N818 - a state of the world
    """What runs the servers cannot be asked at the moment: nothing is known of any server."""


class ServerBackend(Protocol):
    """Finds and ends servers by reservation id, with the handle that the spawner reported as a
    hint. None of it needs the Hub: a lease ends even when the Hub is dead. All but `stop`, `tell`
    and `why_gone` may raise `ServersAway`; `stop` is then False."""

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        """Whether anything of the reservation's server still runs."""
        ...

    async def told_gone(self, reservation_id: str) -> None:
        """Returns once something has told by itself that nothing of the server is left, and it was
        verified; never where nobody tells."""
        ...

    async def stop(self, reservation_id: str, handle: Handle | None, grace: float) -> bool:
        """Ends the server: politely, after `grace` seconds by force. True once nothing is left."""
        ...

    async def running(self) -> set[str]:
        """Ids of all reservations of which something runs here."""
        ...

    async def give_up(self) -> None:
        """Ends servers of which nothing was heard for too long, for good: one that is heard of
        later does not serve again. So everybody who looks sees the same."""
        ...

    async def main_gone(self, reservation_id: str, handle: Handle | None) -> bool:
        """Whether the server itself is known to have ended, whatever of it lives on. False where
        the handle does not tell."""
        ...

    async def is_idle(self, reservation_id: str, handle: Handle | None) -> bool:
        """Whether the server runs and nothing else does: no kernel, no terminal, no job of it. To
        end it loses no work. False where that cannot be told."""
        ...

    async def why_gone(self, reservation_id: str) -> str | None:
        """Why the server has ended, in words, as far as that is known."""
        ...

    async def tell(self, reservation_id: str, text: str) -> int:
        """Shows `text` in the server's open terminals and notebooks; how many it reached."""
        ...
