"""The command with a real Hub: the browser's login, a real server, and the command inside of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpudev_client import Client, State, models
from tests.e2e.browser import Browser, Page
from tests.e2e.kernel import run_inside
from tests.e2e.people import Person
from tests.fixtures.hub import RunningHub

pytestmark = [pytest.mark.hub, pytest.mark.timeout(240)]

COMMAND = [sys.executable, "-c", "from gpudev_client.cli import main; main()"]

#: Runs in a kernel of the server; prints what the command and the SDK say there.
INSIDE = """
import json, subprocess, sys
from gpudev_client import GpuDev

def gpudev(*arguments):
    code = "from gpudev_client.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    return run.stdout or run.stderr

with GpuDev() as here:
    mine = [r.id for r in here.reservations()]
print(json.dumps({
    "list": gpudev("list", "--json"),
    "all": gpudev("list", "--all"),
    "show": gpudev("show"),
    "extend": gpudev("edit", "--extend", "0.1"),
    "sdk": mine,
}))
"""


@pytest.fixture
def environment(running_hub: RunningHub, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "GPUDEV_CONFIG": str(tmp_path / "config.json"),
    }


def gpudev(environment: dict[str, str], *arguments: str) -> str:
    run = subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def log_in(
    hub: RunningHub, environment: dict[str, str], user: str, answer: str
) -> tuple[Page, subprocess.Popen[str], str]:
    """Runs `gpu-dev login` and answers its page; the last page, the command, what it has said."""
    login = subprocess.Popen(
        [*COMMAND, "login", "--url", hub.url, "--no-browser"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert login.stderr is not None
    said = ""
    while "/cli-login?" not in said:
        line = login.stderr.readline()
        assert line, said
        said += line
    address = said.split()[-1]
    browser = Browser(hub.url, user)
    try:
        page = browser.open(address)
        assert user in page.text
        return browser.send(page.form("cli-login"), page, answer=answer), login, said
    finally:
        browser.close()


def test_login_through_the_browser(running_hub: RunningHub, environment: dict[str, str]) -> None:
    running_hub.user("cli-ada")
    last, login, said = log_in(running_hub, environment, "cli-ada", "confirm")
    assert "goes on in the terminal" in last.text
    out, rest = login.communicate(timeout=60)
    assert login.returncode == 0, rest
    assert "You are cli-ada" in out
    stored = json.loads(Path(environment["GPUDEV_CONFIG"]).read_text())
    token = stored["tokens"][running_hub.service]
    assert token not in out + rest + said + str(last.answer.url)
    assert token not in running_hub.logs()
    assert "cli-ada" in gpudev(environment, "config", "check")
    # What was minted is worth reservations and nothing at the Hub.
    held = running_hub.api("GET", "user", token=token)["scopes"]
    assert set(held) <= {
        "access:services!service=gpudev",
        "custom:gpudev:reserve!user=cli-ada",
        "custom:gpudev:read!user=cli-ada",
        "read:users:name!user=cli-ada",
        "read:users:groups!user=cli-ada",
    }


def test_a_login_that_is_refused(running_hub: RunningHub, environment: dict[str, str]) -> None:
    running_hub.user("cli-grace")
    last, login, _ = log_in(running_hub, environment, "cli-grace", "refuse")
    assert "refused" in last.text
    out, rest = login.communicate(timeout=60)
    assert login.returncode == 1
    assert "refused in the browser" in rest
    assert out == ""
    assert not Path(environment["GPUDEV_CONFIG"]).exists()


def test_a_real_server_and_the_command_inside_of_it(
    running_hub: RunningHub, environment: dict[str, str]
) -> None:
    person = Person(running_hub, "cli-eve")
    environment |= {"GPUDEV_URL": running_hub.url, "GPUDEV_TOKEN": person.token}
    made = json.loads(
        gpudev(environment, "reserve", "-t", "t4", "-g", "1", "-h", "0.2", "-n", "real", "--json")
    )
    try:
        assert made["state"] == "active"
        assert made["id"] in gpudev(environment, "list")
        address = json.loads(gpudev(environment, "connect", made["id"][:6], "--json"))["url"]
        assert address.startswith(f"{running_hub.url}/user/cli-eve/{made['id']}")
        # Another one that the server's own token must not see.
        other = json.loads(
            gpudev(environment, "reserve", "-t", "cpu-x86", "-h", "0.2", "--no-wait", "--json")
        )
        # In the server's own environment, without any configuration.
        said = json.loads(run_inside(person, models.Reservation.model_validate(made), INSIDE))
        assert [r["id"] for r in json.loads(said["list"])] == [made["id"]]
        assert other["id"] not in said["all"]
        assert "real" in said["show"]
        assert "custom:gpudev:reserve" in said["extend"], "a server's own token changes nothing"
        assert said["sdk"] == [made["id"]]
    finally:
        gpudev(environment, "cancel", "--all", "--yes")
    with Client(running_hub.service, environment["GPUDEV_TOKEN"]) as client:
        for event in client.events(made["id"]):
            last = event.reservation.state
    assert last is State.CANCELLED
