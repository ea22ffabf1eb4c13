"""The browser's part of `gpu-dev login`: PKCE, and a listener for one answer.

The listener is bound to 127.0.0.1, takes one request with the right state, and gives up after a
time or after too many wrong ones. The code that comes in is worth nothing without the verifier,
which never leaves this process but in the exchange.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from .app import Refused

#: Seconds in which a person has to confirm.
PATIENCE = 300.0
#: Wrong requests after which somebody is guessing.
_MOST_WRONG = 50
_REQUEST_SECONDS = 5.0
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>gpu-dev</title>
<meta name="color-scheme" content="light dark"><body style="font-family:sans-serif;margin:3em">
<h1>{title}</h1><p>{text}</p></body></html>"""


@dataclass(frozen=True, slots=True)
class Login:
    """One attempt: what the browser gets to see, and the secret behind the challenge."""

    state: str
    verifier: str = field(repr=False)
    machine: str

    @classmethod
    def fresh(cls) -> Login:
        """A new attempt for this machine."""
        name = "".join(c for c in platform.node() if c.isprintable())[:100]
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(48), name)

    @property
    def challenge(self) -> str:
        """PKCE's S256 challenge."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def address(self, service: str, port: int) -> str:
        """The service's page for this attempt."""
        query = {"port": port, "state": self.state, "challenge": self.challenge}
        if self.machine:
            query["name"] = self.machine
        return f"{service}/cli-login?{urlencode(query)}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the browser brought back."""

    code: str | None
    refused: bool = False


def read_answer(target: str, state: str) -> Answer | None:
    """The answer in a request's target; None unless path and state are exactly right."""
    try:
        parts = urlsplit(target)
        query = parse_qs(parts.query, max_num_fields=10)
    except ValueError:
        return None
    states = query.get("state", [])
    if parts.path != "/callback" or len(states) != 1:
        return None
    if not hmac.compare_digest(states[0].encode(), state.encode()):
        return None
    if "error" in query:
        return Answer(None, refused=True)
    codes = query.get("code", [])
    return Answer(codes[0]) if len(codes) == 1 else None


class _Server(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A request that breaks off says nothing about the login; the next one is waited for."""


class Listener:
    """Waits for one answer on 127.0.0.1."""

    def __init__(self, attempt: Login, patience: float = PATIENCE) -> None:
        self._attempt = attempt
        self._patience = patience
        self._answer: Answer | None = None
        self._wrong = 0
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.timeout = 1.0

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def wait(self) -> str:
        """The code; Refused when the person said no or time is up."""
        end = time.monotonic() + self._patience
        while self._answer is None:
            if time.monotonic() > end:
                raise Refused("Nobody confirmed the login in time. Run `gpu-dev login` again.")
            if self._wrong >= _MOST_WRONG:
                raise Refused("The login got too many wrong answers. Run `gpu-dev login` again.")
            self._server.handle_request()
        if self._answer.code is None:
            raise Refused("The login was refused in the browser.")
        return self._answer.code

    def close(self) -> None:
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_SECONDS

            def do_GET(self) -> None:
                answer = read_answer(self.path, listener._attempt.state)
                if answer is None:
                    listener._wrong += 1
                    self._say(HTTPStatus.NOT_FOUND, "Not here", "This address is for one answer.")
                    return
                listener._answer = answer
                text = "The login was refused." if answer.refused else "You can close this page."
                title = "Not logged in" if answer.refused else "gpu-dev goes on in the terminal"
                self._say(HTTPStatus.OK, title, text)

            def _say(self, status: HTTPStatus, title: str, text: str) -> None:
                page = _PAGE.format(title=title, text=text).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.send_header(
                    "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"
                )
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Nothing: the address carries the code."""

        return Handler


@contextmanager
def receive(attempt: Login, patience: float = PATIENCE) -> Iterator[Listener]:
    """A listener for `attempt`, closed at the end."""
    listener = Listener(attempt, patience)
    try:
        yield listener
    finally:
        listener.close()
