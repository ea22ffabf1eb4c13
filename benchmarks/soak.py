"""Ten times normal load for hours, and what it leaves behind: R9's soak.

Normal is one person, who in each minute logs in by SSH once, stays for that minute with an echo of
1 KB a second, and opens one page of JupyterLab: its event stream, and the lease. Here are ten, in a
real Hub, proxy, service, Jupyter server with the panel's extension, and sshd. Every third `ssh` is
killed, every second page goes without a word. Beside that lease each of them asks, in each minute,
for a reservation that is longer than what is free, listens to the service's own event stream
meanwhile, and cancels it when the minute is over; every second of these streams goes without a
word, too.

What counts is memory that stays. Node lets its heap fill before it collects, and malloc keeps what
was freed: the size that the system sees rises for hours, and says nothing of a leak. So at `LOOKS`
moments all four are made to collect and to give back what malloc keeps, and what they hold after it
must not grow: of the proxy its heap and its buffers, since its pages come and go by more than is
sought here; of the others their whole size. The size that the system sees is shown beside it.

What is left is counted from the full load on, and with the proxy's pools of connections emptied
(benchmarks/pools.py).
"""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import math
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks import pools, soak_look, soak_tasks
from benchmarks.soak_counts import Counts, Samples, course, drift, extremes, more
from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.e2e.people import Person
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub
from tests.ssh.laptop import Laptop

TIMES = 10
#: Seconds between two of one person, and that each of them stays.
MINUTE = 60.0
PIECE = 1024
#: Seconds between two looks at the memory, and those in which all that was left has to go.
SAMPLE, SETTLES = 5.0, 120.0
#: How often it is looked at what is there before the load.
CALM = 10
#: Requests at once, more than the load has.
POOL = 4 * TIMES
#: How often it is looked at what is held.
LOOKS = 16
#: The part of the time that does not count: caches fill, code is compiled.
WARM = 0.25
MEGABYTE = 1024 * 1024
#: The task of a connection that somebody has to the Hub.
_ANSWERS = "HTTP1ServerConnection._server_request_loop"
#: Whole days of a lease: it does not end meanwhile.
_SERVICE = """
c.GpuDev.policy = {{"default": {{"max_hours": 24}}}}
c.GpuDev.times = {{"warnings": []}}
"""
_HUB = """
c.Spawner.environment["JUPYTERHUB_SINGLEUSER_APP"] = "jupyter_server.serverapp.ServerApp"
c.Spawner.environment["JUPYTER_CONFIG_PATH"] = {!r}
"""
#: All GPUs of the type that others ask for: who asks for one of them waits.
_TAKEN = {"gpu_type": "t4-small", "hours": 24}


