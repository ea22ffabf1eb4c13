"""The addresses of all pages."""

from __future__ import annotations

import re
from typing import Any

from jupyterhub.services.auth import HubOAuthCallbackHandler
from tornado.web import StaticFileHandler

from gpudev_service.api.service import Service

from . import reservations
from .base import NotFound, PageHandler
from .headers import ALWAYS
from .rendering import STATIC

#: Segments of paths. What cannot be a name at all reaches the handler too, and is not found there.
_PART = "([^/]+)"

_PAGES: tuple[tuple[str, type[PageHandler]], ...] = (
    ("", reservations.Mine),
    (f"reservations/{_PART}", reservations.Details),
    (f"reservations/{_PART}/card", reservations.OneCard),
    (f"reservations/{_PART}/extend", reservations.Extend),
    (f"reservations/{_PART}/cancel", reservations.Cancel),
)


class Asset(StaticFileHandler):
    """Style sheet and scripts."""

    def set_extra_headers(self, path: str) -> None:
        for name, value in ALWAYS.items():
            self.set_header(name, value)
        self.clear_header("Server")


class Callback(HubOAuthCallbackHandler, PageHandler):
    """Where the Hub's login leads back to; its errors look like ours."""

    async def prepare(self) -> None:
        """Nobody is known yet."""


def handlers(service: Service) -> list[tuple[Any, ...]]:
    """Rules for `tornado.web.Application`, to be mounted after the API's: the last one answers for
    every other address below the prefix."""
    prefix = re.escape(service.prefix.rstrip("/") + "/")
    known = {"service": service}
    pages = [(prefix + path, page, known) for path, page in _PAGES]
    return [
        *pages,
        (prefix + "oauth_callback", Callback, known),
        (prefix + r"static/([a-z.-]+)", Asset, {"path": str(STATIC)}),
        (prefix + ".*", NotFound, known),
        (re.escape(service.prefix.rstrip("/")), NotFound, known),
    ]
