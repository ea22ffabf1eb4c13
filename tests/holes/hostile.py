"""Names that are made to hurt, from a seed, and what must hold for each of them.

Users, reservations, disks and servers have names that people choose. The pure functions that make
ids, paths, commands, configuration and markup of them are asked about each name; `Names` remembers
what they made, to find two that are one. What is found is said in a sentence.
"""

from __future__ import annotations

import hashlib
import html.parser
import json
import logging
import os
import random
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpudev_client import _flow, errors, kubernetes, limits, remote
from gpudev_client.cli import show
from gpudev_client.models import DiskRequest, ReservationRequest
from gpudev_client.ssh import config as ssh
from gpudev_client.ssh import hosts
from gpudev_client.ssh.problems import Problem
from gpudev_lab.sshd import daemon
from gpudev_service import hub as hub_api
from gpudev_service.api.logs import JsonFormatter
from gpudev_service.disks import claims
from gpudev_service.disks import names as disk_names
from gpudev_service.disks.base import DiskError
from gpudev_service.hub import HubRefused
from gpudev_service.pages import rendering
from gpudev_service.pages.addresses import Addresses
from gpudev_service.pages.base import local
from gpudev_spawner import names as server_names
from gpudev_spawner import progress

NOW = datetime(2026, 5, 12, 16, 30, tzinfo=UTC)
#: What shells, terminals, browsers, addresses, `ssh` and databases read something into.
PIECES = (
    "$(touch HIT)", "`touch HIT`", ";touch HIT;", "|touch HIT", "&&touch HIT", "\ntouch HIT\n",
    "'", '"', "\\", "$", "!", "#", "~", "*", "?", "{a,b}", "%n", "%u", "%h", "%%", "%", "%2e",
    "-oProxyCommand=touch HIT", "--", "-", "@", ":", "=", "+", " ", "\t", "\r", "\0", "\x1b[2J",
    "..", ".", "/", "../", "//evil.example", "\\evil.example", "javascript:HIT()", "\u2028",
    "<script>HIT()</script>", "<img src=x onerror=HIT()>", '" onmouseover="HIT()', "</title>",
    "{{7*7}}", "{%", "&lt;", "&#x3c;", "]]>", "<!--", "\u202e", "\u200b", "\ufeff", "é", "e\u0301",
    "\uff0f", "\ud800", "\U0001f600", "2020-05-14T16:40Z", "token 0123456789abcdef", "' OR 1=1--",
    "gpudev-", "alice", "alice-prod", "prod", "a", "b", "A", "1", "%2d", "%21", "user", "admin",
)  # fmt: skip
#: Few characters, so that names come near each other.
CLOSE = "ab-!%12."
#: What a shell reads something into, told a second time; `*` and `?` no pattern can exclude.
SHELL = frozenset("!\"#$%&'()+,/:;<=>@[\\]^`{|}~ \t")
_PLAIN_ID = re.compile(r"[A-Za-z0-9%!._~-]+")
_ADDRESSES = Addresses("/services/gpudev/", "/hub/")
_SNIPPET = "<p title=\"{{ name }}\" data-x='{{ name }}'>{{ name }}</p>{{ told(name, now) }}"


