"""The service's half of `gpu-dev login`: one-time codes that are traded for a token.

The page of the login calls `begin` after the person has confirmed; the command line trades the code
by `POST /cli-tokens`. Who holds the code alone gets nothing: the verifier (PKCE, S256) never leaves
the command line. Codes live in memory, as hashes, for a minute; a service that ends in between only
costs the person another try.

The token is minted with the person's own login (its OAuth token has the scope `tokens!user`), so
the service needs no right to make tokens for people who are not here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from gpudev_client.models import CliToken, CliTokenRequest
from gpudev_service.clock import elapsed
from gpudev_service.errors import Refusal
from gpudev_service.hub import Hub, HubAway, HubRefused

from .auth import Caller, hub_away
from .permissions import PREFIX
from .route import Access, Call, NoQuery, Route

#: Seconds until a code is void, and how many may be open at once; the oldest goes first.
CODE_LIFE = 60.0
CODES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class _Pending:
    """A confirmed login that waits for its code to be redeemed."""

    name: str
    scopes: tuple[str, ...]
    challenge: str
    note: str
    begun: float
    login: str = field(repr=False)


class Logins:
    """Hands out codes and redeems each once."""

    def __init__(
        self, hub: Hub, days: float, service_name: str, time: Callable[[], float] = elapsed
    ) -> None:
        self._hub, self._time = hub, time
        self._service_name = service_name
        #: Seconds for which a token lives.
        self.life = round(days * 24 * 3600)
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    def begin(self, caller: Caller, login: str, challenge: str, machine: str) -> str:
        """A code for a person who has confirmed.

        Args:
            login: the OAuth token of their browser's login.
            challenge: of the command line (checked by the page).
            machine: what the person is shown, for the token's note.

        Raises:
            Refusal: the caller is no person with a login that may make tokens.
        """
        if caller.kind != "user" or f"tokens!user={caller.name}" not in caller.scopes:
            raise Refusal(
                "not_allowed",
                "This login may not make tokens for the command line. Make one on the Hub's token "
                "page and give it to `gpu-dev login --with-token`.",
            )
        code = secrets.token_urlsafe(32)
        self._pending[_hash(code)] = _Pending(
            name=caller.name,
            scopes=self.scopes(caller),
            challenge=challenge,
            note=f"gpu-dev on {machine}" if machine else "gpu-dev",
            begun=self._time(),
            login=login,
        )
        self._drop_old()
        return code

    def scopes(self, caller: Caller) -> tuple[str, ...]:
        """What a token of this person will be allowed: as far as they are, and nothing of the
        Hub's own rights."""
        wanted = [f"access:services!service={self._service_name}"]
        for scope in (f"{PREFIX}admin", f"{PREFIX}reserve", f"{PREFIX}reserve!user={caller.name}"):
            if scope in caller.scopes:
                return (*wanted, scope)
        return (*wanted, f"{PREFIX}read!user={caller.name}")

    async def redeem(self, request: CliTokenRequest) -> CliToken:
        """The token for a code.

        Raises:
            Refusal: `not_found` whatever is wrong with the code, `unavailable` while the Hub is
                away. Either way the code is used up.
        """
        self._drop_old()
        pending = self._pending.pop(_hash(request.code), None)
        if pending is None or not _fits(request.verifier, pending.challenge):
            raise _no_such_code()
        try:
            minted = await self._hub.new_token(
                pending.name,
                login=pending.login,
                scopes=pending.scopes,
                note=pending.note,
                seconds=self.life,
            )
        except HubAway as error:
            raise hub_away() from error
        except HubRefused as error:
            raise _no_such_code() from error
        return CliToken(
            token=minted.token,
            name=pending.name,
            scopes=list(pending.scopes),
            expires_at=minted.expires_at,
        )

    def _drop_old(self) -> None:
        while self._pending:
            oldest = next(iter(self._pending.values()))
            young = self._time() - oldest.begun < CODE_LIFE
            if young and len(self._pending) <= CODES_MAX:
                return
            self._pending.popitem(last=False)


def _no_such_code() -> Refusal:
    return Refusal("not_found", "There is no such login code.")


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _fits(verifier: str, challenge: str) -> bool:
    digest = hashlib.sha256(verifier.encode()).digest()
    made = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return hmac.compare_digest(made, challenge)


async def redeem(call: Call[NoQuery, CliTokenRequest]) -> CliToken:
    return await call.service.logins.redeem(call.body)


ROUTES = (
    Route(
        "redeem_cli_login",
        "POST",
        "/cli-tokens",
        Access.PUBLIC,
        redeem,
        "Trade the one-time code of a browser login for a token of the command line.",
        body=CliTokenRequest,
        answer=CliToken,
        status=201,
        errors=("not_found", "unavailable"),
        secret=True,
    ),
)
