"""A real OpenID Connect provider in a thread, where everybody is logged in at once.

It has the addresses of GitHub, GitLab and Google beside its own, and is strict: codes count once,
for the client and the address that asked, with the right verifier (PKCE).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import threading
import time
from typing import Any, Self
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

CLIENT, SECRET = "the-hub", "a secret of the hub"


class Provider:
    """`person` is whoever logs in next: the claims, and with `teams` the teams at GitHub.

    Clients of oauthenticator take what `userinfo` says, from the provider itself, and read no
    `id_token`: so its keys are asked by nobody, and stand nowhere. `discovery` is what the provider
    says of itself in other words than it should.
    """

    def __init__(self) -> None:
        self.person: dict[str, Any] = {}
        self.discovery: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        [self._socket] = bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        own = {"provider": self}
        application = Application(
            [
                (r"/\.well-known/openid-configuration", Discovery, own),
                (r"(?:/login/oauth|/oauth)?/authorize", Authorize, own),
                (r"(?:/token|/oauth/token|/login/oauth/access_token|/oauth2/v4/token)", Token, own),
                (r"(?:/userinfo|/oauth/userinfo|/api/v3/user|/oauth2/v1/userinfo)", User, own),
                (r"/api/v3/user/teams", Teams, own),
            ]
        )
        server = HTTPServer(application)
        server.add_sockets([self._socket])
        self._ready.set()
        await self._over.wait()
        server.stop()
        await server.close_all_connections()

    def id_token(self, person: dict[str, Any]) -> str:
        """Signed, as every provider gives one."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 60, "sub": "1", **person}
        parts = [_text(json.dumps(one).encode()) for one in ({"alg": "RS256"}, claims)]
        signed = self.key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        return ".".join([*parts, _text(signed)])


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Handler(RequestHandler):
    def initialize(self, provider: Provider) -> None:
        self.provider = provider


class Discovery(Handler):
    def get(self) -> None:
        url = self.provider.url
        self.write(
            {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "userinfo_endpoint": f"{url}/userinfo",
                **self.provider.discovery,
            }
        )


class Authorize(Handler):
    def get(self) -> None:
        asked = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        if asked["client_id"] != CLIENT or asked["response_type"] != "code":
            raise HTTPError(400)
        if asked["code_challenge_method"] != "S256":
            raise HTTPError(400)
        code = secrets.token_urlsafe()
        self.provider.codes[code] = asked
        self.redirect(
            f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
        )


class Token(Handler):
    def post(self) -> None:
        said = {name: self.get_body_argument(name) for name in self.request.body_arguments}
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        known = (said.get("client_id"), said.get("client_secret")) == (CLIENT, SECRET)
        if not known and self.request.headers.get("Authorization") != f"Basic {basic}":
            raise HTTPError(401)
        asked = self.provider.codes.pop(said["code"], None)
        if asked is None or asked["redirect_uri"] != said["redirect_uri"]:
            raise HTTPError(400)
        challenge = _text(hashlib.sha256(said["code_verifier"].encode()).digest())
        if challenge != asked["code_challenge"]:
            raise HTTPError(400)
        token, person = secrets.token_urlsafe(), dict(self.provider.person)
        self.provider.tokens[token] = person
        self.write(
            {
                "access_token": token,
                "token_type": "bearer",
                "scope": asked.get("scope", ""),
                "id_token": self.provider.id_token(person),
            }
        )


class User(Handler):
    def get(self) -> None:
        self.write({name: value for name, value in self.whose().items() if name != "teams"})

    def whose(self) -> dict[str, Any]:
        kind, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() not in {"bearer", "token"} or token not in self.provider.tokens:
            raise HTTPError(401)
        return self.provider.tokens[token]


class Teams(User):
    def get(self) -> None:
        self.write(json.dumps(self.whose()["teams"]))
