"""Sessions as people use them, and as they end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import psutil
import pytest

from tests.tiers import ROOT

from .site import HOST, Person, Site

pytestmark = [pytest.mark.ssh, pytest.mark.timeout(280)]

#: What must have ended, in seconds, when somebody is removed; the measured time is far below.
REMOVAL = 5.0
WAYS = [pytest.param(False, id="raw"), pytest.param(True, id="frames")]


def session(person: Person, command: str, *, frames: bool = False) -> subprocess.Popen[bytes]:
    """A session that goes on; it has begun when its first line is there."""
    environment = {**person.environment, **({"GPUDEV_SSH_FRAMES": "1"} if frames else {})}
    process = subprocess.Popen(
        person.command(HOST, f"echo begun; {command}"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


def close(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=30)


def sessions(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.state()["sessions"]
    return found


def none_left(site: Site) -> None:
    site.until(lambda: not sessions(site), "every session has ended", 30)


def test_a_shell_that_knows_its_window(ada: Person) -> None:
    terminal = pexpect.spawn(
        "ssh", ["-tt", *ada.options(), HOST], env=ada.environment, timeout=30, dimensions=(24, 80)
    )
    terminal.sendline("echo $((40+2)); stty size")
    terminal.expect("42\r\n")
    terminal.expect("24 80")
    terminal.setwinsize(50, 132)
    terminal.sendline("stty size")
    terminal.expect("50 132")
    terminal.sendline("echo at $PWD $TERM; exit 5")
    terminal.expect(f"at {ada.site.disk}")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 5


def test_a_login_shell_reads_the_disks_profile(ada: Person, site: Site) -> None:
    (site.disk / ".bash_profile").write_text("export FROM_PROFILE=yes\n")
    try:
        done = ada.ssh(stdin=b"echo $FROM_PROFILE\n")
        assert b"yes\n" in done.stdout
    finally:
        (site.disk / ".bash_profile").unlink()


def test_the_agent_is_forwarded_only_when_asked(ada: Person) -> None:
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(ada.folder / "agent")])
    try:
        ada.site.until((ada.folder / "agent").exists, "the agent is there")
        environment = {**ada.environment, "SSH_AUTH_SOCK": str(ada.folder / "agent")}

        def asked(*options: str) -> str:
            command = ada.command(*options, HOST, "echo agent=$SSH_AUTH_SOCK")
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            return done.stdout.decode().strip()

        assert asked() == "agent="
        assert asked("-A") != "agent="
    finally:
        agent.terminate()
        agent.wait()


def test_one_connection_for_many(ada: Person, site: Site) -> None:
    control = ada.folder / "control"
    shared = ["-o", f"ControlPath={control}", "-o", "ControlMaster=auto"]
    master = subprocess.Popen(
        ada.command(*shared, "-N", HOST), env=ada.environment, stdin=subprocess.DEVNULL
    )
    try:
        site.until(control.exists, "the master is there")
        with ThreadPoolExecutor(15) as pool:
            done = list(pool.map(lambda n: ada.ssh(f"echo {n}", options=shared).stdout, range(15)))
        assert done == [f"{n}\n".encode() for n in range(15)]
        assert len(sessions(site)) == 1
    finally:
        master.terminate()
        master.wait()
    none_left(site)


@pytest.mark.parametrize("frames", WAYS)
def test_twenty_sessions_at_once(ada: Person, site: Site, frames: bool) -> None:
    running = []
    try:
        running = [session(ada, "cat", frames=frames) for _ in range(20)]
        assert len(sessions(site)) == 20
        for number, process in enumerate(running):
            out, _ = process.communicate(f"{number}".encode(), timeout=60)
            assert out == f"{number}".encode()
    finally:
        for process in running:
            close(process)
    none_left(site)


@pytest.mark.parametrize("frames", WAYS)
def test_a_lot_each_way_with_a_checksum(ada: Person, frames: bool) -> None:
    """`python -m benchmarks.p10` does it with a gigabyte."""
    size = 64 * 1024 * 1024
    made = ada.ssh(f"head -c {size} /dev/urandom | tee big | sha256sum", frames=frames)
    wanted = made.stdout.split()[0].decode()
    down = ada.ssh("cat big", frames=frames)
    assert hashlib.sha256(down.stdout).hexdigest() == wanted
    up = ada.ssh("sha256sum; rm big", stdin=down.stdout, frames=frames)
    assert up.stdout.split()[0].decode() == wanted


@pytest.mark.parametrize("frames", WAYS)
def test_a_client_that_stands_still_costs_nothing_and_loses_nothing(
    ada: Person, site: Site, frames: bool
) -> None:
    """What it does not read waits at its source; see R9 for a peer that ignores SSH's windows."""
    server = psutil.Process(site.processes["server"].pid)
    proxy = psutil.Process(site.processes["proxy"].pid)
    size = 200 * 1024 * 1024
    running = session(ada, f"head -c {size} /dev/zero", frames=frames)
    assert running.stdout is not None
    try:
        before = server.memory_info().rss, proxy.memory_info().rss
        running.stdout.read(1024 * 1024)
        running.send_signal(signal.SIGSTOP)
        last: list[int] = []
        site.until(lambda: _quiet(site, last), "the source stands still too")
        after = server.memory_info().rss, proxy.memory_info().rss
        grown = [(b - a) / 1024 / 1024 for a, b in zip(before, after, strict=True)]
        assert max(grown) < 16, grown
        running.send_signal(signal.SIGCONT)
        rest, _ = running.communicate(timeout=120)
        assert len(rest) == size - 1024 * 1024
    finally:
        close(running)


