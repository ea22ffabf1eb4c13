"""Logins at GitHub, GitLab, Google or any OpenID Connect provider, their groups as gpudev's.

In `jupyterhub_config.py`, with the secret from a file or the environment:

    from gpudev_hub_config import authenticators
    authenticators.github(
        c, client=authenticators.Client("ID", SECRET, "https://hub.example.org/hub/oauth_callback"),
        groups={"my-org:gpu-users": "research", "my-org": "guests"},
    )

`groups` says which group at the provider is which Hub group; policy in gpudev's configuration
(`c.GpuDev.policy`) goes by Hub groups. Only these become Hub groups: whoever may make groups at the
provider must not be able to make one that has a policy here. Their members may log in, and nobody
else but `admins`.

An address that the provider has not verified is refused: anybody may claim it, and with it
somebody else's account.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

#: What a provider says of a person, and the groups that it finds them in.
Said = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """What the Hub is at the provider. `callback_url` is the Hub's address with
    `/hub/oauth_callback`, and is registered there.

    Raises:
        ValueError: id or secret is missing, as where a Secret has it under another name.
    """

    id: str
    secret: str = field(repr=False)
    callback_url: str

    def __post_init__(self) -> None:
        if not self.id or not self.secret:
            raise ValueError("give the id and the secret that the Hub has at the provider")


class Unverified(Exception):  # noqa: N818 - what the provider says
    """The provider has not verified the address that somebody logs in with."""


def github(
    c: Any,
    *,
    client: Client,
    groups: Mapping[str, str],
    url: str = "https://github.com",
    admins: Iterable[str] = (),
) -> None:
    """Logins at GitHub, by the account's name.

    Args:
        groups: `ORGANIZATION:TEAM` as in addresses, or `ORGANIZATION` for all of its teams.
        url: of a GitHub Enterprise Server.
    """
    _common(c, "github", client, groups, admins, lambda said: _teams(said.get("teams") or ()))
    c.GitHubOAuthenticator.github_url = url
    c.GitHubOAuthenticator.scope = ["read:org"]
    c.GitHubOAuthenticator.populate_teams_in_auth_state = True


def gitlab(
    c: Any,
    *,
    client: Client,
    groups: Mapping[str, str],
    url: str = "https://gitlab.com",
    admins: Iterable[str] = (),
) -> None:
    """Logins at GitLab by OpenID Connect, by the account's name; `groups` has full paths."""
    base = f"{url.rstrip('/')}/oauth"
    addresses = Addresses(f"{base}/authorize", f"{base}/token", f"{base}/userinfo")
    oidc(c, client=client, groups=groups, addresses=addresses, username="nickname", admins=admins)
    c.GenericOAuthenticator.login_service = "GitLab"


def google(
    c: Any,
    *,
    client: Client,
    groups: Mapping[str, str],
    admins: Iterable[str] = (),
) -> None:
    """Logins at Google, by the address, without its domain where there is only one.

    Args:
        groups: domains of Google Workspace (`example.org`), of which all members come in; nobody
            of another domain does. Where `c.GoogleOAuthenticator` has what it takes to read Google
            Groups, `GROUP@example.org` beside them.
    """

    def found(said: Said) -> set[str]:
        user = said["google_user"]
        domain = user.get("hd") or ""
        return {domain, *(f"{name}@{domain}" for name in user.get("google_groups") or ())}

    _common(c, "google", client, groups, admins, found)
    domains = sorted({name.rpartition("@")[2] for name in groups})
    c.GoogleOAuthenticator.hosted_domain = domains
    c.GoogleOAuthenticator.strip_domain = len(domains) == 1


@dataclass(frozen=True, slots=True)
class Addresses:
    """A provider's endpoints, as its `/.well-known/openid-configuration` names them."""

    authorize: str
    token: str
    userinfo: str


#: Seconds that a provider may take to name its endpoints.
_PATIENCE = 10.0


