"""Logins at a real Hub by each provider's own authenticator: who comes in, with which groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gpudev_hub_config.authenticators import (
    Addresses,
    Client,
    Unverified,
    discover,
    mapped,
    verified_name,
)
from tests.fixtures.hub import RunningHub

from .provider import CLIENT, SECRET, Provider

hubs = pytest.mark.hub
_PARTS = ("authorize", "token", "userinfo")

_CONFIG = """
from gpudev_hub_config import authenticators

_client = authenticators.Client(
    {client!r}, {secret!r}, c.JupyterHub.bind_url.rstrip("/") + "/hub/oauth_callback"
)
authenticators.{call}
{more}
"""


@dataclass(frozen=True)
class Site:
    """A provider, and a Hub with one of the functions in its configuration."""

    provider: Provider
    hub: RunningHub

    def log_in(self, name: str, groups: set[str] | None, /, **claims: Any) -> None:
        """Expects a user of this name in these groups; with None, that nobody comes in."""
        self.provider.person = claims
        with httpx.Client(trust_env=False, timeout=60.0, follow_redirects=True) as browser:
            answer = browser.get(f"{self.hub.url}/hub/oauth_login?next=/hub/home")
        users = {one["name"]: one for one in self.hub.api("GET", "users")}
        if groups is None:
            assert answer.status_code == httpx.codes.FORBIDDEN, self.hub.logs()[-4000:]
            assert name not in users
            return
        assert answer.status_code == httpx.codes.OK, self.hub.logs()[-4000:]
        assert set(users[name]["groups"]) == groups

    def hours(self, name: str, hours: float) -> dict[str, Any] | None:
        """What gpudev refuses of this person's request for so many hours; None: it takes it."""
        asked = {"gpu_type": "t4", "gpus": 1, "hours": hours}
        answer = self.hub.call("POST", "/plan", self.hub.token(name), asked)
        if answer.status_code == httpx.codes.OK:
            return None
        refused: dict[str, Any] = answer.json()["error"]
        return refused


@contextmanager
def site(call: str, more: str = "", policy: Mapping[str, Any] | None = None) -> Iterator[Site]:
    """Calls one of the functions; `policy` is gpudev's."""
    with Provider() as provider:
        config = _CONFIG.format(
            client=CLIENT,
            secret=SECRET,
            call=call.replace("URL", provider.url),
            more=more.replace("URL", provider.url),
        )
        service = "" if policy is None else f"c.GpuDev.policy = {policy!r}"
        with RunningHub(hub_config=config, service_config=service) as hub:
            yield Site(provider, hub)
            assert SECRET not in hub.logs()


@hubs
def test_github() -> None:
    call = 'github(c, client=_client, url="URL", groups={"lab:gpu": "research", "lab": "guests"})'

    def team(organization: str, slug: str) -> dict[str, Any]:
        return {"slug": slug, "organization": {"login": organization}}

    with site(call) as logins:
        mine = [team("lab", "gpu"), team("other", "research")]
        logins.log_in("ada", {"research", "guests"}, login="ada", email=None, teams=mine)
        logins.log_in("bob", {"guests"}, login="bob", email=None, teams=[team("lab", "web")])
        logins.log_in("eve", None, login="eve", email=None, teams=[team("evil", "gpu")])
        # Who has left the team has its policy no more.
        logins.log_in("ada", {"guests"}, login="ada", email=None, teams=[team("lab", "web")])


@hubs
def test_gitlab() -> None:
    call = 'gitlab(c, client=_client, url="URL", groups={"lab/gpu": "research"})'
    with site(call) as logins:
        ada = {"nickname": "ada", "email": "ada@example.org"}
        logins.log_in("ada", None, **ada, email_verified=False, groups=["lab/gpu"])
        logins.log_in("ada", {"research"}, **ada, email_verified=True, groups=["lab", "lab/gpu"])
        logins.log_in("eve", None, nickname="eve", email_verified=True, groups=["research"])


@hubs
def test_google() -> None:
    call = 'google(c, client=_client, groups={"example.org": "research"})'
    more = (
        'c.GoogleOAuthenticator.google_api_url = "URL"\n'
        'c.GoogleOAuthenticator.authorize_url = "URL/authorize"\n'
    )
    with site(call, more) as logins:
        ada = {"email": "ada@example.org", "hd": "example.org"}
        logins.log_in("ada", None, **ada, verified_email=False)
        logins.log_in("ada", {"research"}, **ada, verified_email=True)
        # The same name in somebody's own domain, and an address there without a workspace.
        logins.log_in("eve", None, email="eve@evil.org", hd="evil.org", verified_email=True)
        logins.log_in("bob", None, email="bob@example.org", verified_email=True)


@hubs
def test_any_provider() -> None:
    call = (
        'oidc(c, client=_client, groups={"/staff": "research"}, username="email", '
        'addresses=authenticators.discover("URL"), admins=["root@example.org"])'
    )
    with site(call) as logins:
        ada = {"email": "ada@example.org", "groups": ["/staff", "research"]}
        logins.log_in("ada@example.org", None, **ada)
        logins.log_in("ada@example.org", None, **ada, email_verified=False)
        logins.log_in("ada@example.org", {"research"}, **ada, email_verified=True)
        logins.log_in("root@example.org", set(), email="root@example.org", email_verified=True)


@hubs
def test_a_group_at_the_provider_has_its_policy_here_until_the_login_after_it_was_left() -> None:
    call = (
        'oidc(c, client=_client, groups={"/staff": "research", "/guests": "guests"}, '
        'addresses=authenticators.Addresses("URL/authorize", "URL/token", "URL/userinfo"))'
    )
    policy = {"default": {"max_hours": 2}, "groups": {"research": {"max_hours": 48}}}
    with site(call, policy=policy) as logins:
        ada = {"preferred_username": "ada", "email_verified": True}
        bob = {"preferred_username": "bob", "email_verified": True}
        logins.log_in("ada", {"research"}, **ada, groups=["/staff"])
        # A group of the provider's that is called like one with a policy is not that group.
        logins.log_in("bob", {"guests"}, **bob, groups=["/guests", "research"])
        assert logins.hours("ada", 48) is None
        assert (logins.hours("ada", 49) or {})["accepted"]["max"] == 48
        assert logins.hours("bob", 2) is None
        assert (logins.hours("bob", 3) or {})["accepted"]["max"] == 2
        logins.log_in("ada", {"guests"}, **ada, groups=["/guests"])
        assert (logins.hours("ada", 3) or {})["field"] == "hours"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"issuer": "https://evil.example.org"}, "not of"),
        ({"token_endpoint": ""}, "names no token_endpoint"),
        ({"userinfo_endpoint": None}, "names no userinfo_endpoint"),
    ],
)
def test_a_provider_that_names_no_endpoints_of_its_own_is_refused(
    said: dict[str, Any], words: str
) -> None:
    with Provider() as provider:
        found = discover(f"{provider.url}/")
        assert found == Addresses(*(f"{provider.url}/{part}" for part in _PARTS))
        provider.discovery = said
        with pytest.raises(ValueError, match=words):
            discover(provider.url)


def test_a_provider_is_asked_by_https() -> None:
    with pytest.raises(ValueError, match="https://"):
        discover("http://login.example.org")


@pytest.mark.parametrize(("client", "secret"), [(None, SECRET), (CLIENT, None), (CLIENT, "")])
def test_a_hub_without_its_secret_does_not_start(client: Any, secret: Any) -> None:
    with pytest.raises(ValueError, match="the id and the secret"):
        Client(client, secret, "https://hub/hub/oauth_callback")


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
