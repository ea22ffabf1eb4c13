"""R6: calls whose last effect must stand, whatever of the earlier ones comes late.

Each client has a running lease on a GPU type of its own, with one node, and says things about
them; it also remembers what it was told was done, in which order.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import struct
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

import httpx

from benchmarks.cli_logins import Logins
from tests.e2e.database import Database
from tests.fixtures.hub import ADMIN, RunningHub

#: What a server says before its end is kept 20 times (`operations/lab.py`).
_CLOSINGS_MAX = 20
#: Something that a client does.
Act = Callable[[], Coroutine[Any, Any, None]]
#: Sends one call until it is answered; None where it never was.
Send = Callable[..., Coroutine[Any, Any, httpx.Response | None]]


@dataclass
class Standing:
    """What one client says of its lease, its keys, and its part of the fleet."""

    user: str
    number: int
    guest: str
    call: Send
    rng: Random
    tokens: dict[str, str]
    lease: str
    cli_logins: Logins
    keys: set[str] = field(default_factory=set)
    invited: bool = False
    drained: bool = False
    closed: bool = False
    login: str | None = None
    seen: str | None = None
    kept: int = 0
    told: list[str] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    closings: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)

    @classmethod
    def prepare(
        cls,
        hub: RunningHub,
        user: str,
        number: int,
        guest: str,
        call: Send,
        logins: Logins,
    ) -> Standing:
        """Makes the lease, and lets its owner enter by SSH, without faults."""
        tokens = {"own": hub.user(user), "admin": hub.user(ADMIN), "spawner": hub.spawner_token}

        def done(method: str, path: str, who: str, sent: dict[str, Any]) -> httpx.Response:
            return hub.call(method, path, tokens[who], sent).raise_for_status()

        asked = {"gpu_type": f"own-{number}", "gpus": 1, "hours": 24, "disk": "home"}
        asked |= {"create_disk": True, "name": f"lease of {user}"}
        lease = done("POST", "/reservations", "own", asked).json()["id"]
        done("PUT", f"/reservations/{lease}/server", "spawner", {"status": "running"})
        tokens["lab"] = hub.token(user, [f"custom:gpudev:lab!server={user}/{lease}"])
        line, fingerprint = _key()
        done("POST", f"/users/{user}/ssh-keys", "own", {"keys": [line]})
        host = {"host_keys": [_key()[0]], "login": "first"}
        done("PUT", f"/reservations/{lease}/ssh-host", "lab", host)
        rng = Random(f"standing {user}")
        made = cls(user, number, guest, call, rng, tokens, lease, logins)
        made.keys, made.login = {fingerprint}, "first"
        return made

    def acts(self) -> list[Act]:
        always = [
            self.add_key, self.replace_keys, self.invite, self.uninvite, self.drain, self.maintain,
            self.publish, self.report, self.keep, self.tell, self.save, self.plan, self.enter,
            self.log_in,
        ]  # fmt: skip
        can_close = len(self.closings) < _CLOSINGS_MAX
        return always + [self.remove_key] * bool(self.keys) + [self.say_closing] * can_close

    async def _done(
        self, method: str, path: str, sent: Any = None, who: str = "own"
    ) -> httpx.Response | None:
        """The answer, where it is success."""
        answer = await self.call(method, path, sent, self.tokens[who])
        return answer if answer is not None and answer.is_success else None

    def _at(self, *more: str) -> str:
        return "/".join((f"/reservations/{self.lease}", *more))

    async def add_key(self) -> None:
        line, fingerprint = _key()
        if await self._done("POST", f"/users/{self.user}/ssh-keys", {"keys": [line]}):
            self.keys.add(fingerprint)

    async def remove_key(self) -> None:
        gone = self.rng.choice(sorted(self.keys))
        path = f"/users/{self.user}/ssh-keys?fingerprint={quote(gone)}"
        if await self._done("DELETE", path):
            self.keys.discard(gone)

    async def replace_keys(self) -> None:
        made = [_key() for _ in range(2)]
        sent = {"keys": [line for line, _ in made]}
        if await self._done("PUT", f"/users/{self.user}/ssh-keys", sent):
            self.keys = {fingerprint for _, fingerprint in made}

    async def invite(self) -> None:
        path = self._at("collaborators", self.guest)
        if await self._done("PUT", path, {"role": self.rng.choice(("use", "view"))}):
            self.invited = True

    async def uninvite(self) -> None:
        if await self._done("DELETE", self._at("collaborators", self.guest)):
            self.invited = False

    async def drain(self) -> None:
        path, drains = f"/cluster/nodes/own-{self.number}-0/drain", not self.drained
        sent = {"reason": "for a measurement"} if drains else None
        if await self._done("PUT" if drains else "DELETE", path, sent, "admin"):
            self.drained = drains

    async def maintain(self) -> None:
        path, closes = f"/gpu-types/own-{self.number}/maintenance", not self.closed
        sent = {"message": "for a measurement"} if closes else None
        if await self._done("PUT" if closes else "DELETE", path, sent, "admin"):
            self.closed = closes

    async def publish(self) -> None:
        login = f"u{uuid.uuid4().hex[:12]}"
        sent = {"host_keys": [_key()[0]], "login": login}
        if await self._done("PUT", self._at("ssh-host"), sent, "lab"):
            self.login = login

    async def report(self) -> None:
        marker = uuid.uuid4().hex
        sent = {"sources": [{"source": "programs", "detail": marker}]}
        if await self._done("PUT", self._at("activity"), sent, "lab"):
            self.seen = marker

    async def keep(self) -> None:
        if await self._done("POST", self._at("keep")):
            self.kept += 1

    async def tell(self) -> None:
        marker = uuid.uuid4().hex
        if await self._done("PUT", self._at("server"), _note(marker), "spawner"):
            self.told.append(marker)

    async def save(self) -> None:
        marker = uuid.uuid4().hex
        if await self._done("POST", self._at("snapshot"), {"note": marker}):
            self.saved.append(marker)

    async def plan(self) -> None:
        """Nothing may come of it: a reservation of that name would be nobody's."""
        await self._done("POST", "/plan", {"gpu_type": "t4", "gpus": 1, "hours": 1, "name": "plan"})

    async def enter(self) -> None:
        """A ticket is good once, whatever becomes of the answers."""
        answer = await self._done("POST", self._at("ssh"))
        if answer is None:
            return
        sent = {"ticket": answer.json()["ticket"]}
        path = self._at("ssh-tickets")
        good = [await self._done("POST", path, sent, "lab") for _ in range(2)]
        if all(good):
            self.twice.append(f"a ticket of {self.user} was good twice")

    async def say_closing(self) -> None:
        marker = uuid.uuid4().hex
        if await self._done("POST", self._at("closing"), {"saved": 1, "hook": marker}, "lab"):
            self.closings.append(marker)

    async def log_in(self) -> None:
        """By a code that nobody but this command line can use; it needs no token."""
        machine = uuid.uuid4().hex
        sent = await asyncio.to_thread(self.cli_logins.confirm, machine)
        self.cli_logins.given[machine] = False
        if await self._done("POST", "/cli-tokens", sent):
            self.cli_logins.given[machine] = True

    def differences(self, database: Database) -> list[str]:
        """What is stored otherwise than was answered."""
        facts = [
            ("keys", self.keys, self._stored(database, _KEYS, user=self.user)),
            ("guests", {self.guest} if self.invited else set(), self._of_lease(database, _GUESTS)),
            ("drained", {1} if self.drained else set(), self._drain(database)),
            ("closed", {1} if self.closed else set(), self._closed(database)),
            ("login", {self.login} - {None}, self._of_lease(database, _LOGIN)),
        ]
        found = [
            f"{self.user}: {what} {has} for {told}" for what, told, has in facts if told != has
        ]
        kept = database.rows(_KEPT, id=self.lease)[0]["number"]
        if kept != self.kept:
            found.append(f"{self.user}: kept {kept} times for {self.kept} calls")
        seen = str(database.rows(_SEEN, id=self.lease)[0]["one"])
        if self.seen is not None and self.seen not in seen:
            found.append(f"{self.user}: its last report does not stand")
        for what, query, markers in (
            ("line", _LINES, self.told),
            ("snapshot", _SAVED, self.saved),
            ("closing", _CLOSINGS, self.closings),
        ):
            rows = [row["one"] for row in database.rows(query, id=self.lease)]
            if sorted(rows) != sorted(markers):
                found.append(f"{self.user}: {len(rows)} {what}s for {len(markers)} calls")
        return found + self.twice + self.cli_logins.differences()

    def _stored(self, database: Database, query: str, **values: Any) -> set[Any]:
        return {row["one"] for row in database.rows(query, **values)}

    def _of_lease(self, database: Database, query: str) -> set[Any]:
        return self._stored(database, query, id=self.lease)

    def _drain(self, database: Database) -> set[Any]:
        return self._stored(database, _DRAIN, node=f"own-{self.number}-0")

    def _closed(self, database: Database) -> set[Any]:
        return self._stored(database, _CLOSED, type=f"own-{self.number}")