def _quiet(site: Site, looks: list[int]) -> bool:
    """Whether the session's sshd has written the same in each of the last twenty looks."""
    [one] = sessions(site)
    tree = [psutil.Process(one["pid"]), *psutil.Process(one["pid"]).children(recursive=True)]
    looks.append(sum(process.io_counters().write_chars for process in tree))
    return len(looks) > 20 and len(set(looks[-20:])) == 1


@pytest.mark.parametrize("frames", WAYS)
def test_an_abrupt_end_leaves_nothing(ada: Person, site: Site, frames: bool) -> None:
    running = session(ada, "exec sleep 1000", frames=frames)
    [one] = sessions(site)
    running.kill()
    running.communicate(timeout=30)
    none_left(site)
    assert not psutil.pid_exists(one["pid"])


def test_a_proxy_that_restarts(fresh_site: Callable[[], Site]) -> None:
    """Open connections end with it, on both sides, and new ones come in through the next."""
    site = fresh_site()
    ada = site.person("ada")
    site.admit(ada)
    running = session(ada, "exec sleep 1000")
    site.end("proxy", signal.SIGKILL)
    assert running.wait(30) == 255
    close(running)
    none_left(site)
    site.start_proxy()
    site.until(site._answers, "the proxy answers")
    assert ada.ssh("echo again").stdout == b"again\n"


def test_a_server_that_is_killed_takes_its_sessions_along(
    fresh_site: Callable[[], Site],
) -> None:
    site = fresh_site()
    ada = site.person("ada")
    site.admit(ada)
    running = session(ada, "echo $$; exec sleep 1000")
    [one] = sessions(site)
    site.end("server", signal.SIGKILL)
    assert running.wait(30) == 255
    close(running)
    site.until(lambda: not psutil.pid_exists(one["pid"]), "sshd has ended")


# --- who is removed -----------------------------------------------------------------------------


@pytest.mark.parametrize("frames", WAYS)
def test_a_removed_collaborator_is_out_at_once(ada: Person, site: Site, frames: bool) -> None:
    bob = site.person("bob")
    site.admit(ada, bob)
    stays = session(ada, "cat")
    goes = session(bob, "setsid sleep 4242 & echo $!; exec cat", frames=frames)
    try:
        assert goes.stdout is not None
        left_behind = int(goes.stdout.readline())
        began = time.monotonic()
        site.admit(ada)
        assert goes.wait(30) == 255
        took = time.monotonic() - began
        site.until(lambda: not psutil.pid_exists(left_behind), "what they left running has ended")
        assert took < REMOVAL
        print(f"removed collaborator out after {took:.2f} s")  # noqa: T201
        out, _ = stays.communicate(b"still here", timeout=30)
        assert out == b"still here"
        assert b"no right" in bob.ssh("true").stderr or bob.ssh("true").returncode == 255
    finally:
        close(stays)
        close(goes)
    none_left(site)


def test_what_somebody_left_running_ends_with_their_access(ada: Person, site: Site) -> None:
    """Also when they are not connected at that moment."""
    bob = site.person("bob")
    site.admit(ada, bob)
    left = "setsid sleep 4243 > /dev/null 2>&1 < /dev/null & echo $!"
    running = [int(person.ssh(left).stdout) for person in (ada, bob)]
    none_left(site)
    assert all(psutil.pid_exists(pid) for pid in running)
    site.admit(ada)
    site.until(lambda: not psutil.pid_exists(running[1]), "what they left running has ended")
    assert psutil.pid_exists(running[0])
    psutil.Process(running[0]).kill()


def test_what_a_removed_key_left_running_ends(ada: Person, site: Site, tmp_path: Path) -> None:
    """Also what goes on behind a connection that is over, and nothing of another key or person."""
    bob = site.person("bob")
    second = ada.new_key(tmp_path / "second")
    mine = {**ada.entry, "keys": [ada.public_key, second]}
    site.control(people={"ada": mine, "bob": bob.entry})
    left = "setsid sleep 4244 > /dev/null 2>&1 < /dev/null & echo $!"
    running = [int(person.ssh(left).stdout) for person in (ada, bob)]
    first, ada.key = ada.key, tmp_path / "second"
    try:
        running.append(int(ada.ssh(left).stdout))
        none_left(site)
        assert all(psutil.pid_exists(pid) for pid in running)
        site.control(people={"ada": {**mine, "keys": [second]}, "bob": bob.entry})
        site.until(lambda: not psutil.pid_exists(running[0]), "what the key left has ended")
        assert all(psutil.pid_exists(pid) for pid in running[1:])
    finally:
        ada.key = first
        for pid in running[1:]:
            psutil.Process(pid).kill()


