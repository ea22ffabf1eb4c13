"""One SSH session through the web: login, echo and bulk against direct SSH and websocat.

A-B-A-B, medians; `SIZE=small` moves less. The service is a stand-in in the Jupyter server's own
process, so that a login has the same two requests as in use, without the real one's database.
"""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
import tty

from benchmarks.ssh_peers import (
    Way,
    direct,
    here,
    in_turn,
    medians,
    ours,
    percentile,
    seconds,
    websocat,
)
from tests.ssh.site import Site, TlsSite

SMALL = os.environ.get("SIZE") == "small"
LOGINS, ECHOES, ROUNDS = (5, 200, 3) if SMALL else (15, 1000, 5)
PARTS = 4
MEGABYTES = 64 if SMALL else 400
CHECKED = 64 if SMALL else 1024
CHUNK = 1024 * 1024
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
    label = "TLS" if tls else "plain"
    for what, values in found.items():
        shown = "  ".join(f"{name} {value:8.3f}" for name, value in values.items())
        print(f"{label:<5} {what:<7} {shown}")
    return found


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

    print("a link of 1 Gbit/s with 20 ms: not measured here, the kernel has no netem")
    entered = ratio("login", "direct")
    added = plain["echo"]["ours"] - plain["echo"]["direct"]
    bulk = [ratio(w, "direct") for w in ("down", "up")]
    peer = [ratio(w, "websocat") for w in ("down", "up")]
    tls_bulk = [ratio(w, "direct", where=secure) for w in ("down", "up")]
    tls_peer = [ratio(w, "websocat", where=secure) for w in ("down", "up")]
    framed = [ratio(w, "direct", "framed") for w in ("down", "up")]
    met = (
        entered <= 1.0
        and added <= 0.25
        and plain["echo99"]["ours"] <= 2
        and min(bulk) >= 0.75
        and min(peer) >= 1.3
        and min(tls_bulk) >= 0.6
        and min(tls_peer) >= 1.2
    )
    print(
        f"P10 login={entered:.2f}x echo=+{added:.2f}ms,p99={plain['echo99']['ours']:.2f}ms "
        f"bulk={_pair(bulk)},{_pair(peer)} tls={_pair(tls_bulk)},{_pair(tls_peer)} "
        f"framed={_pair(framed)} link=not-measured goal {GOALS} {'met' if met else 'missed'}"
    )
    return 0


def _pair(values: list[float]) -> str:
    return f"{values[0]:.2f}/{values[1]:.2f}x"


if __name__ == "__main__":
    sys.exit(main())
