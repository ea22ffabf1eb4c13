"""Callers without a name: what they ask of the service and of the Hub, and a flood of it."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from urllib.parse import quote, urlsplit

import httpx

RATE = 300
CONNECTIONS = 30
#: Seconds for an answer. A Hub that is behind answers late.
PATIENCE = 60.0
SERVICE, HUB = "service", "hub"
_LONG, _LONGER = "y" * 2_000, "x" * 4_000


@dataclass(frozen=True)
class Ask:
    """One request; `name` is what it is called where figures are shown."""

    at: str
    name: str
    path: str
    body: str = ""
    headers: tuple[str, ...] = ()

    def head(self, host: str) -> bytes:
        method = "POST" if self.body else "GET"
        form = ("Content-Type: application/x-www-form-urlencoded",) if self.body else ()
        lines = [
            f"{method} {self.path} HTTP/1.1", f"Host: {host}", "Connection: close", *self.headers,
            *form, *([f"Content-Length: {len(self.body)}"] if self.body else []), "", self.body,
        ]  # fmt: skip
        return "\r\n".join(lines).encode()


_PATHS = {
    SERVICE: {
        "reservations": "/services/gpudev/api/v1/reservations",
        "long query": f"/services/gpudev/api/v1/reservations?user={_LONGER}",
        "long name": f"/services/gpudev/api/v1/users/{_LONG}/ssh-keys",
        "nothing": "/services/gpudev/api/v1/nothing",
        "health": "/services/gpudev/api/v1/health",
        "page": "/services/gpudev/reservations",
    },
    HUB: {
        "login": "/hub/login",
        "spawn": "/hub/spawn",
        "spawn of a long name": f"/hub/spawn/{_LONG}",
        "server of a long name": f"/user/{_LONG}/lab",
        "nothing": "/hub/nothing",
        "api": "/hub/api",
        "api users": "/hub/api/users",
        "api long name": f"/hub/api/users/{_LONG}",
        "authorize": f"/hub/api/oauth2/authorize?client_id={_LONG}",
        "ours": "/hub/gpudev/plan",
    },
}
_TOKENS = {
    "no token": (),
    "nonsense": ("Authorization: token nonsense",),
    "long token": (f"Authorization: token {'z' * 3_000}",),
}


def asks(hub_url: str) -> list[Ask]:
    """All that is asked: each path with each token, and logins whose password is wrong."""
    made = [
        Ask(at, f"{name}, {token}", path, headers=headers)
        for at, paths in _PATHS.items()
        for (name, path), (token, headers) in itertools.product(paths.items(), _TOKENS.items())
    ]
    with httpx.Client(trust_env=False, timeout=PATIENCE) as http:
        page = http.get(f"{hub_url}/hub/login", headers=_BARE)
        cookies = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
    field = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert field is not None, "the Hub's login page has no form"
    for name, user in (("a login", "ada"), ("a login with a long name", _LONG)):
        body = f"username={user}&password=wrong&_xsrf={quote(field[1])}"
        made.append(Ask(HUB, name, "/hub/login", body, (f"Cookie: {cookies}",)))
    return made


#: The Hub's mark against foreign forms holds for the headers that it was given to: `_ask` sends
#: none of these.
_BARE = {"Accept": "", "Accept-Encoding": "", "User-Agent": ""}


async def ask(host: str, port: int, one: Ask) -> str:
    """The status of the answer, which is read to its end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(one.head(f"{host}:{port}"))
        answer = await reader.read()
        return answer[9:12].decode() or "nothing"
    finally:
        writer.close()


def flood(url: str, seconds: float, told: Connection, share: float) -> None:
    """Asks for `seconds`, of the Hub in this `share`; tells that it begins, and at the end how
    often it asked, with which answers."""
    known = asks(url)
    told.send(None)
    told.send(asyncio.run(_flood(url, seconds, known, share)))


async def _flood(
    url: str, seconds: float, known: list[Ask], share: float
) -> Counter[tuple[str, str]]:
    parts, answers = urlsplit(url), Counter[tuple[str, str]]()
    there = {at: [one for one in known if one.at == at] for at in (SERVICE, HUB)}
    begin = time.monotonic()
    end = begin + seconds

    async def one(number: int) -> None:
        rng, at = random.Random(number), begin + number / RATE
        while at < end:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            at += CONNECTIONS / RATE
            chosen = rng.choice(there[HUB if rng.random() < share else SERVICE])
            try:
                async with asyncio.timeout(PATIENCE):
                    status = await ask(parts.hostname or "", parts.port or 80, chosen)
            except OSError as error:
                status = type(error).__name__
            answers[chosen.at, status] += 1

    await asyncio.gather(*map(one, range(CONNECTIONS)))
    return answers