_KEYS = 'SELECT fingerprint AS one FROM ssh_keys WHERE "user" = :user'
_GUESTS = (
    'SELECT "user" AS one FROM collaborators WHERE reservation_id = :id AND removed_at IS NULL'
)
_DRAIN = "SELECT 1 AS one FROM node_drains WHERE node = :node"
_CLOSED = "SELECT 1 AS one FROM maintenances WHERE gpu_type = :type"
_LOGIN = "SELECT login AS one FROM ssh_hosts WHERE reservation_id = :id"
_SEEN = "SELECT activity AS one FROM reservations WHERE id = :id"
_KEPT = (
    "SELECT count(*) AS number FROM history WHERE reservation_id = :id AND kind = 'idle'"
    " AND reason LIKE 'Kept on request%'"
)
#: Markers are 32 hexadecimal digits; no other line of a server is that long without a space.
_LINES = (
    "SELECT reason AS one FROM history WHERE reservation_id = :id AND kind = 'server'"
    " AND length(reason) = 32 AND reason NOT LIKE '% %'"
)
_CLOSINGS = (
    "SELECT substr(reason, -32) AS one FROM history WHERE reservation_id = :id AND kind = 'closing'"
)
_SAVED = (
    "SELECT s.note AS one FROM snapshots s JOIN disks d ON d.id = s.disk_id"
    " JOIN reservations r ON r.disk_id = d.id WHERE r.id = :id AND length(s.note) = 32"
)


def _note(marker: str) -> dict[str, str]:
    return {"status": "note", "message": marker}


def _key() -> tuple[str, str]:
    """A public key that nobody has the other half of, and its fingerprint."""
    parts = (b"ssh-ed25519", os.urandom(32))
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    fingerprint = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}", f"SHA256:{fingerprint}"