def names(seed: int, count: int) -> Iterator[str]:
    """`count` names; the same for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        if number % 3 == 0:
            yield "".join(rng.choices(CLOSE, k=rng.randint(1, 6)))
        elif number % 50 == 1:
            yield rng.choice(PIECES) * rng.randint(50, 400)
        else:
            yield "".join(rng.choices(PIECES, k=rng.randint(1, 4)))


@dataclass
class Tags(html.parser.HTMLParser):
    """The elements of a piece of markup, with the attributes that each has."""

    found: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


#: What is asked about each name.
ASPECTS = ("ids", "addresses", "places", "commands", "markup", "lines")


class Names:
    """Looks at one name after the other."""

    def __init__(self, folder: Path = Path("/data/disks")) -> None:
        self._folder = folder
        # One `Host` line stands for all reservations.
        setup = ssh.Setup(folder / "config.json", "https://hub.example.org", "jovyan")
        [line] = [x for x in ssh.block(setup).splitlines() if x.startswith("Host ")]
        self._patterns = shlex.split(line)[1:]
        self._snippet = rendering._ENVIRONMENT.from_string(_SNIPPET)
        self._made: dict[str, set[int]] = {}
        self._of: dict[str, set[int]] = {}
        self._logs = JsonFormatter()
        self.asked = 0

    def look(self, name: str, other: str, aspects: Iterable[str] = ASPECTS) -> list[str]:
        """What is wrong with what is made of the name, and of it and another one."""
        self.asked += 1
        looks: dict[str, Callable[[str, str], Iterator[str]]] = {
            "ids": self._ids,
            "addresses": self._addresses,
            "places": self._places,
            "commands": self._commands,
            "markup": self._markup,
            "lines": self._lines,
        }
        return [said for aspect in aspects for said in looks[aspect](name, other)]

    def collisions(self) -> list[str]:
        """Kinds of ids of which two different names have the same."""
        return [
            f"{kind}: {len(self._of[kind])} names have {len(made)} ids"
            for kind, made in self._made.items()
            if len(made) != len(self._of[kind])
        ]

    def merge(self, others: Names) -> None:
        """Takes in what another one has seen."""
        self.asked += others.asked
        for mine, theirs in ((self._of, others._of), (self._made, others._made)):
            for kind, seen in theirs.items():
                mine.setdefault(kind, set()).update(seen)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in {"_snippet", "_logs"}}

    def _note(self, kind: str, of: Sequence[str], made: str) -> None:
        # In short: a million names and ids are too much to keep.
        self._of.setdefault(kind, set()).add(_short(*of))
        self._made.setdefault(kind, set()).add(_short(made))

    def _ids(self, name: str, other: str) -> Iterator[str]:
        if _encodes(name + other):
            for server in ("", other):
                made = server_names.client_id(name, server)
                self._note("client id", (name, server), made)
                if not _PLAIN_ID.fullmatch(made):
                    yield f"the client id of {name!r} is no name of a cookie: {made!r}"
            self._note("mark of a session", (name,), daemon.mark(name))
        for make in (kubernetes.service_name, lambda key: kubernetes.worker_name(key, 1)):
            try:
                made = make(name)
            except ValueError:
                continue
            if not limits.is_reservation_id(name):
                yield f"{name!r} became an object's name: {made}"

    def _addresses(self, name: str, other: str) -> Iterator[str]:
        try:
            path = hub_api._path(name, other)
        except HubRefused:
            path = ""
        parts = path.split("/")
        if path and (len(parts) != (4 if other else 3) or {".", "..", ""} & set(parts)):
            yield f"{name!r} and {other!r} lead elsewhere at the Hub: {path}"
        if path:
            self._note("address at the Hub", (name, other), path)
        try:
            segment = _flow.segment(name, "disk")
        except errors.RefusalError:
            segment = "x"
        if "/" in segment or segment in {"", ".", ".."}:
            yield f"{name!r} is more than a segment of the client's address: {segment}"
        if _encodes(name):
            page = _ADDRESSES.page("disks", name, user=other if _encodes(other) else None)
            if re.search(r"[^\x21-\x7e]|[<>\"'\\]", page) or "//" in page:
                yield f"{name!r} is not quoted in the address {page!r}"
        target = local(name)
        if not target.startswith("/") or target[1:2] in {"/", "\\"}:
            yield f"{name!r} leads to another site: {target!r}"

    def _places(self, name: str, _other: str) -> Iterator[str]:
        try:
            place = self._folder / disk_names.checked_id(name)
        except DiskError:
            pass
        else:
            if os.path.normpath(place) != str(place) or place.parent != self._folder:
                yield f"{name!r} leads to the directory {place}"
        try:
            steps = disk_names.parts(name)
        except DiskError:
            steps = []
        if any("/" in step or step in {"", ".", ".."} for step in steps):
            yield f"{name!r} leads out of a disk: {steps}"
        try:
            claim = claims.claim_name(name, 1)
        except DiskError:
            return
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", claim) or len(claim) > 63:
            yield f"{name!r} became a volume's name: {claim}"

    def _commands(self, name: str, _other: str) -> Iterator[str]:
        try:
            host: str | None = name if hosts.reservation_of(name) else None
        except Problem:
            host = None
        if host is not None and not re.fullmatch(r"gpudev-[a-z0-9]{4,16}", host):
            yield f"{name!r} is a host"
        # By the pattern alone: this `ssh` refuses some of them by itself, older ones do not.
        if SHELL & set(name) and _fits(f"gpudev-{name}", self._patterns):
            yield f"gpudev-{name!r} would reach the shell of a ProxyCommand"
        if re.fullmatch(limits.LOGIN_NAME, name) and not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            yield f"{name!r} is an account"
        folder = Path("/home") / name.replace("/", "_").replace("\0", "_")
        setup = ssh.Setup(folder / "config.json", "https://hub.example.org", None)
        said = shlex.split(setup.proxy_command("gpudev-abcd", None).replace("%%", "%"))
        if str(setup.file) not in said or said[-1] != "gpudev-abcd":
            yield f"the folder {str(folder)!r} falls apart in a ProxyCommand: {said}"
        if shlex.split(remote.quoted_command(["ls", name])) != ["ls", name]:
            yield f"{name!r} falls apart in a command over there"
        [word] = shlex.split(remote._quoted(name)) or [""]
        if word.startswith("-") or not word:
            yield f"{name!r} is an option over there"

    def _markup(self, name: str, _other: str) -> Iterator[str]:
        for made, own in (
            (self._snippet.render(name=name, now=NOW), [("p", ("title", "data-x"))]),
            (progress._said(5, name)["html_message"], []),
            (str(progress.told_html(name, NOW)), []),
        ):
            tags = Tags()
            tags.feed(made)
            tags.close()
            more = [tag for tag in tags.found if tag not in own and tag[0] != "time"]
            if more:
                yield f"{name!r} is markup: {more}"

    def _lines(self, name: str, _other: str) -> Iterator[str]:
        record = logging.makeLogRecord({"msg": name, "fields": {"caller": name[:100]}})
        line = self._logs.format(record)
        if "\n" in line or not line.isascii() or json.loads(line)["caller"] != name[:100]:
            yield f"{name!r} is more than a line of the log"
        if len(line) > 8_000:
            yield f"{name[:20]!r}... makes a line of {len(line)} bytes"
        if not show.clean(name).isprintable():
            yield f"{name!r} steers a terminal"
        try:
            asked = ReservationRequest(gpu_type="t4", hours=1, name=name)
        except ValidationError:
            asked = None
        shown = asked.name if asked is not None and asked.name else ""
        if not shown.isprintable() or len(shown) > limits.NAME_MAX:
            yield f"{name!r} is shown to others"
        try:
            disk = DiskRequest(name=name).name
        except ValidationError:
            return
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", disk):
            yield f"{name!r} is a disk"


def _fits(host: str, patterns: Sequence[str]) -> bool:
    """Whether a `Host` line with these patterns holds for a host, as `ssh_config` says."""
    found = False
    for pattern in patterns:
        refuses, plain = pattern.startswith("!"), pattern.removeprefix("!")
        regular = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in plain)
        if re.fullmatch(regular, host, re.DOTALL):
            if refuses:
                return False
            found = True
    return found


def _short(*texts: str) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\xff")
    return int.from_bytes(digest.digest(), "big")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sample(seed: int, count: int, hit: str) -> list[str]:
    """Some names for real programs; `HIT` in them is what would show that one had its way."""
    return [name.replace("HIT", hit)[:200] for name in names(seed, count) if _encodes(name)]


def page_of(given: Iterable[str], *, plain: bool = False) -> str:
    """A page that shows names in all the ways in which ours do; `plain` without any escaping."""
    if plain:
        return "<!DOCTYPE html>" + "".join(given)
    snippet = rendering._ENVIRONMENT.from_string(_SNIPPET)
    parts = []
    for name in given:
        address = _ADDRESSES.page("disks", name)
        parts += [
            snippet.render(name=name, now=NOW),
            f'<a href="{address}">x</a>',
            progress._said(5, name)["html_message"],
            str(progress.told_html(name, NOW)),
        ]
    return "<!DOCTYPE html>" + "".join(parts)
