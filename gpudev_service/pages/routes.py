"""The addresses of all pages."""

from __future__ import annotations

import re
from typing import Any

from jupyterhub.services.auth import HubOAuthCallbackHandler
from tornado.web import StaticFileHandler

from gpudev_service.api.service import Service
from gpudev_service.errors import Refusal

from . import admin, disks, fleet, keys, people, reservations
from .base import NotFound, PageHandler
from .cli_login import CliLogin
from .headers import ALWAYS
from .rendering import STATIC

#: Segments of paths. What cannot be a name at all reaches the handler too, and is not found there.
_PART = "([^/]+)"

_PAGES: tuple[tuple[str, type[PageHandler]], ...] = (
    ("", reservations.Mine),
    (f"reservations/{_PART}", reservations.Details),
    (f"reservations/{_PART}/card", reservations.OneCard),
    (f"reservations/{_PART}/extend", reservations.Extend),
    (f"reservations/{_PART}/keep", reservations.Keep),
    (f"reservations/{_PART}/cancel", reservations.Cancel),
    (f"reservations/{_PART}/invite", people.Invite),
    (f"reservations/{_PART}/remove", people.Remove),
    ("ssh-keys", keys.Keys),
    ("ssh-keys/remove", keys.Remove),
    ("disks", disks.Disks),
    (f"disks/{_PART}", disks.OneDisk),
    (f"disks/{_PART}/rename", disks.Rename),
    (f"disks/{_PART}/resize", disks.Resize),
    (f"disks/{_PART}/snapshots", disks.Take),
    (f"disks/{_PART}/clone", disks.Clone),
    (f"disks/{_PART}/delete", disks.Delete),
    (f"disks/{_PART}/undelete", disks.Undelete),
    (f"disks/{_PART}/restore", disks.Restore),
    (f"disks/{_PART}/contents", disks.Contents),
    ("fleet", fleet.Fleet),
    ("admin", admin.Admin),
    (f"admin/nodes/{_PART}/drain", admin.Drain),
    (f"admin/nodes/{_PART}/undrain", admin.Undrain),
    (f"admin/types/{_PART}/maintenance", admin.BeginMaintenance),
    (f"admin/types/{_PART}/end", admin.EndMaintenance),
    ("cli-login", CliLogin),
)


class Asset(StaticFileHandler):
    """Style sheet and scripts."""

    def set_extra_headers(self, path: str) -> None:
        for name, value in ALWAYS.items():
            self.set_header(name, value)
        self.clear_header("Server")


class Callback(HubOAuthCallbackHandler, PageHandler):
    """Where the Hub's login leads back to; its errors look like ours."""

    async def enter(self) -> None:
        """Nobody has to be known here; somebody who is already can go on from a login that is
        out of date."""
        try:
            await self.identify()
        except Refusal as refusal:
            if refusal.code not in {"not_authenticated", "not_allowed"}:
                raise


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