#: Stands for a session's sshd in whose shell somebody used sudo: one child of another account.
_WITH_SUDO = """
import os, subprocess, sys
other = subprocess.Popen(["sleep", "1000"])
os.setuid(65534)
own = subprocess.Popen(["sleep", "1000"])
print(other.pid, own.pid, flush=True)
own.wait()
other.wait()
"""
_ENDING = """
import logging, os, sys
from gpudev_lab.sshd import processes
logging.basicConfig()
os.setuid(65534)
processes.end(int(sys.argv[1]), None)
"""


def test_another_accounts_process_does_not_keep_a_session_alive() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of two accounts")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "labextension")])
    sshd = subprocess.Popen([sys.executable, "-c", _WITH_SUDO], stdout=subprocess.PIPE, text=True)
    assert sshd.stdout is not None
    other, own = (psutil.Process(int(pid)) for pid in sshd.stdout.readline().split())
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ENDING, str(sshd.pid)],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert sshd.wait(10) == -signal.SIGTERM
        own.wait(10)
        assert other.is_running()
        [told] = done.stderr.splitlines()
        assert "another account" in told
        assert str(other.pid) in told
    finally:
        for one in (other, own):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        sshd.kill()
        sshd.communicate()


@pytest.mark.parametrize("frames", WAYS)
def test_a_removed_key_ends_what_it_opened(
    ada: Person, site: Site, tmp_path: Path, frames: bool
) -> None:
    second = ada.new_key(tmp_path / "second")
    both = {**ada.entry, "keys": [ada.public_key, second]}
    site.control(people={"ada": both})
    by_first = session(ada, "cat", frames=frames)
    first, ada.key = ada.key, tmp_path / "second"
    try:
        by_second = session(ada, "cat", frames=frames)
    finally:
        ada.key = first
    try:
        began = time.monotonic()
        site.control(people={"ada": {**ada.entry, "keys": [second]}})
        assert by_first.wait(30) == 255
        took = time.monotonic() - began
        assert took < REMOVAL
        print(f"removed key out after {took:.2f} s")  # noqa: T201
        out, _ = by_second.communicate(b"still here", timeout=30)
        assert out == b"still here"
    finally:
        close(by_first)
        close(by_second)
    none_left(site)


def test_an_invitation_that_ends_takes_the_session_along(ada: Person, site: Site) -> None:
    bob = site.person("bob")
    until = time.time() + 4
    site.control(people={"ada": ada.entry, "bob": {**bob.entry, "until": until}})
    running = session(bob, "cat")
    assert running.wait(30) == 255
    assert abs(time.time() - until) < REMOVAL
    close(running)
    none_left(site)


def test_who_may_only_look_does_not_come_in(ada: Person, site: Site) -> None:
    viewer = site.person("viewer")
    site.control(people={"ada": ada.entry, "viewer": {**viewer.entry, "role": "view"}})
    done = viewer.ssh("true")
    assert done.returncode == 255
    assert b"no right" in done.stderr


def test_who_was_removed_between_ticket_and_door_stays_outside(ada: Person, site: Site) -> None:
    late = site.person("late")
    site.control(people={"ada": ada.entry, "late": {**late.entry, "unlisted": True}})
    done = late.ssh("true")
    assert done.returncode == 255
    assert b"no right" in done.stderr


def last_use(site: Site) -> str:
    [[user, last]] = site.state()["activity"]
    assert user == "ada"
    return str(last)


def test_typing_is_use_of_a_terminal(ada: Person, site: Site) -> None:
    terminal = pexpect.spawn("ssh", ["-tt", *ada.options(), HOST], env=ada.environment, timeout=30)
    terminal.sendline("echo $((40+2))")
    terminal.expect("42\r\n")
    before = last_use(site)
    assert before <= last_use(site)
    terminal.close(force=True)
    none_left(site)


def test_data_that_move_are_use_of_a_session_without_a_terminal(ada: Person, site: Site) -> None:
    running = session(ada, "cat > /dev/null")
    before = last_use(site)
    assert running.stdin is not None

    def moved() -> bool:
        running.stdin.write(bytes(256 * 1024))  # type: ignore[union-attr]
        running.stdin.flush()  # type: ignore[union-attr]
        return last_use(site) > before

    site.until(moved, "the data are seen", 30)
    close(running)
    none_left(site)


def test_sessions_hold_nothing_when_they_have_ended(ada: Person, site: Site) -> None:
    server = psutil.Process(site.processes["server"].pid)
    ada.ssh("true")
    none_left(site)
    before = server.num_fds()
    for _ in range(20):
        ada.ssh("true")
        ada.ssh("true", frames=True)
    none_left(site)
    assert server.num_fds() <= before + 2
    assert not [p for p in server.children() if p.status() == psutil.STATUS_ZOMBIE]
