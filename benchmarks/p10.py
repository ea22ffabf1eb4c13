"""One SSH session through the web: login, echo and bulk against direct SSH and websocat.

A-B-A-B, medians; `SIZE=small` moves less. Once more over a link with a rate and a delay, which both
ways have in between (benchmarks/link.py). The service is a stand-in in the Jupyter server's own
process, so that a login has the same two requests as in use, without the real one's database. Ours
comes with the cipher that our SSH configuration names; "same" is direct SSH with it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pty
import select
import shlex
import subprocess
import sys
import time
import tty

from benchmarks.campaign import percentile, verdict
from benchmarks.link import carried, link
from benchmarks.ssh_peers import (
    Way,
    direct,
    here,
    in_turn,
    medians,
    ours,
    seconds,
    websocat,
    with_our_ciphers,
)
from tests.ssh.site import Site, TlsSite

SMALL = os.environ.get("SIZE") == "small"
LOGINS, ECHOES, ROUNDS = (5, 200, 3) if SMALL else (15, 1000, 5)
PARTS = 4
MEGABYTES = 64 if SMALL else 400
CHECKED = 64 if SMALL else 1024
CHUNK = 1024 * 1024
#: Links in Mbit/s, and their milliseconds each way. OpenSSH's window of 2 MiB does not fill the
#: first in 20 ms, whoever carries it; it does the second. Plain TCP must get this share of it.
LINKS, ONE_WAY, CARRIES = (1000, 500), 10.0, 0.9
GOALS = "login<=1.0x echo<=+0.25ms,p99<=2ms bulk>=0.75x,1.3x tls>=0.6x,1.2x link>=0.97x"


def login(way: Way) -> float:
    return seconds(way, "true", stdin=subprocess.DEVNULL)


def down(way: Way) -> float:
    """MB/s from the server."""
    took = seconds(way, f"head -c {MEGABYTES * CHUNK} /dev/zero", stdout=subprocess.DEVNULL)
    return MEGABYTES / took


def up(way: Way) -> float:
    """MB/s to the server."""
    words, environment = way
    began = time.perf_counter()
    with subprocess.Popen(
        [*words, "cat > /dev/null"], env=environment, stdin=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        for _ in range(MEGABYTES):
            process.stdin.write(bytes(CHUNK))
        process.stdin.close()
        assert process.wait() == 0
    return MEGABYTES / (time.perf_counter() - began)


def echo(way: Way) -> list[float]:
    """Milliseconds from a key to its echo on a terminal over there."""
    words, environment = way
    master, slave = pty.openpty()
    tty.setraw(slave)
    command = [words[0], "-tt", *words[1:], "stty raw -echo; echo ready; exec cat"]
    process = subprocess.Popen(
        command, env=environment, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL
    )
    try:
        said = b""
        while b"ready" not in said:
            said += os.read(master, 4096)
        select.select([master], [], [], 0.3)
        while select.select([master], [], [], 0)[0]:
            os.read(master, 4096)
        taken = []
        for _ in range(ECHOES // PARTS):
            began = time.perf_counter()
            os.write(master, b"x")
            os.read(master, 1)
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(0.005)
        return taken
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def checked(way: Way) -> bool:
    """A lot each way arrives as it was sent."""
    words, environment = way
    size = CHECKED * CHUNK
    script = f"head -c {size} /dev/urandom > big; sha256sum < big >&2; cat big"
    hashed = subprocess.run(  # noqa: S602 - our own words, quoted
        f"{shlex.join([*words, script])} 2> sums | tee copy | sha256sum >> sums; "
        f"{shlex.join([*words, 'sha256sum; rm big'])} < copy >> sums; rm copy",
        shell=True, cwd=environment["HOME"], env=environment, check=True,
    )  # fmt: skip
    with open(f"{environment['HOME']}/sums", encoding="ascii") as sums:  # noqa: PTH123
        lines = [line.split()[0] for line in sums if " " in line]
    return hashed.returncode == 0 and len(lines) == 3 and len(set(lines)) == 1


def measure(site: Site, *, tls: bool) -> dict[str, dict[str, float]]:
    """All figures at one site, printed as they come."""
    site.start()
    ada = site.person("ada")
    site.admit(ada)
    with direct(ada) as plain:
        ways = {
            "direct": plain,
            "same": with_our_ciphers(plain),
            "ours": ours(ada),
            "framed": ours(ada, framed=True),
            "websocat": websocat(ada, site),
        }
        found = {"login": medians(in_turn(ways, login, LOGINS))}
        found["down"] = medians(in_turn(ways, down, ROUNDS))
        found["up"] = medians(in_turn(ways, up, ROUNDS))
        echoes: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(PARTS):
            for name, way in ways.items():
                echoes[name] += echo(way)
        found["echo"] = {name: percentile(v, 0.5) for name, v in echoes.items()}
        found["echo99"] = {name: percentile(v, 0.99) for name, v in echoes.items()}
        if not tls:
            for name in ("ours", "framed"):
                assert checked(ways[name]), f"{name}: not what was sent"
                print(f"{CHECKED} MB each way by {name}: checksums agree")
    show("TLS" if tls else "plain", found)
    return found


def show(label: str, found: dict[str, dict[str, float]]) -> None:
    for what, values in found.items():
        shown = "  ".join(f"{name} {value:8.3f}" for name, value in values.items())
        print(f"{label:<5} {what:<7} {shown}")


@dataclasses.dataclass
class OverALink:
    """Ours over direct, each way, where both have the same link in between."""

    mbit: int
    #: What plain TCP made of the link, in Mbit/s, and direct SSH: less is not the link's doing.
    carried: float
    filled: float
    ratios: list[float]

    @property
    def real(self) -> bool:
        """Whether these cores carried what the link allows."""
        return self.carried >= CARRIES * self.mbit

    def __str__(self) -> str:
        return (
            f"{_pair(self.ratios)}@{self.mbit}Mbit(tcp {self.carried:.0f},direct {self.filled:.0f})"
        )


def over_a_link(mbit: int) -> OverALink:
    tcp = carried(mbit, ONE_WAY)
    site = Site()
    through = functools.partial(link, mbit=mbit, milliseconds=ONE_WAY)
    try:
        with through(site.public) as port:
            site.url = f"http://127.0.0.1:{port}"
            site.service = f"{site.url}/services/gpudev"
            site.start()
            ada = site.person("ada")
            site.admit(ada)
            with direct(ada, through) as plain:
                ways = {"direct": plain, "ours": ours(ada)}
                found = {"login": medians(in_turn(ways, login, ROUNDS))}
                found["down"] = medians(in_turn(ways, down, ROUNDS))
                found["up"] = medians(in_turn(ways, up, ROUNDS))
    finally:
        site.remove()
    show(f"{mbit}Mb", found)
    ratios = [found[way]["ours"] / found[way]["direct"] for way in ("down", "up")]
    filled = max(found[way]["direct"] for way in ("down", "up")) * CHUNK * 8 / 1e6
    return OverALink(mbit, tcp, filled, ratios)


def main() -> int:
    here()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; MB/s, seconds, milliseconds")
    found = {}
    for tls, kind in ((False, Site), (True, TlsSite)):
        site = kind()
        try:
            found[tls] = measure(site, tls=tls)
        finally:
            site.remove()
    plain, secure = found[False], found[True]

    def ratio(
        what: str, peer: str, who: str = "ours", where: dict[str, dict[str, float]] = plain
    ) -> float:
        return where[what][who] / where[what][peer]

    linked = [over_a_link(mbit) for mbit in LINKS]
    entered = ratio("login", "direct")
    added = plain["echo"]["ours"] - plain["echo"]["direct"]
    bulk = [ratio(w, "direct") for w in ("down", "up")]
    peer = [ratio(w, "websocat") for w in ("down", "up")]
    tls_bulk = [ratio(w, "direct", where=secure) for w in ("down", "up")]
    tls_peer = [ratio(w, "websocat", where=secure) for w in ("down", "up")]
    framed = [ratio(w, "direct", "framed") for w in ("down", "up")]
    same = [ratio(w, "same", where=found[tls]) for tls in (False, True) for w in ("down", "up")]
    good = (
        entered <= 1.0
        and added <= 0.25
        and plain["echo99"]["ours"] <= 2
        and min(bulk) >= 0.75
        and min(peer) >= 1.3
        and min(tls_bulk) >= 0.6
        and min(tls_peer) >= 1.2
        and all(one.real and min(one.ratios) >= 0.97 for one in linked)
    )
    links = ";".join(map(str, linked))
    print(
        f"P10 login={entered:.2f}x echo=+{added:.2f}ms,p99={plain['echo99']['ours']:.2f}ms "
        f"bulk={_pair(bulk)},{_pair(peer)} tls={_pair(tls_bulk)},{_pair(tls_peer)} "
        f"framed={_pair(framed)} same-cipher={_pair(same[:2])},tls={_pair(same[2:])} "
        f"link={links} goal {GOALS} {verdict(good=good, full=not SMALL)}"
    )
    return 0


def _pair(values: list[float]) -> str:
    return f"{values[0]:.2f}/{values[1]:.2f}x"


if __name__ == "__main__":
    sys.exit(main())
