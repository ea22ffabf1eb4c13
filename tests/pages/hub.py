"""A double of the Hub's login, the only part of a Hub that pages need: who a token belongs to, and
the way of a browser through OAuth. It serves the installed Hub's own style sheet and logo.

It says yes to everybody who was introduced to it; what real Hubs refuse is tested with a real one.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado.web import Application, RequestHandler, StaticFileHandler

ACCESS = "access:services!service=gpudev"
STATIC = Path(sys.prefix) / "share" / "jupyterhub" / "static"


@dataclass
class HubDouble:
    """The people it knows, by token, and who logs in next."""

    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    next_login: str | None = None

    def introduce(
        self, name: str, scopes: Iterable[str] | None = None, groups: Iterable[str] = ()
    ) -> str:
        """Makes a person known; returns their token. Without `scopes` those of role `user`."""
        token = secrets.token_hex(16)
        given = [f"custom:gpudev:reserve!user={name}"] if scopes is None else list(scopes)
        self.people[token] = {
            "kind": "user",
            "name": name,
            "groups": list(groups),
            "admin": False,
            "scopes": [ACCESS, *given],
            "session_id": None,
        }
        return token

    def application(self) -> Application:
        mine = {"hub": self}
        return Application(
            [
                (r"/hub/api/user", _User, mine),
                (r"/hub/api/oauth2/authorize", _Authorize, mine),
                (r"/hub/api/oauth2/token", _Token, mine),
                (r"/hub/static/(.*)", StaticFileHandler, {"path": str(STATIC)}),
                (r"/hub/(logo)", _Logo),
                (r"/hub/.*", _Page),
                (r"/user/.*", _Page),
            ]
        )


class _Handler(RequestHandler):
    def initialize(self, hub: HubDouble) -> None:
        self.hub = hub


class _User(_Handler):
    def get(self) -> None:
        token = self.request.headers.get("Authorization", "").removeprefix("token ")
        model = self.hub.people.get(token)
        if model is None:
            self.set_status(404)
        self.finish(model or {"message": "unknown"})


class _Authorize(_Handler):
    def get(self) -> None:
        if self.hub.next_login is None:
            self.set_status(403)
            self.finish("nobody logs in")
            return
        code = secrets.token_hex(8)
        self.hub.codes[code] = self.hub.next_login
        query = urlencode({"code": code, "state": self.get_query_argument("state")})
        self.redirect(f"{self.get_query_argument('redirect_uri')}?{query}")


class _Token(_Handler):
    def post(self) -> None:
        token = self.hub.codes.pop(self.get_body_argument("code"))
        self.finish({"access_token": token, "token_type": "Bearer"})


class _Logo(RequestHandler):
    def get(self, _: str) -> None:
        self.set_header("Content-Type", "image/png")
        self.finish((STATIC / "images" / "jupyterhub-80.png").read_bytes())


class _Page(RequestHandler):
    def get(self) -> None:
        self.finish("<!DOCTYPE html><title>Hub</title><h1>A page of the Hub</h1>")
