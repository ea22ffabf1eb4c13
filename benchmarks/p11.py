"""Many SSH sessions over many servers through one proxy: 4 KB ten times a second each way.

One process drives all sessions; a third of the clients is abandoned (killed) on the way and must
leave nothing. `SIZE=small` takes fewer for a shorter time.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time

import httpx
import psutil

from benchmarks.campaign import percentile
from benchmarks.ssh_peers import here
from tests.ssh.site import HOST, Person, Site

SMALL = os.environ.get("SIZE") == "small"
SERVERS, EACH, SECONDS = (3, 10, 20.0) if SMALL else (25, 10, 900.0)
SERVERS = int(os.environ.get("P11_SERVERS", SERVERS))
SECONDS = float(os.environ.get("P11_SECONDS", SECONDS))
PIECE, EVERY = 4096, 0.1
GOAL = "99%,0"


class Session:
    """One `ssh` whose server sends back what it gets."""

    def __init__(self, person: Person) -> None:
        self.process = subprocess.Popen(
            person.command(HOST, "echo begun; exec cat"),
            env=person.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"begun\n"
        self.to, self.back = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.to, False)
        os.set_blocking(self.back, False)
        self.sent = self.got = 0
        self.at: list[float] = []
        self.dropped = False

    def send(self, now: float) -> None:
        try:
            self.sent += os.write(self.to, bytes(PIECE))
            self.at.append(now)
        except BlockingIOError:
            return  # it counts as not delivered
        except BrokenPipeError:
            self.dropped = True

    def receive(self, now: float, waits: list[float]) -> None:
        try:
            data = os.read(self.back, 65536)
        except BlockingIOError:
            return
        if not data:
            self.dropped = True
        before, self.got = self.got // PIECE, self.got + len(data)
        waits += [now - moment for moment in self.at[before : self.got // PIECE]]


class Behind(Site):
    """A server behind another site's proxy; its stand-in for the service is asked directly."""

    def __init__(self, first: Site, number: int) -> None:
        super().__init__()
        self.first = first
        self.base = f"/user/ada{number}/{self.base.rpartition('/')[2]}"
        self.url = first.url
        self.service = f"http://127.0.0.1:{self.port}/services/gpudev"

    def start(self) -> None:
        route = f"http://127.0.0.1:{self.first.api}/api/routes{self.base}"
        target = {"target": f"http://127.0.0.1:{self.port}"}
        headers = {"Authorization": "token unused"}
        self.http.post(route, json=target, headers=headers).raise_for_status()
        self.start_server()

    def _answers(self) -> bool:
        try:
            return self.http.get(f"http://127.0.0.1:{self.port}/control").is_success
        except httpx.TransportError:
            return False


def drive(sessions: list[Session], seconds: float) -> list[float]:
    """Sends at its times, reads whatever is there; the seconds that pieces were on their way."""
    waits: list[float] = []
    with selectors.DefaultSelector() as selector:
        for one in sessions:
            selector.register(one.back, selectors.EVENT_READ, one)
        began = time.monotonic()
        due = {one: began + EVERY * n / len(sessions) for n, one in enumerate(sessions)}
        while (now := time.monotonic()) < began + seconds:
            for one in sessions:
                if now >= due[one]:
                    one.send(now)
                    due[one] += EVERY
            wait = max(0.0, min(due.values()) - time.monotonic())
            for key, _ in selector.select(min(wait, 0.05)):
                key.data.receive(time.monotonic(), waits)
                if key.data.dropped:
                    selector.unregister(key.fileobj)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for key, _ in selector.select(0.1):
                key.data.receive(time.monotonic(), waits)
                if key.data.dropped:
                    selector.unregister(key.fileobj)
    return waits


def main() -> int:
    here()
    sites: list[Site] = [Site()]
    sessions: list[Session] = []
    try:
        sites[0].start()
        for number in range(1, SERVERS):
            sites.append(Behind(sites[0], number))
            sites[-1].start()
        for site in sites:
            ada = site.person("ada")
            site.admit(ada)
            sessions += [Session(ada) for _ in range(EACH)]
        abandoned = sessions[::3]
        print(f"{len(sessions)} sessions over {len(sites)} servers, {SECONDS:.0f} s")
        busy = _cpu(sites)
        waits = drive(sessions, SECONDS)
        share = {part: (now - busy[part]) / SECONDS for part, now in _cpu(sites).items()}
        wanted = len(sessions) * PIECE * round(SECONDS / EVERY)
        reached = sum(one.got for one in sessions) / wanted
        drops = sum(one.dropped for one in sessions)
        for one in abandoned:
            one.process.kill()
        kept = [one for one in sessions if one not in abandoned]
        late = drive(kept, min(SECONDS, 10.0))
        sites[0].until(lambda: _open(sites) == len(kept), "those who were killed are gone")
        drops += sum(one.dropped for one in kept)
        print(
            f"proxy {share['proxy']:.0%} of a core, servers {share['server']:.0%} together; "
            f"a piece there and back p50 {percentile(waits, 0.5) * 1000:.1f} ms, "
            f"p99 {percentile(waits, 0.99) * 1000:.1f} ms, after a third was abandoned "
            f"{percentile(late, 0.99) * 1000:.1f} ms"
        )
        met = reached >= 0.99 and drops == 0 and len(sessions) >= 250 and SECONDS >= 900
        word = (
            "met" if met else "smaller-than-the-goal" if reached >= 0.99 and not drops else "missed"
        )
        print(
            f"P11 sessions={len(sessions)} servers={len(sites)} seconds={SECONDS:.0f} "
            f"throughput={reached:.1%} drops={drops} goal {GOAL} {word}"
        )
    finally:
        for one in sessions:
            one.process.kill()
            one.process.communicate()
        for site in reversed(sites):
            site.remove()
    return 0


def _cpu(sites: list[Site]) -> dict[str, float]:
    found = {"proxy": 0.0, "server": 0.0}
    for site in sites:
        for part, process in site.processes.items():
            times = psutil.Process(process.pid).cpu_times()
            found[part] += times.user + times.system
    return found


def _open(sites: list[Site]) -> int:
    return sum(len(site.state()["sessions"]) for site in sites)


if __name__ == "__main__":
    sys.exit(main())