@dataclass
class Found:
    """What a soak has found.

    Attributes:
        drift: per part, how much of what it holds was added in an hour, at the rate of the time
            that counts, as a share of its size.
        seen: per part, how much its size as the system sees it grew in an hour.
        held: per part, what it held in MB in each eighth of the time.
        course: per part, its size in MB in each eighth of the time.
        left: what is there that was not there before the load, by part and kind.
        dropped: what was said by each `ssh` that ended although nobody ended it.
    """

    seconds: float
    logins: int = 0
    killed: int = 0
    pages: int = 0
    reservations: int = 0
    echoed: float = 0.0
    drift: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    held: dict[str, list[float]] = field(default_factory=dict)
    course: dict[str, list[float]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


class Place:
    """A Hub on which one person has a lease that can be used by SSH."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gpudev-soak-")
        folder = Path(self._folder.name)
        config = folder / "jupyter" / "jupyter_server_config.d"
        config.mkdir(parents=True)
        extensions = {"ServerApp": {"jpserver_extensions": {soak_look.__name__: True}}}
        (config / "soak.json").write_text(json.dumps(extensions))
        self._proxy_look = folder / "proxy"
        require = Path(__file__).with_name("soak_look.cjs")
        self.hub = RunningHub(
            service_config=_SERVICE.format() + soak_tasks.FOR_SERVICE.format(str(folder)),
            hub_config=f"{_HUB.format(str(config.parent))}\n{soak_tasks.FOR_HUB.format(str(folder))}",
            proxy_environment={
                "NODE_OPTIONS": f'--require "{require}"',
                "SOAK_LOOK": str(self._proxy_look),
            },
        )

    def __enter__(self) -> Self:
        try:
            self.hub.start()
            self.ada = Person(self.hub, "ada")
            home = Path(self._folder.name) / "laptop"
            self.laptop = Laptop(home, self.hub.service, self.ada.token, "gpudev-none")
            keys = {"keys": [self.laptop.public_key]}
            self.ada.call("PUT", "/users/ada/ssh-keys", keys).raise_for_status()
            self.lease = self._lease()
            self.laptop.host = f"gpudev-{self.lease.id}"
            self.server = psutil.Process(self.look()["pid"])
            taken = self.ada.reserve(**_TAKEN)
            self.ada.until_state(taken.id, State.ACTIVE)
            self.people = [Person(self.hub, f"waiting-{number}") for number in range(TIMES)]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.hub.remove()
        self._folder.cleanup()

    def _lease(self) -> Reservation:
        asked = self.ada.reserve(gpu_type="t4", hours=12)
        return self.ada.until_state(asked.id, State.ACTIVE)

    @property
    def base(self) -> str:
        return f"{self.hub.url}/user/ada/{self.lease.server_name}"

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"token {self.ada.token}"}

    def look(self) -> Any:
        address = f"{self.base}/{soak_look.PATH}"
        return httpx.get(address, headers=self.header, timeout=60, trust_env=False).json()

    def parts(self) -> Iterator[tuple[str, psutil.Process]]:
        for part in ("hub", "proxy", "service"):
            yield part, self.hub.process(part)
        yield "server", self.server

    def memory(self) -> dict[str, float]:
        return {part: process.memory_info().rss / MEGABYTE for part, process in self.parts()}

    def threads(self) -> dict[str, int]:
        return {part: process.num_threads() for part, process in self.parts()}

    def held(self) -> dict[str, float]:
        """What each part holds, in MB, after it has given back what it can be made to."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(self._proxy_look))
            proxy = json.loads(sock.makefile().read())
        server = self.look()["held"]
        for part in ("hub", "service"):
            self.tasks(part)
        return {**self.memory(), "proxy": proxy / MEGABYTE, "server": server / MEGABYTE}

    def tasks(self, part: str) -> dict[str, int]:
        """Those of Hub or service, after it has collected, and `soak_tasks.POOLED`."""
        return soak_tasks.count(Path(self._folder.name), self.hub.process(part).pid)

    def empty_pools(self) -> None:
        """Has the proxy give up the connections that it keeps."""
        addresses = {"hub": f"{self.hub.url}/hub/api/", "service": f"{self.hub.service}/api/v1/me"}
        for part, process in self.parts():
            if part != "proxy":
                pools.empty(addresses.get(part, f"{self.base}/api/status"), process, POOL)

    def counts(self) -> Counts:
        found: Counts = {}
        for part, process in self.parts():
            sockets = len(process.net_connections(kind="all"))
            found[part] = {
                "files": process.num_fds() - sockets,
                "sockets": sockets,
                "children": len(process.children()),
            }
        tasks = {part: self.tasks(part) for part in ("hub", "service")}
        # A pool is no leak: what the service's keeps is left out at both of its ends.
        pooled = tasks["service"].pop(soak_tasks.POOLED)
        tasks["hub"].pop(soak_tasks.POOLED)
        tasks["hub"][_ANSWERS] = tasks["hub"].get(_ANSWERS, 0) - pooled
        for part in ("hub", "service"):
            found[part]["sockets"] -= pooled
        tasks["server"] = self.look()["tasks"]
        for part, named in tasks.items():
            found[part] |= {f"task {name}": n for name, n in named.items()}
        return found


class _Session:
    """One `ssh` with a program that sends back what it gets."""

    def __init__(self, laptop: Laptop, ends: float) -> None:
        self.ends, self.sent, self.got = ends, 0, 0
        self._began = time.monotonic()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        self.process = subprocess.Popen(
            laptop.command("-v", laptop.host, "cat"), env=laptop.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._back = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._back, False)

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def echo(self) -> None:
        """A second's bytes; whoever did not give back what came before gets no more."""
        if self.sent - self.got <= PIECE:
            with contextlib.suppress(BrokenPipeError):  # it is dropped, which is seen next
                self.sent += os.write(self._to, bytes(PIECE))
        self._read()

    def end(self) -> str:
        """As a person does, who waits for the last of it; what is wrong with it, if anything is."""
        os.set_blocking(self._back, True)
        self.got += len(self.process.communicate(timeout=60)[0])
        found = self._account() if self.process.returncode or self.got != self.sent else ""
        self._said.close()
        return found

    def kill(self) -> None:
        self._read()
        self.process.kill()
        self.process.communicate()
        self._said.close()

    def _account(self) -> str:
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        return (
            f"after {time.monotonic() - self._began:.1f} s with {self.process.returncode},"
            f" {self.got} of {self.sent} bytes back:\n{said[-6000:]}"
        )

    def _read(self) -> None:
        try:
            self.got += len(os.read(self._back, 65536))
        except BlockingIOError:
            return


class _Page:
    """What a page of JupyterLab holds of this: the event stream, after a look at the lease."""

    def __init__(self, place: Place, ends: float) -> None:
        self.ends = ends
        lease = f"{place.base}/gpudev/lease"
        httpx.get(lease, headers=place.header, timeout=60, trust_env=False).raise_for_status()
        address = urlsplit(f"{place.base}/api/events/subscribe")
        self._sock = socket.create_connection((address.hostname, address.port), 60)
        lines = [
            f"GET {address.path} HTTP/1.1", f"Host: {address.netloc}", "Connection: Upgrade",
            "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *(f"{name}: {value}" for name, value in place.header.items()), "", "",
        ]  # fmt: skip
        self._sock.sendall("\r\n".join(lines).encode())
        assert self._sock.recv(4096).startswith(b"HTTP/1.1 101")

    def end(self) -> None:
        """Says that it goes, and waits for the answer."""
        self._sock.sendall(b"\x88\x80" + os.urandom(4))
        while self._sock.recv(65536):
            pass
        self._sock.close()

    def kill(self) -> None:
        """Goes as a laptop does that loses its network and comes back with another address."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


class _Wait:
    """Somebody's reservation that waits, and the service's event stream that they look at."""

    def __init__(self, place: Place, person: Person, ends: float) -> None:
        self.ends, self._person = ends, person
        self._key = person.reserve(gpu_type=_TAKEN["gpu_type"], hours=1).id
        address = urlsplit(place.hub.service)
        self._sock = socket.create_connection((address.hostname, address.port), 60)
        head = (
            f"GET {address.path}/api/v1/events HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: token {person.token}\r\n\r\n"
        )
        self._sock.sendall(head.encode())
        assert self._sock.recv(4096).startswith(b"HTTP/1.1 200")

    def end(self) -> None:
        self._person.cancel(self._key)
        self._sock.close()

    def kill(self) -> None:
        """The stream goes first, as with a laptop that loses its network."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        self._person.cancel(self._key)


class Load:
    """The sessions, pages and reservations of `TIMES` people."""

    def __init__(self, place: Place, found: Found, *, minute: float = MINUTE) -> None:
        self._place, self._found, self._minute = place, found, minute
        self._sessions: collections.deque[_Session] = collections.deque()
        self._pages: collections.deque[_Page] = collections.deque()
        self._waits: collections.deque[_Wait] = collections.deque()
        self._ended = collections.Counter[str]()
        self._next = time.monotonic()

    def second(self) -> None:
        """What is to be done now, called about once in a second."""
        now = time.monotonic()
        while self._next <= now:
            self._next += self._minute / TIMES
            self._found.logins += 1
            self._found.pages += 1
            self._sessions.append(_Session(self._place.laptop, now + self._minute))
            self._pages.append(_Page(self._place, now + self._minute))
            person = self._place.people[self._found.reservations % TIMES]
            self._found.reservations += 1
            self._waits.append(_Wait(self._place, person, now + self._minute))
        for one in [one for one in self._sessions if not one.lives]:
            self._sessions.remove(one)
            self._dropped(one)
        while self._sessions and self._sessions[0].ends <= now:
            self._end_session()
        while self._pages and self._pages[0].ends <= now:
            self._end_page()
        while self._waits and self._waits[0].ends <= now:
            self._end_wait()
        for one in self._sessions:
            one.echo()

    def end(self) -> None:
        while self._sessions:
            self._end_session()
        while self._pages:
            self._end_page()
        while self._waits:
            self._end_wait()

    def _end_wait(self) -> None:
        one = self._waits.popleft()
        self._ended["wait"] += 1
        if self._ended["wait"] % 2 == 0:
            one.kill()
        else:
            one.end()

    def _end_session(self) -> None:
        one = self._sessions.popleft()
        self._ended["session"] += 1
        if self._ended["session"] % 3 == 0:
            self._found.killed += 1
            one.kill()
        else:
            self._dropped(one)
        self._found.echoed += one.got / MEGABYTE

    def _dropped(self, one: _Session) -> None:
        """Ends it; says so at once if it had ended before, or not with all of its bytes."""
        if account := one.end():
            print(f"{datetime.now(UTC):%H:%M:%S} dropped {account}", flush=True)
            self._found.dropped.append(account)

    def _end_page(self) -> None:
        one = self._pages.popleft()
        self._ended["page"] += 1
        if self._ended["page"] % 2 == 0:
            one.kill()
        else:
            one.end()


class Watch:
    """What is seen of a place's memory while it is loaded, by the seconds since it began."""

    def __init__(self, place: Place, seconds: float) -> None:
        self.sizes: Samples = {}
        self.held: Samples = {}
        self._place, self._pause = place, seconds / LOOKS
        self._sized = self._looked = -math.inf

    def at(self, now: float) -> None:
        if now >= self._sized + SAMPLE:
            self.sizes[now], self._sized = self._place.memory(), now
        if now >= self._looked + self._pause:
            self.held[now], self._looked = self._place.held(), now


def soak(place: Place, seconds: float, *, minute: float = MINUTE) -> Found:
    """Loads a place for that long, after the whole load was there once."""
    first = Load(place, Found(0.0), minute=minute)
    _drive(first, minute + 2 * minute / TIMES)
    first.end()
    until(lambda: not place.server.children(), "the first sessions are gone")
    place.empty_pools()
    before: Counts = {}
    for _ in range(CALM):
        before = extremes(max, before, place.counts())
        time.sleep(1)
    found = Found(seconds)
    load, watch = Load(place, found, minute=minute), Watch(place, seconds)
    _drive(load, seconds, watch)
    load.end()
    place.empty_pools()
    warm = WARM * seconds
    found.drift = drift(watch.held, warm=warm, sizes=watch.sizes)
    found.seen = drift(watch.sizes, warm=warm, sizes=watch.sizes)
    found.held, found.course = course(watch.held, seconds), course(watch.sizes, seconds)
    deadline = time.monotonic() + SETTLES
    after = place.counts()
    while (left := more(before, after)) and time.monotonic() < deadline:
        time.sleep(1)
        after = extremes(min, after, place.counts())
    found.left = left
    return found


def _drive(load: Load, seconds: float, watch: Watch | None = None) -> None:
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        load.second()
        if watch is not None:
            watch.at(now)
        time.sleep(max(0.0, 1 - (time.monotonic() - began - now)))
