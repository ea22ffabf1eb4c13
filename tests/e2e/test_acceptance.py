"""The acceptance run of those who come from `gpu-dev` of before, row by row, at a real Hub.

The real command runs as a process of its own, logged in with a token, with its output in a pipe.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.states import State
from tests.fixtures.hub import RunningHub

from .people import Person

pytestmark = pytest.mark.hub

COMMAND = Path(sys.executable).with_name("gpu-dev")


class Command:
    """`gpu-dev` of one person, on a terminal-less machine of their own."""

    def __init__(self, person: Person, config: Path) -> None:
        self.person = person
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(config.parent),
            "GPUDEV_CONFIG": str(config),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "TZ": "UTC",
        }
        self.ok("login", "--url", person.hub.url, "--with-token", text=f"{person.token}\n")

    def run(
        self, *arguments: str, text: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=self._environment | environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def ok(self, *arguments: str, text: str = "", **environment: str) -> str:
        """What it prints on standard output, when it succeeds."""
        run = self.run(*arguments, text=text, **environment)
        assert run.returncode == 0, run.stderr
        assert "Traceback" not in run.stderr
        return run.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def refused(self, code: int, *arguments: str) -> str:
        """What it says when it does not succeed, in one line."""
        run = self.run(*arguments)
        assert run.returncode == code, (run.returncode, run.stdout, run.stderr)
        assert run.stdout == ""
        assert "Traceback" not in run.stderr
        return " ".join(run.stderr.split())


@pytest.fixture
def command(running_hub: RunningHub, tmp_path: Path) -> Iterator[Callable[[str], Command]]:
    made: list[Command] = []

    def make(name: str) -> Command:
        made.append(Command(Person(running_hub, name), tmp_path / f"{name}.json"))
        return made[-1]

    yield make
    for one in made:
        for reservation in one.person.reservations():
            if reservation.ended_at is None:
                one.person.cancel(reservation.id)


def test_the_acceptance_run(command: Callable[[str], Command]) -> None:
    ada = command("acceptance-ada")
    assert f"you are {ada.person.name}" in " ".join(ada.ok("config", "check").split())
    _availability(ada)
    _list_is_empty(ada)
    made = _create(ada)
    _verify_in_list(ada, made)
    _show(ada, made)
    _disks(ada, made)
    _cluster(ada, made)
    _cancel(ada, made)
    _help(ada)
    _whole_flow_once(ada)


def _availability(ada: Command) -> None:
    found = {row["gpu_type"]: row for row in ada.json("avail")}
    assert {"h100", "t4", "t4-small", "cpu-x86"} <= found.keys()
    assert found["t4"]["total"] == 8
    assert [start["gpus"] for start in found["t4"]["earliest"]] == [1, 2, 3, 4, 8]
    assert "t4-small" in ada.ok("avail")


def _list_is_empty(ada: Command) -> None:
    assert "No reservations" in ada.ok("list")
    assert ada.json("list", "--all") == []


def _create(ada: Command) -> dict[str, Any]:
    arguments = ("-t", "t4", "-g", "1", "-h", "0.5", "-n", "acceptance run")
    made: dict[str, Any] = ada.json(
        "reserve", *arguments, "--disk", "acceptance", "--create-disk", "--no-interactive"
    )
    assert (made["gpu_type"], made["gpus"], made["state"]) == ("t4", 1, "active")
    assert made["hours"] == 0.5
    return made


def _verify_in_list(ada: Command, made: dict[str, Any]) -> None:
    assert [row["id"] for row in ada.json("list")] == [made["id"]]
    shown = ada.ok("list")
    assert made["id"] in shown
    assert "acceptance run" in shown
    assert "active" in shown


def _show(ada: Command, made: dict[str, Any]) -> None:
    shown = ada.ok("show", made["id"][:8])
    for told in (made["id"], "acceptance run", "t4-", "acceptance", "The server is running."):
        assert told in shown
    # Without an id it is the only live one.
    assert ada.json("show")["id"] == made["id"]
    traced = ada.json("show", made["id"], "--trace")
    assert traced["trace"]
    assert "Where the time went" in ada.ok("show", "--trace")
    assert ada.json("connect")["url"].startswith(ada.person.hub.url)


def _disks(ada: Command, made: dict[str, Any]) -> None:
    assert ada.json("disk", "create", "spare")["name"] == "spare"
    names = {row["name"]: row for row in ada.json("disk", "list")}
    assert names["acceptance"]["in_use_by"] == made["id"]
    assert ada.json("disk", "rename", "spare", "second")["name"] == "second"
    assert "second" in ada.ok("disk", "list")
    message = ada.refused(1, "disk", "delete", "acceptance", "--yes")
    assert made["id"] in message
    ada.ok("disk", "delete", "second", "--yes")
    assert [row["name"] for row in ada.json("disk", "list")] == ["acceptance"]
    ada.ok("disk", "restore", "second", "--yes")
    assert "second" in ada.ok("disk", "list")
    assert ada.run("disk", "list-content", "acceptance").returncode == 0


def _cluster(ada: Command, made: dict[str, Any]) -> None:
    status = ada.json("status")
    mine = [use for node in status["nodes"] for use in node["held"] if use["mine"]]
    assert [use["reservation"] for use in mine] == [made["id"]]
    assert "The GPUs here are simulated." in ada.ok("status")


def _cancel(ada: Command, made: dict[str, Any]) -> None:
    assert made["id"] in ada.ok("cancel", made["id"], "--yes")
    ada.person.until_over(made["id"], State.CANCELLED)
    assert ada.json("list") == []
    assert ada.json("show", made["id"])["state"] == "cancelled"
    ended = ada.json("list", "--all")
    assert [(row["id"], row["state"]) for row in ended] == [(made["id"], "cancelled")]
    assert "cancelled already" in ada.refused(1, "cancel", made["id"], "--yes")
    assert "end" in [row["cause"] for row in ada.json("disk", "snapshots", "acceptance")]


def _help(ada: Command) -> None:
    for verb, flag in (("edit", "--extend"), ("connect", "[ID]"), ("reserve", "--gpu-type")):
        for told in (ada.ok("help", verb), ada.ok(verb, "--help")):
            assert f"Usage: gpu-dev {verb}" in told
            assert flag in told


def _whole_flow_once(ada: Command) -> None:
    made = ada.json("reserve", "-t", "t4", "-h", "1", "--disk", "acceptance", "--no-interactive")
    assert made["state"] == "active"
    longer = ada.json("edit", "--extend", "0.5")
    assert longer["extended_hours"] == 0.5
    assert "1 h 30 min" in ada.ok("show") or "1 h 29 min" in ada.ok("show")
    ada.ok("cancel", "--yes")
    ada.person.until_over(made["id"], State.CANCELLED)
    assert len(ada.json("disk", "snapshots", "acceptance")) == 2


def test_piped_output_is_whole_in_any_width(command: Callable[[str], Command]) -> None:
    grace = command("acceptance-grace")
    name = "a name that is much longer than a terminal of sixty columns would like it to be"
    made = grace.json("reserve", "-t", "cpu-x86", "-h", "2", "-n", name, "--no-wait")
    for verb in (("list",), ("show", made["id"]), ("avail",), ("status",), ("disk", "list")):
        wide = grace.ok(*verb, COLUMNS="200")
        narrow = grace.ok(*verb, COLUMNS="60")
        # Times left move on between the two calls.
        assert _without_times(narrow) == _without_times(wide)
        assert "…" not in narrow
        assert "\x1b" not in narrow
    assert name in grace.ok("list", COLUMNS="60")
    assert made["id"] in grace.ok("status", COLUMNS="60") + grace.ok("list", COLUMNS="60")


def _without_times(text: str) -> str:
    return re.sub(r"\d+", "0", " ".join(text.split()))


def test_exit_codes_and_prefixes(command: Callable[[str], Command]) -> None:
    leo = command("acceptance-leo")
    assert "There is no verb" in leo.refused(2, "frobnicate")
    assert leo.refused(2, "reserve", "--hours", "half", "-t", "t4")
    assert "which GPU type" in leo.refused(2, "reserve", "--no-interactive")
    assert "no GPU type" in leo.refused(1, "reserve", "-t", "v100", "-h", "1")
    assert "hours" in leo.refused(1, "reserve", "-t", "t4", "-h", "1000")
    assert "no reservation" in leo.refused(1, "show", "abcdefgh").lower()
    assert "too short" in leo.refused(1, "show", "ab")
    made = leo.json("reserve", "-t", "cpu-x86", "-h", "0.5", "--no-wait")
    assert made["hours"] == 0.5
    assert leo.json("show", made["id"][:4])["id"] == made["id"]
    length = leo.person.look(made["id"])
    assert length.starts_at is not None
    assert length.expires_at is not None
    assert (length.expires_at - length.starts_at).total_seconds() == 1800
    # Somebody else's reservation is not there, not even by its whole id.
    eve = command("acceptance-eve")
    assert "no reservation" in eve.refused(1, "show", made["id"]).lower()
    assert "no reservation" in eve.refused(1, "cancel", made["id"], "--yes").lower()
    # Without an answer from a terminal nothing is cancelled.
    leo.run("cancel", made["id"])
    assert leo.person.look(made["id"]).state in (State.PREPARING, State.ACTIVE)
