"""R6: the logins of a command line, of which each code becomes one token, or none."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urljoin

import httpx

from gpudev_client.cli.browser import Login, read_answer
from tests.e2e.browser import Page
from tests.fixtures.hub import RunningHub

#: How often the page is asked for one code.
_TRIES = 10
#: Where the command line would listen; the browser is not led there.
_PORT = 1024


class Logins:
    """Somebody's browser, which confirms logins, and the tokens that came of them at the Hub."""

    def __init__(self, hub: RunningHub, user: str, stack: ExitStack) -> None:
        self._hub, self._user = hub, user
        self._browser = stack.enter_context(hub.browser(user))
        #: Which of them the command line was given a token for, by the name of its machine.
        self.given: dict[str, bool] = {}

    def confirm(self, machine: str) -> dict[str, str]:
        """What the command line on `machine` sends for its token, once the person has confirmed."""
        attempt = replace(Login.fresh(), machine=machine)
        for _ in range(_TRIES):
            code = self._code(attempt)
            if code is not None:
                return {"code": code, "verifier": attempt.verifier}
        raise RuntimeError("the page of a login gives no code")

    def _code(self, attempt: Login) -> str | None:
        """What the page leads back with; None where the service is too busy to answer."""
        try:
            page = Page(self._browser.get(attempt.address(self._hub.service, _PORT)))
            if not page.answer.is_success:
                return None
            form = page.form("cli-login")
            where = urljoin(str(page.answer.url), form.action)
            sent = {**form.fields, "answer": "confirm"}
            said = self._browser.post(where, data=sent, follow_redirects=False)
        except httpx.TransportError:
            return None
        answer = read_answer(said.headers.get("Location", ""), attempt.state)
        return None if answer is None else answer.code

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