def discover(issuer: str) -> Addresses:
    """The endpoints of the provider with this issuer, as it names them itself.

    It is asked while the Hub reads its configuration, without a proxy, as the Hub asks it later:
    the Hub does not start while the provider is away. `Addresses` written out need nothing.

    Raises:
        ValueError: the issuer has no https:// (nor is it of this machine), or the answer is
            another issuer's or lacks an endpoint.
        OSError: nobody answers, or with an error.
    """
    issuer = issuer.rstrip("/")
    place = urlsplit(issuer)
    if place.scheme != "https" and place.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ValueError(f"{issuer}: a provider that gets the Hub's secret is asked by https://")
    url = f"{issuer}/.well-known/openid-configuration"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_PATIENCE) as answer:
        told = json.load(answer)
    if str(told.get("issuer", "")).rstrip("/") != issuer:
        raise ValueError(f"{url} is of {told.get('issuer')!r}, not of {issuer!r}")
    wanted = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint")
    if missing := [name for name in wanted if not told.get(name)]:
        raise ValueError(f"{url} names no {', '.join(missing)}")
    return Addresses(*(told[name] for name in wanted))


def oidc(
    c: Any,
    *,
    client: Client,
    groups: Mapping[str, str],
    addresses: Addresses,
    username: str = "preferred_username",
    groups_claim: str = "groups",
    scopes: Iterable[str] = ("openid", "profile", "email"),
    admins: Iterable[str] = (),
) -> None:
    """Logins at any OpenID Connect provider: Keycloak, Dex, Authentik, Okta …

    Args:
        addresses: the provider's endpoints, or what `discover` says of its issuer.
        username: the claim that is the person's name at the Hub. It must be one that people cannot
            set to somebody else's name at the provider; `email` has to be verified.
        groups_claim: the claim with the names of the person's groups.
    """

    def found(said: Said) -> set[str]:
        return set(said["oauth_user"].get(groups_claim) or ())

    _common(c, "generic-oauth", client, groups, admins, found)
    c.GenericOAuthenticator.authorize_url = addresses.authorize
    c.GenericOAuthenticator.token_url = addresses.token
    c.GenericOAuthenticator.userdata_url = addresses.userinfo
    c.GenericOAuthenticator.scope = list(scopes)
    c.GenericOAuthenticator.username_claim = lambda said: _name(said, username)


def verified_name(said: Said, claim: str) -> str:
    """Who somebody is at the Hub.

    Raises:
        Unverified: the provider has not verified their address, or does not say so where the
            address is the name.
    """
    verified = said.get("email_verified")
    sure = verified is True or verified == "true"
    if not sure and (claim == "email" or verified is not None):
        raise Unverified("Your address is not verified where you have logged in. Verify it there.")
    name = said.get(claim)
    if not isinstance(name, str) or not name:
        raise Unverified(f"Where you have logged in nothing is said of your {claim!r}.")
    return name


def _name(said: Said, claim: str) -> str:
    from tornado.web import HTTPError

    try:
        return verified_name(said, claim)
    except Unverified as refused:
        raise HTTPError(403, str(refused)) from refused


def mapped(found: Iterable[str], groups: Mapping[str, str]) -> set[str]:
    """The Hub groups of somebody who is in these groups at the provider."""
    return {groups[name] for name in found if name in groups}


def _teams(teams: Iterable[Said]) -> set[str]:
    found = set()
    for team in teams:
        organization = team["organization"]["login"]
        found |= {organization, f"{organization}:{team['slug']}"}
    return found


def _common(
    c: Any,
    kind: str,
    client: Client,
    groups: Mapping[str, str],
    admins: Iterable[str],
    found: Callable[[Said], set[str]],
) -> None:
    known = dict(groups)
    c.JupyterHub.authenticator_class = kind
    c.OAuthenticator.client_id = client.id
    c.OAuthenticator.client_secret = client.secret
    c.OAuthenticator.oauth_callback_url = client.callback_url
    c.Authenticator.manage_groups = True
    c.OAuthenticator.auth_state_groups_key = lambda said: mapped(found(said), known)
    c.OAuthenticator.allowed_groups = set(known.values())
    c.Authenticator.allow_all = False
    c.Authenticator.admin_users = set(admins)
