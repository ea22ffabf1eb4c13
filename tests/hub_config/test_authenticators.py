"""Logins at a real Hub by each provider's own authenticator: who comes in, with which groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from gpudev_hub_config.authenticators import Client, Unverified, mapped, verified_name
from tests.fixtures.hub import RunningHub

from .provider import CLIENT, SECRET, Provider

hubs = pytest.mark.hub

_CONFIG = """
from gpudev_hub_config import authenticators

_client = authenticators.Client(
    {client!r}, {secret!r}, c.JupyterHub.bind_url.rstrip("/") + "/hub/oauth_callback"
)
authenticators.{call}
{more}
"""


@contextmanager
def site(call: str, more: str = "") -> Iterator[tuple[Provider, Callable[..., None]]]:
    """A Hub with one of the functions in its configuration, and what logs a person in."""
    with Provider() as provider:
        config = _CONFIG.format(
            client=CLIENT,
            secret=SECRET,
            call=call.replace("URL", provider.url),
            more=more.replace("URL", provider.url),
        )
        hub = RunningHub(hub_config=config)

        def log_in(name: str, groups: set[str] | None, /, **claims: Any) -> None:
            """Expects a user of this name in these groups; with None, that nobody comes in."""
            provider.person = claims
            with httpx.Client(trust_env=False, timeout=60.0, follow_redirects=True) as browser:
                answer = browser.get(f"{hub.url}/hub/oauth_login?next=/hub/home")
            users = {one["name"]: one for one in hub.api("GET", "users")}
            if groups is None:
                assert answer.status_code == httpx.codes.FORBIDDEN, hub.logs()[-4000:]
                assert name not in users
                return
            assert answer.status_code == httpx.codes.OK, hub.logs()[-4000:]
            assert set(users[name]["groups"]) == groups

        try:
            hub.start()
            yield provider, log_in
            assert SECRET not in hub.logs()
        finally:
            hub.remove()


@hubs
def test_github() -> None:
    call = 'github(c, client=_client, url="URL", groups={"lab:gpu": "research", "lab": "guests"})'

    def team(organization: str, slug: str) -> dict[str, Any]:
        return {"slug": slug, "organization": {"login": organization}}

    with site(call) as (_, log_in):
        mine = [team("lab", "gpu"), team("other", "research")]
        log_in("ada", {"research", "guests"}, login="ada", email=None, teams=mine)
        log_in("bob", {"guests"}, login="bob", email=None, teams=[team("lab", "web")])
        log_in("eve", None, login="eve", email=None, teams=[team("evil", "gpu")])
        # Who has left the team has its policy no more.
        log_in("ada", {"guests"}, login="ada", email=None, teams=[team("lab", "web")])


@hubs
def test_gitlab() -> None:
    call = 'gitlab(c, client=_client, url="URL", groups={"lab/gpu": "research"})'
    with site(call) as (_, log_in):
        ada = {"nickname": "ada", "email": "ada@example.org"}
        log_in("ada", None, **ada, email_verified=False, groups=["lab/gpu"])
        log_in("ada", {"research"}, **ada, email_verified=True, groups=["lab", "lab/gpu"])
        log_in("eve", None, nickname="eve", email_verified=True, groups=["research"])


@hubs
def test_google() -> None:
    call = 'google(c, client=_client, groups={"example.org": "research"})'
    more = (
        'c.GoogleOAuthenticator.google_api_url = "URL"\n'
        'c.GoogleOAuthenticator.authorize_url = "URL/authorize"\n'
    )
    with site(call, more) as (_, log_in):
        ada = {"email": "ada@example.org", "hd": "example.org"}
        log_in("ada", None, **ada, verified_email=False)
        log_in("ada", {"research"}, **ada, verified_email=True)
        # The same name in somebody's own domain, and an address there without a workspace.
        log_in("eve", None, email="eve@evil.org", hd="evil.org", verified_email=True)
        log_in("bob", None, email="bob@example.org", verified_email=True)


@hubs
def test_any_provider() -> None:
    call = (
        'oidc(c, client=_client, groups={"/staff": "research"}, username="email", '
        'addresses=authenticators.Addresses("URL/authorize", "URL/token", "URL/userinfo"), '
        'admins=["root@example.org"])'
    )
    with site(call) as (provider, log_in):
        told = httpx.get(f"{provider.url}/.well-known/openid-configuration", trust_env=False).json()
        assert told["token_endpoint"] == f"{provider.url}/token"
        ada = {"email": "ada@example.org", "groups": ["/staff", "research"]}
        log_in("ada@example.org", None, **ada)
        log_in("ada@example.org", None, **ada, email_verified=False)
        log_in("ada@example.org", {"research"}, **ada, email_verified=True)
        log_in("root@example.org", set(), email="root@example.org", email_verified=True)


@pytest.mark.parametrize(
    ("said", "claim", "name"),
    [
        ({"email": "a@x", "email_verified": True}, "email", "a@x"),
        ({"email": "a@x", "email_verified": "true"}, "email", "a@x"),
        ({"email": "a@x", "email_verified": "false"}, "email", None),
        ({"email": "a@x", "email_verified": 1}, "email", None),
        ({"email": "a@x"}, "email", None),
        ({"sub": "1"}, "sub", "1"),
        ({"sub": "1", "email_verified": False}, "sub", None),
        ({"sub": "1", "email_verified": True}, "sub", "1"),
        ({"email_verified": True}, "sub", None),
        ({"sub": ["1"]}, "sub", None),
    ],
)
def test_whom_a_provider_has_verified(said: dict[str, Any], claim: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(Unverified):
            verified_name(said, claim)
    else:
        assert verified_name(said, claim) == name


def test_only_groups_that_are_named_have_a_policy() -> None:
    assert mapped({"a", "b", "research"}, {"a": "research", "c": "guests"}) == {"research"}


def test_the_secret_is_in_no_representation() -> None:
    assert SECRET not in repr(Client(CLIENT, SECRET, "https://hub/hub/oauth_callback"))
