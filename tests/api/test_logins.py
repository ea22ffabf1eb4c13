"""The service's half of `gpu-dev login`, with a real Hub that makes the tokens."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

import httpx
import pytest

from gpudev_service.api.auth import Caller, caller_from
from gpudev_service.api.logins import CODE_LIFE, CODES_MAX, Logins
from gpudev_service.errors import Refusal
from tests.fixtures.hub import ADMIN, RunningHub

from .site import Site

pytestmark = [
    pytest.mark.hub,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)


def login(hub: RunningHub, name: str) -> tuple[Caller, str]:
    """What a browser's login at the service gives it: the person, and their OAuth token."""
    hub.user(name)
    scopes = ["custom:gpudev:admin"] if name == ADMIN else []
    token = hub.token(name, [f"custom:gpudev:reserve!user={name}", f"tokens!user={name}", *scopes])
    return caller_from(hub.api("GET", "user", token=token)), token


async def redeem(site: Site, code: str, verifier: str = VERIFIER) -> httpx.Response:
    return await site.call("POST", "/cli-tokens", json={"code": code, "verifier": verifier})


def not_there(answer: httpx.Response) -> bool:
    if answer.status_code != httpx.codes.NOT_FOUND:
        return False
    return bool(answer.json()["error"]["message"] == "There is no such login code.")


async def test_a_code_becomes_a_token_that_may_reserve_and_no_more(
    site: Site, running_hub: RunningHub
) -> None:
    caller, token = login(running_hub, "lin")
    code = site.shared.logins.begin(caller, token, CHALLENGE, "laptop")
    answer = await redeem(site, code)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["name"] == "lin"
    assert made["expires_at"] is not None
    assert answer.headers["Cache-Control"] == "no-store"
    me = (await site.call("GET", "/me", made["token"])).json()
    assert "custom:gpudev:reserve!user=lin" in me["scopes"]
    with pytest.raises(httpx.HTTPStatusError):
        running_hub.api("POST", "users/lin/tokens", {}, token=made["token"])
    notes = [t["note"] for t in running_hub.api("GET", "users/lin/tokens")["api_tokens"]]
    assert "gpu-dev on laptop" in notes


async def test_a_code_is_used_once_and_a_wrong_verifier_uses_it_up(
    site: Site, running_hub: RunningHub
) -> None:
    caller, token = login(running_hub, "lin")
    code = site.shared.logins.begin(caller, token, CHALLENGE, "")
    assert (await redeem(site, code)).status_code == 201
    assert not_there(await redeem(site, code))
    other = site.shared.logins.begin(caller, token, CHALLENGE, "")
    assert not_there(await redeem(site, other, "w" * 43))
    assert not_there(await redeem(site, other))
    assert not_there(await redeem(site, "c" * 43))


async def test_a_login_that_was_taken_back_makes_no_token(
    site: Site, running_hub: RunningHub
) -> None:
    running_hub.user("lin")
    made = running_hub.new_token("lin", ["tokens!user=lin"])
    caller = caller_from(running_hub.api("GET", "user", token=made["token"]))
    code = site.shared.logins.begin(caller, made["token"], CHALLENGE, "")
    running_hub.revoke("lin", made["id"])
    assert not_there(await redeem(site, code))


async def test_who_administrates_gets_a_token_that_does(
    site: Site, running_hub: RunningHub
) -> None:
    caller, token = login(running_hub, ADMIN)
    made = await redeem(site, site.shared.logins.begin(caller, token, CHALLENGE, ""))
    assert (await site.call("GET", "/me", made.json()["token"])).json()["admin"] is True


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_codes_are_void_after_a_minute_and_few(site: Site, running_hub: RunningHub) -> None:
    caller, token = login(running_hub, "lin")
    time = Seconds()
    site.shared.logins = logins = Logins(site.ctx.hub, 1, "gpudev", time)
    late = logins.begin(caller, token, CHALLENGE, "")
    time.now += CODE_LIFE
    assert not_there(await redeem(site, late))
    first = logins.begin(caller, token, CHALLENGE, "")
    for _ in range(CODES_MAX):
        logins.begin(caller, token, secrets.token_urlsafe(32), "")
    assert not_there(await redeem(site, first))


@pytest.mark.parametrize("kind", ["server", "service"])
async def test_a_server_or_service_cannot_log_in(
    kind: str, site: Site, running_hub: RunningHub
) -> None:
    running_hub.user("lin")
    scopes: list[Any] = ["custom:gpudev:reserve!server=lin/x"]
    token = running_hub.token("lin", scopes) if kind == "server" else running_hub.spawner_token
    caller = caller_from(running_hub.api("GET", "user", token=token))
    with pytest.raises(Refusal, match="may not make tokens"):
        site.shared.logins.begin(caller, token, CHALLENGE, "")
