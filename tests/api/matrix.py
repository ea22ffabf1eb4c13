"""Runs every route as every role against things of ada, of sam, and that are not there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from gpudev_client.models import CloneRequest, DiskChange, DiskRequest, ReservationRequest
from gpudev_service.api.route import Route
from tests.fixtures.hub import ADMIN, LEADER, RunningHub

from .rules import ROLES, Role, expected

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
_BODIES = {
    "extend_reservation": {"hours": 1},
    "report_server": {"status": "running"},
    "restore_disk": {},
    "take_snapshot": {},
    "set_maintenance": {"message": "for a test"},
    "drain_node": {"reason": "for a test"},
    "invite_collaborator": {"role": "view"},
    "replace_ssh_keys": {"keys": [f"{SSH_KEY} of a test"]},
    "add_ssh_keys": {"keys": [f"{SSH_KEY} of a test"]},
    "snapshot_reservation": {},
    "redeem_ssh_ticket": {"ticket": "t" * 43},
    "publish_ssh_host": {"host_keys": [SSH_KEY], "login": "jovyan"},
    "report_closing": {"saved": 0},
    "report_activity": {"sources": []},
    "redeem_cli_login": {"code": "c" * 43, "verifier": "v" * 43},
}
#: Whom nobody has invited yet.
GUEST = "gwen"
#: Roles whose token is narrowed to the server of the very reservation, with its scope.
NARROWED = {
    "server's own token": "custom:gpudev:lab",
    "owner's login in the server": "custom:gpudev:reserve",
}
ABSENT = "a000000000000000"
OWNERS = ("ada", "sam", "absent")
AT_ONCE = 8
#: Bookings lie one after the other, also those of several matrices at one Hub.
_BOOKINGS = itertools.count()


@dataclass
class Cell:
    """One call and what came of it."""

    role: str
    route: str
    owner: str
    expected: int | None
    status: int
    body: bytes
    #: Names of the answer's headers.
    headers: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        if self.expected is not None:
            return self.status == self.expected
        # Let through: done, or refused by the operation for a reason of its own.
        if self.route == "redeem_cli_login":
            return self.status == 404
        if self.route == "redeem_ssh_ticket" and b"no such ticket" in self.body:
            return self.status == 404
        let_through = self.status < 400 or self.status == 409
        return let_through or (self.owner == "absent" and self.status in {404, 422})

    def __str__(self) -> str:
        wanted = self.expected or "let through"
        return (
            f"{self.route} as {self.role} on {self.owner}: {self.status}, expected {wanted}: "
            f"{self.body[:200]!r}"
        )


@dataclass
class Matrix:
    """The people, their tokens and their things at one service."""

    hub: RunningHub
    base: str
    http: httpx.AsyncClient
    tokens: dict[str, str | None] = field(default_factory=dict)
    reservations: dict[str, str] = field(default_factory=lambda: {"absent": ABSENT})
    _numbers: Any = field(default_factory=itertools.count)

    async def prepare(self) -> None:
        """Makes the people and what belongs to them, through the API alone."""
        hub = self.hub
        owner = hub.user("ada", "lab")
        self.tokens = {
            "anonymous": None,
            "owner": owner,
            "stranger": hub.user("sam"),
            "collaborator (use)": hub.user("cleo"),
            "collaborator (view)": hub.user("vera"),
            "removed collaborator": hub.user("remy"),
            "group admin": hub.user(LEADER),
            "admin": hub.user(ADMIN),
            "spawner": hub.spawner_token,
            "reader": hub.token("ada", ["custom:gpudev:read!user=ada"]),
            "no scope": hub.token("ada", []),
        }
        expiring = hub.token("ada", seconds=1)
        revoked = hub.new_token("ada")
        hub.revoke("ada", revoked["id"])
        self.tokens |= {"expired": expiring, "revoked": revoked["token"]}
        self.reservations["ada"] = await self.reservation("ada")
        self.reservations["sam"] = await self.reservation("sam")
        other = await self.reservation("ada")
        self.tokens["another server's token"] = hub.token(
            "ada", [f"custom:gpudev:lab!server=ada/{other}"]
        )
        self.tokens["collaborator's narrowed token"] = hub.token(
            "cleo", ["custom:gpudev:reserve!server=cleo/x"]
        )
        hub.user(GUEST)
        await self.invite(self.reservations["ada"])
        for user in ("ada", "sam"):
            await self.disk(user, "kept")
        await self.gone(expiring)

    async def invite(self, reservation: str) -> None:
        """Lets cleo use and vera see a reservation of ada; remy is invited and removed again."""
        path = f"/reservations/{reservation}/collaborators"
        for user, role in (("cleo", "use"), ("vera", "view"), ("remy", "use")):
            answer = await self.call("PUT", f"{path}/{user}", self.tokens["owner"], {"role": role})
            assert answer.status_code == 200, answer.text
        answer = await self.call("DELETE", f"{path}/remy", self.tokens["owner"])
        assert [one["user"] for one in answer.json()["collaborators"]] == ["cleo", "vera"]

    async def gone(self, token: str) -> None:
        """Returns when the Hub no longer knows a token that is about to end."""
        while True:
            answer = await self.http.get(
                f"{self.hub.url}/hub/api/user", headers={"Authorization": f"token {token}"}
            )
            if answer.status_code == httpx.codes.FORBIDDEN:
                return

    async def reservation(self, user: str) -> str:
        """A booking of `user` that does not start within the test."""
        body = self.request(user)
        answer = await self.call("POST", "/reservations", self.tokens["admin"], body)
        assert answer.status_code == 201, (answer.status_code, answer.text)
        return str(answer.json()["id"])

    async def disk(self, user: str, name: str) -> str:
        path = f"/disks?user={user}"
        answer = await self.call("POST", path, self.tokens["admin"], {"name": name})
        assert answer.status_code in {201, 409}, answer.text
        return name

    def request(self, user: str) -> dict[str, Any]:
        start = datetime.now(UTC) + timedelta(days=1, minutes=30 * next(_BOOKINGS))
        return {"gpu_type": "h100", "hours": 1, "starts_at": start.isoformat(), "user": user}

    async def run(self, routes: Iterable[Route], roles: Iterable[Role] = ROLES) -> list[Cell]:
        """Every cell of `routes`, some at once."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(role: Role, route: Route, owner: str) -> Cell:
            async with limit:
                return await self.cell(role, route, owner)

        return await asyncio.gather(
            *(one(role, route, owner) for route in routes for role in roles for owner in OWNERS)
        )

    async def cell(self, role: Role, route: Route, owner: str) -> Cell:
        wanted = expected(role, route.method, route.path, owner)
        fresh = wanted is None and route.mutating and owner != "absent"
        reservation = self.reservations[owner]
        if fresh and "{id}" in route.path:
            reservation = await self.reservation(owner)
            if role.name_at_hub and owner == "ada":
                await self.invite(reservation)
        token = self.narrowed(role, reservation if owner == "ada" else self.reservations["ada"])
        disk = "nowhere" if owner == "absent" else "kept"
        if fresh and route.path.startswith("/disks/"):
            disk = await self.disk(owner, f"disk-{next(self._numbers)}")
            if route.name == "restore_disk":
                await self.call("DELETE", f"/disks/{disk}?user={owner}", self.tokens["admin"])
        user = owner
        if "/collaborators/" in route.path:
            user = (role.name_at_hub or "cleo") if route.method == "DELETE" else GUEST
        path = route.path.format(id=reservation, name=disk, node="cpu-1", user=user)
        if route.path.startswith("/gpu-types"):
            path = route.path.format(name="t4-small")
        if route.path.startswith("/disks"):
            path += f"?user={owner}"
        if route.name == "remove_ssh_key":
            path += "?fingerprint=SHA256:none"
        answer = await self.call(route.method, path, token, self.body(route, owner))
        return Cell(
            role.name, route.name, owner, wanted, answer.status_code, answer.content, shape(answer)
        )

    def narrowed(self, role: Role, reservation: str) -> str | None:
        """The role's token; one that is narrowed to a server is made for this one."""
        scope = NARROWED.get(role.name)
        if scope is None:
            return self.tokens[role.name]
        return self.hub.token("ada", [f"{scope}!server=ada/{reservation}"])

    def body(self, route: Route, owner: str) -> Any:
        """A valid body."""
        if route.body is ReservationRequest:
            return self.request(owner)
        if route.body in {DiskRequest, DiskChange, CloneRequest}:
            return {"name": f"disk-{next(self._numbers)}"}
        return _BODIES.get(route.name)

    async def call(
        self, method: str, path: str, token: str | None, json: Any = None
    ) -> httpx.Response:
        """A call; of a stream only the beginning is read."""
        headers = {} if token is None else {"Authorization": f"token {token}"}
        request = self.http.build_request(
            method, f"{self.base}/api/v1{path}", json=json, headers=headers
        )
        answer = await self.http.send(request, stream=True)
        try:
            if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                await answer.aread()
            else:
                answer._content = b""
        finally:
            await answer.aclose()
        return answer


def shape(answer: httpx.Response) -> tuple[str, ...]:
    """The names of an answer's headers."""
    return tuple(sorted(name.lower() for name in answer.headers))


def leaks(cells: Iterable[Cell]) -> list[str]:
    """Refusals that tell a thing which is not the caller's from one that is not there."""
    absent = {(c.route, c.role): c for c in cells if c.owner == "absent"}
    found = []
    for cell in cells:
        twin = absent[cell.route, cell.role]
        hidden = cell.status == 404 and cell.expected == 404
        told = (cell.status, cell.body, cell.headers)
        if hidden and (twin.status, twin.body, twin.headers) != told:
            found.append(f"{cell} differs from {twin}")
    return found
