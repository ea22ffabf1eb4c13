"""The few calls that the service makes to the JupyterHub API.

Every call has a time limit and says plainly when the Hub could not be asked (`HubAway`), which is
never a reason for a lease to go on. The token's scopes: `servers` (start, stop), `list:users` with
`read:users:name` and `read:servers` (see what runs), `read:users:groups` (policy of a user for
whom somebody else reserves), `delete:servers` (remove rows of servers that
gpudev named), `shares` (let collaborators into a server, and out again).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from gpudev_client.hub_api import ROWS

from .clock import elapsed

#: Users per page; the Hub gives fewer where it is set to.
_PAGE = 200


#: Seconds for the answer to a start: the Hub gives it when the server is up, or after its own
#: `slow_spawn_timeout` (10 s).
START_PATIENCE = 20.0


class HubAway(Exception):  # noqa: N818 - a state of the world, handled everywhere it is met
    """The Hub did not answer, or not sensibly."""


class HubRefused(Exception):  # noqa: N818
    """The Hub said no (4xx); `message` is its reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class HubServer:
    """A server as the Hub shows it. `pending` is "spawn", "stop" or None."""

    user: str
    name: str
    ready: bool
    pending: str | None
    stopped: bool
    started_at: datetime | None
    last_activity: datetime | None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that the Hub has just made; it is never shown again."""

    token: str = field(repr=False)
    expires_at: datetime | None


class Hub:
    """A client of the Hub's REST API with the service's own token.

    Args:
        may_act: asked before each call that changes something.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        patience: float = 10.0,
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        self._may_act = may_act
        #: Told the header `Date` of each answer, and when it was asked for.
        self.hears: Callable[[str | None, float], None] | None = None
        self._http = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/",
            headers={
                "Authorization": f"token {token}",
                "Accept": "application/jupyterhub-pagination+json",
            },
            timeout=httpx.Timeout(patience, connect=min(patience, 3.0)),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def server(self, user: str, name: str) -> HubServer | None:
        """The server, or None where the Hub has no row of it."""
        try:
            answer = await self._ask("GET", f"users/{_segment(user)}?include_stopped_servers=1")
        except HubRefused as refusal:
            if refusal.status == httpx.codes.NOT_FOUND:
                return None
            raise
        with _sense():
            row = answer.json().get("servers", {}).get(name)
            return None if row is None else _server(user, name, row)

    async def groups(self, user: str) -> tuple[str, ...] | None:
        """The Hub groups of a user, sorted; None where the Hub has no such user."""
        try:
            answer = await self._ask("GET", f"users/{_segment(user)}")
        except HubRefused as refusal:
            if refusal.status == httpx.codes.NOT_FOUND:
                return None
            raise
        with _sense():
            return tuple(sorted(answer.json().get("groups", ())))

    async def servers(self) -> list[HubServer]:
        """All servers of all users, stopped ones too; page by page."""
        found: dict[tuple[str, str], HubServer] = {}
        offset: int | None = 0
        while offset is not None:
            answer = await self._ask(
                "GET", f"users?include_stopped_servers=1&limit={_PAGE}&offset={offset}"
            )
            with _sense():
                page = answer.json()
                for user in page["items"]:
                    # Users who come and go between two pages may be seen twice.
                    for name, row in user.get("servers", {}).items():
                        found[user["name"], name] = _server(user["name"], name, row)
                offset = _following(page["_pagination"]["next"], offset)
        return list(found.values())

    async def start(self, user: str, name: str, reservation_id: str) -> None:
        """Starts the server of a reservation; nothing happens if it runs or starts already."""
        try:
            await self._ask(
                "POST",
                _path(user, name),
                json={"reservation": reservation_id},
                patience=START_PATIENCE,
            )
        except HubRefused as refusal:
            current = await self.server(user, name)
            if current is None or not (current.ready or current.pending):
                raise refusal from None

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        """Stops the server, and removes its row where `remove`; one that is not there is fine."""
        try:
            await self._ask("DELETE", _path(user, name), json={"remove": remove})
        except HubRefused as refusal:
            if refusal.status != httpx.codes.NOT_FOUND:
                raise

    async def remove(self, user: str, name: str) -> None:
        """Removes the row of a server at rest; one that is not there is fine.

        Raises:
            HubRefused: 409 where it runs or starts by now.
        """
        try:
            await self._ask("DELETE", f"{ROWS}/{_segment(user)}/{_segment(name)}")
        except HubRefused as refusal:
            if refusal.status != httpx.codes.NOT_FOUND:
                raise
            # A Hub that has not gpudev's handlers does not know the address either.
            there = await self.server(user, name)
            if there is not None and not (there.ready or there.pending):
                await self.stop(user, name, remove=True)

    async def share(self, owner: str, name: str, user: str) -> None:
        """Lets `user` into a server of `owner`; nothing happens where they may come in already."""
        await self._ask("POST", _share_path(owner, name), json={"user": user})

    async def unshare(self, owner: str, name: str, user: str) -> None:
        """Takes that back. A server that is gone is shared with nobody."""
        try:
            await self._ask("PATCH", _share_path(owner, name), json={"user": user})
        except HubRefused as refusal:
            if refusal.status != httpx.codes.NOT_FOUND:
                raise

    async def shares(self, owner: str, name: str) -> frozenset[str]:
        """With whom a server is shared; with nobody where the Hub has no row of it."""
        found: set[str] = set()
        offset: int | None = 0
        while offset is not None:
            try:
                path = f"{_share_path(owner, name)}?limit={_PAGE}&offset={offset}"
                answer = await self._ask("GET", path)
            except HubRefused as refusal:
                if refusal.status == httpx.codes.NOT_FOUND:
                    return frozenset()
                raise
            with _sense():
                page = answer.json()
                found |= {share["user"]["name"] for share in page["items"] if share["user"]}
                offset = _following(page["_pagination"]["next"], offset)
        return frozenset(found)

    async def new_token(
        self, user: str, *, login: str, scopes: Sequence[str], note: str, seconds: int
    ) -> NewToken:
        """A token of `user`, made with the token of their own `login`, not with the service's."""
        answer = await self._ask(
            "POST",
            f"users/{_segment(user)}/tokens",
            json={"note": note, "expires_in": seconds, "scopes": list(scopes)},
            token=login,
        )
        with _sense():
            made = answer.json()
            expires = made.get("expires_at")
            return NewToken(
                str(made["token"]), datetime.fromisoformat(expires) if expires else None
            )

    async def _ask(
        self,
        method: str,
        path: str,
        json: Any = None,
        token: str | None = None,
        patience: float | None = None,
    ) -> httpx.Response:
        if method != "GET" and not self._may_act():
            raise HubAway("this replica of the service does not lead")
        headers = None if token is None else {"Authorization": f"token {token}"}
        given = self._http.timeout
        timeout = given if patience is None else httpx.Timeout(patience, connect=given.connect)
        asked = elapsed()
        try:
            answer = await self._http.request(
                method, path, json=json, headers=headers, timeout=timeout
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HubAway(type(error).__name__) from error
        if self.hears is not None:
            self.hears(answer.headers.get("Date"), asked)
        # A Hub that starts too many servers already says 429: that is "later", not "no".
        busy = answer.status_code == httpx.codes.TOO_MANY_REQUESTS
        if busy or answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise HubAway(f"status {answer.status_code}")
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise HubRefused(answer.status_code, _message(answer))
        return answer


@contextmanager
def _sense() -> Iterator[None]:
    """An answer that is not what the Hub's API gives comes from somebody else: a proxy's page."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubAway("an answer without sense") from error


def _following(following: dict[str, Any] | None, offset: int) -> int | None:
    if following is None:
        return None
    if following["offset"] <= offset:  # or we would read for ever
        raise ValueError("the pages do not go on")
    return int(following["offset"])


def _segment(name: str) -> str:
    """A name as one segment of an address.

    Raises:
        HubRefused: a name that an address would swallow: `users/ada/servers/..` is the user.
    """
    try:
        quoted = quote(name, safe="")
    except UnicodeEncodeError:  # half a character, in somebody's JSON
        quoted = ""
    if quoted in ("", ".", ".."):
        raise HubRefused(httpx.codes.NOT_FOUND, "There is no user or server of that name.")
    return quoted


def _path(user: str, name: str) -> str:
    owner = _segment(user)
    return f"users/{owner}/servers/{_segment(name)}" if name else f"users/{owner}/server"


def _share_path(owner: str, name: str) -> str:
    return f"shares/{_segment(owner)}/{_segment(name) if name else ''}"


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("message") or f"status {answer.status_code}")[:500]
    except (ValueError, AttributeError):
        return f"status {answer.status_code}"


def _server(user: str, name: str, row: dict[str, Any]) -> HubServer:
    def moment(key: str) -> datetime | None:
        value = row.get(key)
        return datetime.fromisoformat(value) if value else None

    return HubServer(
        user=user,
        name=name,
        ready=bool(row.get("ready")),
        pending=row.get("pending"),
        stopped=bool(row.get("stopped", False)),
        started_at=moment("started"),
        last_activity=moment("last_activity"),
    )
