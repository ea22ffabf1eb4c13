"""A running service with callers of every kind, for calls that a machine makes up.

What belongs to somebody has a word in its name that stands nowhere else, so that an answer with
that word tells of these things. A call is kept as a file in which the ids of one run have names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote_plus

import httpx

from gpudev_client.states import FINAL
from tests.fixtures.hub import ADMIN, LEADER, RunningHub

from .matrix import SSH_KEY

#: Names of people, and words in the names of their things. The hidden reservation is the owner's
#: too, but not shared.
OWNER, HIDDEN, SHARER, STRANGER, GUEST = "quince", "damson", "sorrel", "medlar", "rowan"
#: What stands in no answer to a caller, unless the call itself says it.
UNSEEN: Mapping[str, frozenset[str]] = {
    "anonymous": frozenset({OWNER, HIDDEN, SHARER, STRANGER}),
    "no scope": frozenset({HIDDEN, SHARER, STRANGER}),
    "stranger": frozenset({OWNER, HIDDEN, SHARER}),
    "sharer": frozenset({HIDDEN, STRANGER}),
    "lab": frozenset({HIDDEN, STRANGER}),
    "reader": frozenset({STRANGER}),
    "owner": frozenset({STRANGER}),
    "leader": frozenset({STRANGER}),
    "spawner": frozenset(),
    "admin": frozenset(),
}
#: The things lie on a type of their own, which no made-up call can fill. Nothing is idle for a day.
CONFIG = """
from gpudev_service.loops import driving

async def _nobody_starts(ctx, key):
    return None

driving.begin = _nobody_starts
c.GpuDev.gpu_types = {
    "t4": {"gpus_per_node": 8, "cpus": 48, "memory_gb": 192},
    "kept": {"gpus_per_node": 1, "cpus": 48, "memory_gb": 192},
}
c.GpuDev.nodes = [
    {"name": f"{kind}-{n}", "gpu_type": kind, "simulated": True}
    for kind in ("t4", "kept") for n in range(20)
]
c.GpuDev.policy = {"default": {"idle": {"after_minutes": 1440}}}
"""
API = "/api/v1"
#: A stream's reader has the whole present state when this comes.
PRESENT = ": this was the present state"


@dataclass(frozen=True, slots=True)
class Sent:
    """A call. `target` is path and query below the service's address."""

    caller: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def words(self) -> str:
        """All that it says, to find out what an answer may repeat."""
        body = unquote_plus(self.body.decode(errors="replace"))
        return f"{unquote_plus(self.target)} {self.headers} {body}"

    def kept(self, names: Mapping[str, str]) -> str:
        """The call as a file's text, with names in place of ids."""
        said: dict[str, Any] = {"caller": self.caller, "method": self.method}
        said |= {"target": self.target, "headers": dict(self.headers)}
        try:
            said["body"] = self.body.decode()
        except UnicodeDecodeError:
            said["base64"] = base64.b64encode(self.body).decode()
        text = json.dumps(said, indent=2)
        for name, value in names.items():
            text = text.replace(value, f"<{name}>")
        return text + "\n"

    @classmethod
    def read(cls, path: Path, names: Mapping[str, str]) -> tuple[Self, int | None]:
        """A kept call, and the status that it must be answered with, where the file says one."""
        text = path.read_text()
        for name, value in names.items():
            text = text.replace(f"<{name}>", value)
        said = json.loads(text)
        body = said["body"].encode() if "body" in said else base64.b64decode(said["base64"])
        headers = tuple(said.get("headers", {}).items())
        sent = cls(said["caller"], said["method"], said["target"], headers, body)
        return sent, said.get("status")


