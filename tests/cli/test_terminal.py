"""On a terminal: questions, waiting live, and Ctrl-C. In a pipe: nothing is asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from gpudev_client.states import State

from .running import Running

pytestmark = pytest.mark.timeout(120)

COMMAND = [sys.executable, "-c", "from gpudev_client.cli import main; main()"]
STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
Open = Callable[..., pexpect.spawn]


@pytest.fixture
def environment(service: Running, tmp_path: Path) -> dict[str, str]:
    service.show_present_time()
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TERM": "xterm-256color",
        "GPUDEV_URL": service.url,
        "GPUDEV_TOKEN": service.token("ada"),
        "GPUDEV_CONFIG": str(tmp_path / "config.json"),
    }


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Open]:
    """Runs the command on a terminal of 60 columns."""
    opened: list[pexpect.spawn] = []

    def run(*arguments: str, command: list[str] = COMMAND, **env: str) -> pexpect.spawn:
        child = pexpect.spawn(
            command[0],
            [*command[1:], *arguments],
            env={**environment, **env},
            dimensions=(40, 60),
            timeout=30,
            encoding="utf-8",
        )
        opened.append(child)
        return child

    yield run
    for child in opened:
        child.close(force=True)


def ended(child: pexpect.spawn, code: int) -> str:
    """What came until the end; the exit code is as expected."""
    child.expect(pexpect.EOF)
    child.close()
    said = STYLE.sub("", child.before)
    assert child.exitstatus == code, said
    return said


def test_it_asks_for_what_is_missing(service: Running, terminal: Open) -> None:
    child = terminal("reserve")
    child.expect("h100")
    child.expect(r"GPU type \[h100\]")
    child.sendline("t5")
    child.expect("Answer 1 to 4")
    child.sendline("t4")
    child.expect(r"How many GPUs")
    child.sendline("5")
    child.expect("Possible with t4: 1, 2, 3, 4, 8")
    child.sendline("2")
    child.expect("For how many hours")
    child.sendline("half")
    child.expect("fractions are fine")
    child.sendline("0.5")
    child.expect(r"Disk \[none\]")
    child.sendline("2")
    child.expect("Name of the new disk")
    child.sendline("../work")
    child.expect("beginning with a letter")
    child.sendline("work")
    child.expect("Name")
    child.sendline("my run")
    child.expect("starts now")
    child.expect("Reserve")
    child.sendline("y")
    said = ended(child, 0)
    assert "active" in said
    assert "/lab" in said
    with service.client() as client:
        [made] = client.reservations().all()
        [disk] = client.disks().all()
    assert (made.gpus, made.hours, made.name, made.disk) == (2, 0.5, "my run", "work")
    assert disk.in_use_by == made.id


def test_saying_no_reserves_nothing(service: Running, terminal: Open) -> None:
    child = terminal("reserve", "-t", "t4", "-h", "1", "--disk", "none", "-n", "x")
    child.expect("How many GPUs")
    child.sendline("")
    child.expect("Reserve")
    child.sendline("n")
    assert "Nothing was reserved" in ended(child, 1)
    with service.client() as client:
        assert client.reservations().all() == []


def test_complete_flags_ask_nothing(service: Running, terminal: Open) -> None:
    said = ended(terminal("reserve", "-t", "t4", "-g", "1", "-h", "1"), 0)
    assert "active" in said
    assert "?" not in said


def test_waiting_shows_how_things_stand_until_it_is_active(
    service: Running, terminal: Open
) -> None:
    ahead = service.reserve("grace", hours=2)
    child = terminal("reserve", "-t", "t4-small", "-g", "1", "-h", "1")
    child.expect("next in the queue")
    with service.client("grace") as client:
        client.cancel(ahead)
    service.pass_time(seconds=1)
    child.expect("active")
    assert "/lab" in ended(child, 0)


def waiting(service: Running, terminal: Open, **env: str) -> tuple[pexpect.spawn, str]:
    service.reserve("grace", hours=2)
    child = terminal("reserve", "-t", "t4-small", "-g", "1", "-h", "1", **env)
    child.expect("Reservation ([a-z0-9]{16})")
    identity = child.match.group(1)
    child.expect("next in the queue")
    return child, identity


def state(service: Running, identity: str) -> State:
    with service.client() as client:
        return client.reservation(identity).state


def test_interrupted_and_left_in_the_queue(service: Running, terminal: Open) -> None:
    child, identity = waiting(service, terminal)
    child.sendintr()
    child.expect("leave it queued")
    child.expect("What now")
    child.sendline("")
    said = ended(child, 130)
    assert "stays as it is" in " ".join(said.split())
    assert f"gpu-dev cancel {identity}" in " ".join(said.split())
    assert state(service, identity) is State.QUEUED


def test_interrupted_and_cancelled(service: Running, terminal: Open) -> None:
    child, identity = waiting(service, terminal)
    child.sendintr()
    child.expect("What now")
    child.sendline("cancel")
    assert "is cancelled" in ended(child, 130)
    assert state(service, identity) is State.CANCELLED


def test_interrupted_twice_leaves_it_queued(service: Running, terminal: Open) -> None:
    child, identity = waiting(service, terminal)
    child.sendintr()
    child.expect("What now")
    child.sendintr()
    ended(child, 130)
    assert state(service, identity) is State.QUEUED


def test_interrupted_and_waiting_on(service: Running, terminal: Open) -> None:
    child, identity = waiting(service, terminal)
    child.sendintr()
    child.expect("What now")
    child.sendline("3")
    child.expect("next in the queue")
    with service.client() as client:
        client.cancel(identity)
    said = ended(child, 1)
    assert "is cancelled" in said


@pytest.mark.parametrize(
    ("moment", "term"),
    [
        ("lock", "xterm-256color"),
        ("lock", "dumb"),
        ("collector", "xterm-256color"),
        ("collector", "dumb"),
        ("display", "xterm-256color"),
    ],
)
def test_an_interruption_at_the_worst_moment_is_not_lost(
    service: Running, terminal: Open, moment: str, term: str
) -> None:
    ahead = service.reserve("grace", hours=2)
    striking = [sys.executable, "-m", "tests.cli.striking", moment]
    child = terminal("reserve", "-t", "t4-small", "-g", "1", "-h", "1", command=striking, TERM=term)
    child.expect("Reservation ([a-z0-9]{16})")
    identity = child.match.group(1)
    child.expect("What now")
    child.sendline("wait")
    child.expect("next in the queue")
    with service.client("grace") as client:
        client.cancel(ahead)
    service.pass_time(seconds=1)
    assert "/lab" in ended(child, 0)
    assert state(service, identity) is State.ACTIVE


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_without_colour_there_are_no_escapes(
    service: Running, terminal: Open, env: dict[str, str]
) -> None:
    child, _ = waiting(service, terminal, **env)
    child.sendintr()
    child.expect("What now")
    child.sendline("cancel")
    child.expect(pexpect.EOF)
    assert "\x1b" not in child.before


def test_cancel_asks(service: Running, terminal: Open) -> None:
    identity = service.reserve(gpu_type="t4", name="keep me")
    child = terminal("cancel")
    child.expect("keep me")
    child.sendline("n")
    assert "Nothing was cancelled" in ended(child, 1)
    assert state(service, identity) is not State.CANCELLED
    child = terminal("cancel")
    child.expect(r"\[y/N\]")
    child.sendline("y")
    ended(child, 0)
    assert state(service, identity) in (State.STOPPING, State.CANCELLED)


def test_a_narrow_terminal_loses_nothing(service: Running, terminal: Open) -> None:
    identity = service.reserve(gpu_type="t4", name="a rather long name for a reservation", hours=3)
    said = ended(terminal("list"), 0)
    assert identity in said
    assert "a rather long name for a reservation" in " ".join(said.split())
    assert all(len(line.rstrip()) <= 60 for line in said.splitlines())


def test_a_watch_shows_changes_and_ends_with_ctrl_c(service: Running, terminal: Open) -> None:
    child = terminal("list", "--watch")
    child.expect("No reservations")
    identity = service.reserve(gpu_type="t4")
    child.expect(identity)
    with service.client() as client:
        client.cancel(identity)
    service.pass_time(seconds=1)
    child.expect("No reservations")
    child.sendintr()
    ended(child, 130)


def test_availability_is_watched_in_place(service: Running, terminal: Open) -> None:
    child = terminal("avail", "--watch", "-t", "t4-small")
    child.expect("1 of 1")
    service.reserve("grace", hours=1)
    child.expect("0 of 1")
    child.sendintr()
    ended(child, 130)


def test_a_watch_in_a_pipe_is_one_json_event_per_line(
    service: Running, environment: dict[str, str]
) -> None:
    mine = service.reserve(gpu_type="t4")
    run = subprocess.Popen(
        [*COMMAND, "list", "--watch", "--json"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    present = json.loads(run.stdout.readline())
    assert present["reservation"]["id"] == mine
    service.reserve("grace", "t4")
    with service.client() as client:
        client.cancel(mine)
    following = json.loads(run.stdout.readline())
    assert following["reservation"]["id"] == mine
    assert following["reservation"]["state"] == "stopping"
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
    assert run.returncode == 130


def test_interrupted_in_a_pipe_leaves_it_queued_and_says_so(
    service: Running, environment: dict[str, str]
) -> None:
    service.reserve("grace", hours=2)
    run = subprocess.Popen(
        [*COMMAND, "reserve", "-t", "t4-small"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    said = ""
    while "next in the queue" not in said:
        line = run.stderr.readline()
        assert line, said
        said += line
    run.send_signal(signal.SIGINT)
    out, rest = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "stays as it is" in rest
    assert "Traceback" not in rest
    assert out == ""
    with service.client() as client:
        [found] = client.reservations().all()
    assert found.state is State.QUEUED


def test_a_closed_pipe_is_no_error(service: Running, environment: dict[str, str]) -> None:
    for number in range(3):
        service.reserve(gpu_type="t4", name=f"n{number}")
    line = " ".join([COMMAND[0], "-c", f"'{COMMAND[2]}'"])
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} list --json | head -c 1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "["
    assert "Traceback" not in run.stderr
