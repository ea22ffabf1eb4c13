"""Who calls: the Hub is asked, and nobody is believed while it cannot be.

A token comes in the Authorization header (one in the URL is refused, it would end in logs), or in
the cookie of a browser login at this service; then JupyterHub's own XSRF rules hold. What the Hub
says of a token is kept for a few seconds, so that a revoked one stops working within them.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jupyterhub.services.auth import HubOAuth, check_scopes
from tornado.web import HTTPError, RequestHandler

from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.events import Owner

from .permissions import PREFIX, SPAWNER, Grants, Right, read_scopes
from .ratelimit import RateLimit

log = logging.getLogger(__name__)

#: Longer than any token that a Hub makes; what is longer is not sent on.
TOKEN_MAX = 512
#: Seconds for which a token that the Hub once knew is not counted as unknown.
KNOWN_FOR = 600.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom the Hub says a request comes from. `kind` is "user" or "service"; `token_id` tells
    the caller's tokens apart in logs without revealing anything."""

    name: str
    kind: str
    groups: tuple[str, ...]
    scopes: frozenset[str]
    grants: Grants

    @property
    def key(self) -> str:
        """Unique among users and services; no user's name has a colon."""
        return self.name if self.kind == "user" else f"{self.kind}:{self.name}"

    @property
    def admin(self) -> bool:
        return self.grants.everywhere(Right.ADMIN)

    @property
    def owner(self) -> Owner:
        """The caller as an owner of things."""
        return Owner(self.name, self.groups) if self.kind == "user" else Owner(self.key, ())

    @property
    def acts_for_others(self) -> bool:
        """A service that holds the spawner's scope is the Hub's spawner: a hand, not a person,
        whatever else it was granted."""
        held = {scope.partition("!")[0] for scope in self.scopes}
        return self.kind == "service" and SPAWNER in held

    @property
    def actor(self) -> Actor:
        return Actor(self.key, self.groups, admin=self.admin)

    @property
    def gpudev_scopes(self) -> list[str]:
        return sorted(scope for scope in self.scopes if scope.startswith(PREFIX))


def caller_from(model: dict[str, Any]) -> Caller:
    """What the Hub says of a token, as a caller."""
    scopes = frozenset(str(scope) for scope in model.get("scopes", ()))
    return Caller(
        name=str(model["name"]),
        kind=str(model.get("kind", "user")),
        groups=tuple(sorted(str(group) for group in model.get("groups") or ())),
        scopes=scopes,
        grants=read_scopes(scopes),
    )


class Authenticator:
    """Asks the Hub about tokens, once for many requests that come together.

    Args:
        hub_auth: JupyterHub's own implementation; its `cache_max_age` bounds how long an answer is
            believed.
        limit: what addresses may ask for with tokens that the Hub does not know.
        patience: seconds that the Hub has to answer.
    """

    def __init__(
        self,
        hub_auth: HubOAuth,
        limit: RateLimit,
        *,
        patience: float = 3.0,
        time: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hub_auth = hub_auth
        self._limit, self._patience, self._time = limit, patience, time
        self._known: OrderedDict[str, float] = OrderedDict()
        self._asking: dict[str, asyncio.Task[dict[str, Any] | None]] = {}

    def has_credentials(self, handler: RequestHandler) -> bool:
        return bool(self.hub_auth.get_token(handler))

    async def caller(self, handler: RequestHandler) -> Caller:
        """Who calls.

        Raises:
            Refusal: `not_authenticated`, `not_allowed` (known to the Hub, not let in here),
                `too_many_requests`, `unavailable` while the Hub cannot be asked.
        """
        token = self._token(handler)
        if not token:
            raise not_authenticated("This call needs a token of the Hub.")
        fingerprint = hashlib.sha256(token.encode()).hexdigest()
        address = str(handler.request.remote_ip)
        if not self._is_known(fingerprint) and self._limit.exhausted(address):
            raise too_many()
        model = await self._ask(fingerprint, token, self.hub_auth.get_session_id(handler))
        if model is None:
            self._known.pop(fingerprint, None)
            self._limit.take(address)
            raise not_authenticated("The Hub does not know this token, or it has expired.")
        self._remember(fingerprint)
        caller = caller_from(model)
        if not check_scopes(self.hub_auth.access_scopes, set(caller.scopes)):
            raise Refusal("not_allowed", "This token may not be used at gpudev.")
        return caller

    def _token(self, handler: RequestHandler) -> str:
        token = self.hub_auth.get_token(handler, in_cookie=False)
        if not token:
            token = self.hub_auth.get_token(handler)
            if token:
                self._check_xsrf(handler)
        token = str(token or "")
        if len(token) > TOKEN_MAX or not token.isascii() or not token.isprintable():
            raise not_authenticated("This is not a token of the Hub.")
        return token

    def _check_xsrf(self, handler: RequestHandler) -> None:
        """JupyterHub's rules for cookies: also reading by a script needs the header, since a page
        of another server on this host could be the one that asks."""
        try:
            self.hub_auth.check_xsrf_cookie(handler)
        except HTTPError:
            raise Refusal(
                "not_allowed",
                "A call with the browser's login needs the header X-XSRFToken with the value of "
                "the page's _xsrf cookie. Reload the page, or use a token.",
            ) from None

    async def _ask(self, fingerprint: str, token: str, session: str) -> dict[str, Any] | None:
        """One question at a time for each token, however many requests wait for the answer."""
        key = f"{fingerprint}:{session}"
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask_hub(token, session))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _ask_hub(self, token: str, session: str) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(self._patience):
                model: dict[str, Any] | None = await self.hub_auth.user_for_token(
                    token, session_id=session, sync=False
                )
        except (HTTPError, TimeoutError) as error:
            log.warning("the Hub could not be asked about a token: %s", type(error).__name__)
            raise hub_away() from error
        return model

    def _is_known(self, fingerprint: str) -> bool:
        at = self._known.get(fingerprint)
        return at is not None and self._time() - at < KNOWN_FOR

    def _remember(self, fingerprint: str) -> None:
        self._known[fingerprint] = self._time()
        self._known.move_to_end(fingerprint)
        if len(self._known) > 10_000:  # noqa: PLR2004 - bounded; more than the tokens in use
            self._known.popitem(last=False)


def not_authenticated(why: str) -> Refusal:
    return Refusal(
        "not_authenticated",
        f"{why} Send `Authorization: token ...` with one from the Hub's token page, or log in "
        "with `gpu-dev login`, or open gpudev's page in a browser.",
    )


def too_many() -> Refusal:
    return Refusal(
        "too_many_requests",
        "Too many requests without a valid token came from your address. Wait a moment.",
    )


def hub_away() -> Refusal:
    return Refusal(
        "unavailable",
        "The Hub cannot be asked who you are at the moment. Running leases go on; try again soon.",
    )
