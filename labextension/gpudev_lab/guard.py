"""Who is connected, and out with whoever may not be any more.

The Hub stops a removed collaborator's next request within seconds, but lets WebSockets live that
are open already: kernels, terminals, the event bus. So this server knows the WebSockets of each
person and closes those of people whom the service no longer lists.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeGuard

from jupyter_core.utils import ensure_async
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from gpudev_client.models import LabView

log = logging.getLogger(__name__)

#: Of our own range: "not allowed any more". JupyterLab tries to connect again and is refused.
CLOSE_CODE = 4403
CLOSE_REASON = "Your access to this server has ended."
#: Seconds for the other side to answer a close.
_POLITE = 1.0


class Guard:
    """The WebSockets of one server by person."""

    def __init__(self, owner: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.owner, self._now = owner, now
        self._sockets: weakref.WeakSet[WebSocketHandler] = weakref.WeakSet()
        self._allowed: frozenset[str] = frozenset({owner})
        #: Were allowed and are no longer. The Hub's word about them may be some seconds old.
        self._removed: frozenset[str] = frozenset()
        #: Looks again when the next invitation ends.
        self._again: asyncio.TimerHandle | None = None

    def watch(self, provider: Any) -> None:
        """Sees every request of this server that somebody makes under a name. All of Jupyter's
        handlers, and those of other extensions, find their user by the identity provider."""
        known = provider.get_user

        async def get_user(handler: Any) -> Any:
            user = await ensure_async(known(handler))
            if user is None or self._is_removed(user):
                return None
            if isinstance(handler, WebSocketHandler) and handler not in self._sockets:
                self._sockets.add(handler)
                self._ask_again(handler)
            return user

        provider.get_user = get_user

    def _ask_again(self, handler: WebSocketHandler) -> None:
        """Once more at the upgrade: Jupyter may wait for a kernel between the login and that. From
        there on the connection is one that `update` closes."""
        upgrade = handler.get_websocket_protocol

        def get_websocket_protocol() -> WebSocketProtocol | None:
            if self._is_removed(handler.current_user):
                log.info("no connection for %s, who may not come in any more", _name(handler))
                raise HTTPError(HTTPStatus.FORBIDDEN)
            return upgrade()

        setattr(handler, "get_websocket_protocol", get_websocket_protocol)  # noqa: B010 - of one

    def update(self, view: LabView) -> None:
        """Takes in who may open this server now; the others' WebSockets are closed. An invitation
        that ends before the lease ends here too, whether or not the service says so then."""
        now = self._now()
        ends = {
            a.user: a.until
            for a in view.access
            if a.role == "use" and a.user != self.owner and _ends_before(a.until, view)
        }
        over = {user for user, end in ends.items() if end <= now}
        allowed = frozenset({a.user for a in view.access if a.role == "use"} - over | {self.owner})
        self._removed = (self._removed | self._allowed | over) - allowed
        self._allowed = allowed
        for handler in list(self._sockets):
            if handler.ws_connection is not None and self._is_removed(handler.current_user):
                log.info("closing a connection of %s, who may not come in any more", _name(handler))
                _close(handler)
        self.close()
        if ahead := [end for end in ends.values() if end > now]:
            wait = (min(ahead) - now).total_seconds()
            self._again = asyncio.get_running_loop().call_later(wait, self.update, view)

    def close(self) -> None:
        """Looks no more."""
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def tabs(self, path: str) -> int:
        """How many WebSockets are open at `path`."""
        return sum(
            1
            for handler in list(self._sockets)
            if handler.ws_connection is not None and handler.request.path == path
        )

    def _is_removed(self, user: Any) -> bool:
        # An administrator comes in by their own right, invited or not.
        hub_user = getattr(user, "hub_user", None) or {}
        return user is not None and user.username in self._removed and not hub_user.get("admin")


def _ends_before(until: datetime | None, view: LabView) -> TypeGuard[datetime]:
    """The lease's own end is everybody's, and an extension moves it."""
    end = view.reservation.expires_at
    return until is not None and (end is None or until < end)


def _close(handler: WebSocketHandler) -> None:
    """Politely, and a second later by force: a client that does not answer the close would still be
    listened to for a while."""
    assert handler.ws_connection is not None  # noqa: S101 - asked before
    stream = handler.ws_connection.stream
    handler.close(CLOSE_CODE, CLOSE_REASON)
    if stream is not None:
        asyncio.get_running_loop().call_later(_POLITE, stream.close)


def _name(handler: WebSocketHandler) -> str:
    return str(handler.current_user.username)
