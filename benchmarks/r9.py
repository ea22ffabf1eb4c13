"""What SSH leaves behind: a peer that never reads, and hours at ten times normal load (R9).

A program that floods, or never reads, stands in the place of sshd, since OpenSSH's own windows hold
back before anything else has to. After it weeks of the service alone (benchmarks/simulated_days.py)
and the soak of benchmarks/soak.py, for `SECONDS`. The drift of the days is judged as a whole, since
by the simulated hour it says nothing. `PARTS=soak`, `flood` or `days` does one of them.
"""

from __future__ import annotations

import math
import os
import socket
import stat
import sys
import time
from pathlib import Path

import psutil

from benchmarks import simulated_days, soak
from benchmarks.campaign import machine, size
from benchmarks.ssh_peers import here
from gpudev_client.ssh import frames, service
from gpudev_client.ssh.wire import Address, Connection
from tests.ssh.site import ID, Person, Site

SMALL = os.environ.get("SIZE") == "small"
#: What the flood would send, and for how long nobody reads.
SIZE, STANDS = (256 * 1024 * 1024, 5.0) if SMALL else (1024 * 1024 * 1024, 20.0)
GOAL, GOAL_DRIFT = 4.0, 0.01
FULL = 7200
SECONDS = size("SECONDS", FULL, 60)
PARTS = os.environ.get("PARTS", "flood,days,soak").split(",")
#: Connections before anything is measured: node grows its heap in the beginning, whoever reads.
WARM = 5
MEGABYTE = 1024 * 1024


def stand_in(folder: Path, name: str, line: str) -> Path:
    """A directory with a program called `sshd`, to be found first."""
    programs = folder / name
    programs.mkdir()
    program = programs / "sshd"
    program.write_text(f"#!/bin/sh\nexec {line}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return programs


def opened(ada: Person, mode: str) -> socket.socket:
    """The connection as our client makes it, without an `ssh` behind it."""
    with service.Service(service.settings(str(ada.config))) as there:
        access = there.access(ID)
        address = Address(access.url)
        connection = Connection(address)
        headers = {"Gpudev-Ticket": access.ticket}
        answer = connection.upgrade(address.path, headers, [mode])
    assert answer.status == 101
    if mode == frames.RAW:
        connection.sock.sendall(frames.CLIENT_OPENING)
    assert isinstance(connection.sock, socket.socket)
    return connection.sock


def memory(site: Site) -> dict[str, float]:
    """Megabytes of both hops, with all of their children but the stand-in."""
    return {
        part: psutil.Process(site.processes[part].pid).memory_info().rss / MEGABYTE
        for part in ("server", "proxy")
    }


def sent(sock: socket.socket, mode: str) -> float:
    """Floods until nothing more is taken for two seconds; how many MB went away."""
    piece = bytes(MEGABYTE)
    data = frames.encode(frames.BINARY, piece, b"abcd") if mode == frames.FRAMES else piece
    sock.settimeout(2)
    taken = 0
    try:
        while taken < SIZE:
            taken += sock.send(data)
    except TimeoutError:
        return taken / MEGABYTE
    return taken / MEGABYTE


def grown(site: Site, mode: str, direction: str) -> dict[str, float]:
    ada = site.person("ada")
    site.admit(ada)
    for _ in range(WARM):
        warm = opened(ada, mode)
        warm.settimeout(2)
        if direction == "down":
            read = 0
            while read < 16 * MEGABYTE:
                read += len(warm.recv(MEGABYTE))
        else:
            sent(warm, mode)
        warm.close()
    before = memory(site)
    highest = dict(before)
    sock = opened(ada, mode)
    taken = sent(sock, mode) if direction == "up" else 0.0
    end = time.monotonic() + STANDS
    while time.monotonic() < end:
        now = memory(site)
        highest = {part: max(highest[part], now[part]) for part in now}
        time.sleep(0.2)
    sock.close()
    found = {part: highest[part] - before[part] for part in before}
    shown = ", ".join(f"{part} +{value:.1f} MB" for part, value in found.items())
    held = f", {taken:.0f} MB taken before it stood still" if direction == "up" else ""
    name = "raw" if mode == frames.RAW else "frames"
    print(f"{name:<6} {direction:<4} {shown}{held}")
    return found


def flood() -> float:
    """The most that any hop grew by."""
    worst = 0.0
    for direction, line in (("down", f"head -c {SIZE} /dev/zero"), ("up", "sleep 100000")):
        site = Site()
        try:
            programs = stand_in(site.home, "stand-in", line)
            site.start_proxy()
            site.start_server(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
            for mode in (frames.RAW, frames.FRAMES):
                worst = max(worst, *grown(site, mode, direction).values())
        finally:
            site.remove()
    return worst


def soaked() -> soak.Found:
    with soak.Place() as place:
        before, threads = place.memory(), place.threads()
        found = soak.soak(place, SECONDS)
        after, more = place.memory(), place.threads()
    for part, share in found.drift.items():
        print(
            f"{part:<8} {before[part]:.1f} -> {after[part]:.1f} MB, held {share:+.2%} an hour, "
            f"as the system sees it {found.seen[part]:+.2%}, threads {threads[part]} ->"
            f" {more[part]}"
        )
        for name, course in (("held", found.held[part]), ("seen", found.course[part])):
            print(f"         {name} by eighths {' '.join(f'{size:.2f}' for size in course)}")
    print(
        f"{found.logins} logins, {found.killed} killed, {found.pages} pages, half of them without "
        f"a word, {found.reservations} reservations with an event stream,"
        f" {found.echoed:.1f} MB echoed; left: {found.left or 'nothing'};"
        f" {len(found.dropped)} dropped"
    )
    return found


def main() -> int:
    here()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    good, small, shown = True, SMALL, []
    if "flood" in PARTS:
        worst = flood()
        good = worst <= GOAL
        shown.append(f"a-peer-that-never-reads=+{worst:.1f}MB")
    if "days" in PARTS:
        days = simulated_days.measure()
        good = good and days.growth <= GOAL_DRIFT and not days.left
        small = small or simulated_days.DAYS < simulated_days.FULL
        shown.append(
            f"days={days.growth:+.2%} ({days.hourly:+.4%}/h),{sum(days.left.values())}-left in"
            f" {simulated_days.DAYS} simulated days"
        )
    else:
        shown.append("days=not-run")
    if "soak" in PARTS:
        found = soaked()
        steepest = max(found.drift.values(), default=math.nan)
        good = good and steepest <= GOAL_DRIFT and not found.left and not found.dropped
        small = small or SECONDS < FULL
        shown.append(f"soak={steepest:+.2%}/h,{sum(found.left.values())}-left in {SECONDS}s at 10x")
    else:
        shown.append("soak=not-run")
    word = "missed" if not good else "met" if len(PARTS) == 3 and not small else "within"
    print(
        f"R9 {' '.join(shown)} goal {GOAL:.0f}MB,{GOAL_DRIFT:.0%},0 in"
        f" {simulated_days.FULL} days,{GOAL_DRIFT:.0%}/h,0 in {FULL}s {word}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
