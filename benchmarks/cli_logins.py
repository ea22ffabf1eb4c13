"""R6: the logins of a command line, of which each code becomes one token, or none."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from contextlib import ExitStack
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.fixtures.hub import RunningHub

#: How often the page is asked for one code.
_TRIES = 10


class Logins:
    """Somebody's browser, which confirms logins, and the tokens that came of them at the Hub."""

    def __init__(self, hub: RunningHub, user: str, stack: ExitStack) -> None:
        self._hub, self._user = hub, user
        self._page = f"{hub.service}/cli-login"
        self._browser = stack.enter_context(hub.browser(user))
        #: Which of them the command line was given a token for, by the name of its machine.
        self.given: dict[str, bool] = {}

    def confirm(self, machine: str) -> dict[str, str]:
        """What the command line on `machine` sends for its token, once the person has confirmed."""
        verifier = secrets.token_urlsafe(32)
        hashed = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "port": "1024",
            "state": secrets.token_urlsafe(16),
            "challenge": base64.urlsafe_b64encode(hashed).decode().rstrip("="),
            "name": machine,
        }
        for _ in range(_TRIES):
            code = self._code(asked)
            if code is not None:
                return {"code": code, "verifier": verifier}
        raise RuntimeError("the page of a login gives no code")

    def _code(self, asked: dict[str, str]) -> str | None:
        """What the page leads back with; None where the service is too busy to answer."""
        try:
            page = self._browser.get(self._page, params=asked)
            field = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
            if field is None:
                return None
            sent = {**asked, "answer": "confirm", "_xsrf": field[1]}
            said = self._browser.post(self._page, data=sent, follow_redirects=False)
        except httpx.TransportError:
            return None
        query = parse_qs(urlsplit(said.headers.get("Location", "")).query)
        return next(iter(query.get("code", [])), None)

    def differences(self) -> list[str]:
        """Codes that became more than one token, or none where one was given. A code whose answer
        was lost is used up: that costs another login."""
        tokens = self._hub.api("GET", f"users/{self._user}/tokens")["api_tokens"]
        notes = [token["note"] for token in tokens]
        return [
            f"the login on {machine} made {made} tokens"
            for machine, given in self.given.items()
            if (made := notes.count(f"gpu-dev on {machine}")) > 1 or (given and not made)
        ]
