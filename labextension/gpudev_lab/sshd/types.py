"""What this package needs of the connection to the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gpudev_client.models import LabView, SshHostReport, TicketHolder


class Link(Protocol):
    """The part of `gpudev_lab.link.Link` that SSH uses."""

    @property
    def view(self) -> LabView | None: ...

    async def renew(self) -> Any: ...

    def subscribe(self, callback: Callable[[], Any]) -> Callable[[], None]: ...

    async def redeem(self, ticket: str) -> TicketHolder: ...

    async def publish_host(self, report: SshHostReport) -> Any: ...