@dataclass
class Target:
    """The service, its callers' tokens and the ids of things that calls can be about."""

    hub: RunningHub
    tokens: dict[str, str | None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    #: Credentials of this installation, and of its callers.
    secrets: list[bytes] = field(default_factory=list)
    #: Whether calls may have ended something.
    changed: bool = True

    def __post_init__(self) -> None:
        hub = self.hub
        # Without cookies: each answer is to the caller's token alone.
        jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.http = httpx.Client(trust_env=False, timeout=30, cookies=jar)
        self.tokens = {
            "anonymous": None,
            "stranger": hub.user(STRANGER),
            "sharer": hub.user(SHARER),
            "owner": hub.user(OWNER, "lab"),
            "leader": hub.user(LEADER),
            "spawner": hub.spawner_token,
            "admin": hub.user(ADMIN),
            "reader": hub.token(OWNER, [f"custom:gpudev:read!user={OWNER}"]),
            "no scope": hub.token(OWNER, []),
        }
        hub.user(GUEST)
        keys = {"keys": [f"{SSH_KEY} {STRANGER}-laptop"]}
        self._made("stranger", "PUT", f"/users/{STRANGER}/ssh-keys", keys)
        self.renew()

    def renew(self) -> None:
        """Makes anew what calls have ended."""
        if not self.changed:
            return
        self.changed = False
        for path in ("/gpu-types/t4/maintenance", "/gpu-types/kept/maintenance"):
            self._made("admin", "DELETE", path)
        for who, word in (("owner", OWNER), ("stranger", STRANGER)):
            for disk in (f"{word}-disk", "work"):
                self._call(who, "POST", "/disks", {"name": disk})
        wanted = (("shared", "owner", OWNER), ("hidden", "owner", HIDDEN))
        for name, who, word in (*wanted, ("other", "stranger", STRANGER)):
            if name in self.names and self._lives(self.names[name]):
                continue
            asked = {"gpu_type": "kept", "gpus": 1, "hours": 4, "name": f"{word} run"}
            key = self.names[name] = self._made(who, "POST", "/reservations", asked)["id"]
            if name == "shared":
                told = {"status": "running", "handle": {"pid": 1}}
                self._made("spawner", "PUT", f"/reservations/{key}/server", told)
                scope = f"custom:gpudev:lab!server={OWNER}/{key}"
                self.tokens["lab"] = self.hub.token(OWNER, [scope])
        path = f"/reservations/{self.names['shared']}/collaborators/{SHARER}"
        self._made("owner", "PUT", path, {"role": "use"})
        hidden = f"/reservations/{self.names['hidden']}/collaborators"
        for user in (SHARER, STRANGER):  # a made-up call of the owner's may have invited them
            self._made("owner", "DELETE", f"{hidden}/{user}")
        files = [one for one in (self.hub.home / "secrets").iterdir() if one.is_file()]
        self.secrets = [one.read_bytes().strip() for one in files]
        self.secrets += [token.encode() for token in self.tokens.values() if token]

    def _lives(self, key: str) -> bool:
        state = self._made("admin", "GET", f"/reservations/{key}")["state"]
        if state == "stopping":  # nobody else ends its server
            self._made("spawner", "PUT", f"/reservations/{key}/server", {"status": "stopped"})
        return state not in FINAL | {"stopping"}

    def _call(self, who: str, method: str, path: str, sent: Any = None) -> httpx.Response:
        return self.hub.call(method, path, self.tokens[who], sent)

    def _made(self, who: str, method: str, path: str, sent: Any = None) -> Any:
        answer = self._call(who, method, path, sent)
        assert answer.is_success, (method, path, answer.text)
        return answer.json()

    def known(self, parameter: str, *, changes: bool) -> list[str]:
        """Values of a parameter or field that name something. What changes things never names the
        stranger: what an owner shares with them is theirs to see."""
        people = [OWNER, SHARER, GUEST if changes else STRANGER]
        values = {
            "id": [self.names[name] for name in ("shared", "hidden", "other")],
            "name": [f"{OWNER}-disk", f"{STRANGER}-disk", "t4", "work"],
            "node": ["t4-1"],
            "user": people,
            "gpu_type": ["t4"],
            "disk": ["work"],
        }
        return values.get(parameter, [])

    def send(self, sent: Sent) -> httpx.Response:
        """Sends a call, as it is; an event stream is read up to its present state."""
        self.changed |= sent.method != "GET"
        headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.headers]
        token = self.tokens[sent.caller]
        if token is not None:
            headers.append((b"Authorization", f"token {token}".encode()))
        request = self.http.build_request(
            sent.method, f"{self.hub.service}{sent.target}", headers=headers,
            content=sent.body or None,
        )  # fmt: skip
        answer = self.http.send(request, stream=True)
        try:
            if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                answer._content = _beginning(answer).encode()
            else:
                answer.read()
        finally:
            answer.close()
        return answer

    def inside(self) -> list[bytes]:
        """Paths and addresses of this installation that its people have no use for."""
        ports = self.hub.ports
        own = (ports.hub, ports.proxy_api, ports.service)
        return [str(self.hub.home).encode(), *(f"127.0.0.1:{port}".encode() for port in own)]

    def close(self) -> None:
        self.http.close()


def _beginning(answer: httpx.Response) -> str:
    text = ""
    for piece in answer.iter_text():
        text += piece
        if PRESENT in text:
            break
    return text
