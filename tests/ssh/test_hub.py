"""SSH through a real Hub, its proxy, the real service and a real server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pexpect  # type: ignore[import-untyped]
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.e2e.conftest import LIGHT_SERVERS, SHORT
from tests.e2e.people import Person, people
from tests.e2e.waiting import PATIENCE, until
from tests.fixtures.hub import RunningHub
from tests.fixtures.processes import kill_all
from tests.fixtures.websocket import hang_up

from .laptop import Laptop

pytestmark = [pytest.mark.ssh, pytest.mark.hub, pytest.mark.timeout(280)]

#: What must have ended, in seconds (R12); the measured time is printed.
REMOVAL = 5.0
#: The same on a busy machine, where it has to be far less than what a cache or a timeout would add.
BUSY = 6 * REMOVAL
#: Seconds that a short lease must have left for the next step.
LEFT = 15
#: The code of a WebSocket that is closed since its person may not come in any more.
REMOVED = 4403
#: One word before a lease ends, as late as a whole minute allows.
WARNING = 'c.GpuDev.times["warnings"] = [1]'


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    hub = RunningHub(service_config=SHORT + WARNING, hub_config=LIGHT_SERVERS)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


class Somebody(Person):
    """A person with a laptop."""

    def __init__(self, hub: RunningHub, name: str, folder: Path) -> None:
        super().__init__(hub, name)
        self.laptop = Laptop(folder / f"laptop-{name}", hub.service, self.token, "gpudev-none")

    def add_key(self) -> None:
        self.keys([self.laptop.public_key])

    def keys(self, lines: list[str]) -> None:
        answer = self.call("PUT", f"/users/{self.name}/ssh-keys", {"keys": lines})
        assert answer.is_success, answer.text

    def lease(self, hours: float = 1.0, gpu_type: str = "t4") -> Reservation:
        got = self.until_state(self.reserve(hours=hours, gpu_type=gpu_type).id, State.ACTIVE)
        self.laptop.host = f"gpudev-{got.id}"
        return got

    def session(self, command: str = "cat") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self.laptop.command(self.laptop.host, f"echo begun; {command}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.laptop.environment,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n", process.stderr and process.stderr.read()
        return process


Make = Callable[[str], Somebody]


@pytest.fixture
def person(hub: RunningHub, tmp_path: Path) -> Iterator[Make]:
    def with_a_key(name: str) -> Somebody:
        made = Somebody(hub, name, tmp_path)
        made.add_key()
        return made

    with people(with_a_key) as make:
        yield make


def over(process: subprocess.Popen[bytes]) -> float:
    """Waits until a session has ended; the seconds that took."""
    began = time.monotonic()
    process.wait(60)
    took = time.monotonic() - began
    process.communicate()
    return took


def test_a_shell_on_the_leases_gpus(hub: RunningHub, person: Make) -> None:
    ada = person("ssh-ada")
    got = ada.until_state(
        ada.reserve(gpu_type="t4", gpus=2, hours=1, disk="work", create_disk=True).id, State.ACTIVE
    )
    ada.laptop.host = f"gpudev-{got.id}"
    # The server has just begun: the command waits until it can be reached.
    done = ada.laptop.ssh("pwd; echo $GPUDEV_RESERVATION $CUDA_VISIBLE_DEVICES; exit 7")
    assert done.returncode == 7, done.stderr
    home, rest = done.stdout.decode().splitlines()
    assert Path(home).name
    assert rest.startswith(got.id)
    assert len(rest.split()[1].split(",")) == 2
    assert ada.look(got.id).ssh_host == ada.laptop.host
    inside = ada.laptop.ssh("gpu-dev show --json")
    assert got.id.encode() in inside.stdout, inside.stderr
    assert ada.token not in hub.logs() + hub.logs("proxy")


def test_who_is_removed_is_out_within_seconds(person: Make) -> None:
    ada, bob = person("ssh-owner"), person("ssh-guest")
    got = ada.lease()
    bob.laptop.host = ada.laptop.host
    refused = bob.laptop.ssh("true")
    assert refused.returncode == 255
    invitation = f"/reservations/{got.id}/collaborators/ssh-guest"
    assert ada.call("PUT", invitation, {}).is_success
    stays, goes = ada.session(), bob.session()
    assert ada.call("DELETE", invitation).is_success
    took = over(goes)
    print(f"R12: a removed collaborator's session ended after {took:.2f} s")  # noqa: T201
    assert took < REMOVAL
    assert bob.laptop.ssh("true").returncode == 255
    out, _ = stays.communicate(b"here", timeout=30)
    assert out == b"here"


async def test_an_invitations_and_a_leases_end_cut_every_connection(person: Make) -> None:
    """One guest's invitation ends, the other's lasts as long as the lease. Moments are compared
    that the service and the connections have noted."""
    ada, bob, eve = person("ssh-until"), person("ssh-brief"), person("ssh-whole")
    got = ada.reserve(gpu_type="t4", hours=0.008)
    ada.laptop.host = f"gpudev-{got.id}"

    def there() -> bool:
        ada.at_least(got.id, LEFT)
        return ada.look(got.id).state is State.ACTIVE

    await asyncio.to_thread(until, there, "the server is there")
    channels = kernel(ada, got)
    for guest in (bob, eve):
        guest.laptop.host = ada.laptop.host
        assert invite(ada, got, guest).is_success
    sessions = {guest: guest.session("exec sleep 1000") for guest in (bob, eve)}
    ada.at_least(got.id, LEFT)
    sockets = {guest: await into(guest, channels) for guest in (bob, eve)}
    ends = {
        guest: [
            asyncio.create_task(asyncio.to_thread(ended, sessions[guest])),
            asyncio.create_task(closed(sockets[guest])),
        ]
        for guest in (bob, eve)
    }
    ada.at_least(got.id, LEFT)
    until_then = datetime.now(UTC) + timedelta(seconds=2)
    assert invite(ada, got, bob, until=until_then.isoformat()).is_success
    out = await asyncio.wait_for(asyncio.gather(*ends[bob]), PATIENCE)
    await asyncio.to_thread(until, lambda: knows(ada, got, "invitation of"), "it is in the history")
    told(out, until_then, "an invitation's end: SSH and kernel closed after")
    assert sockets[bob].close_code == REMOVED

    out = await asyncio.wait_for(asyncio.gather(*ends[eve]), PATIENCE)
    over = await asyncio.to_thread(ada.until_over, got.id, State.EXPIRED)
    assert over.expires_at is not None
    told(out, over.expires_at, "a lease's end: SSH and kernel closed after")


def invite(owner: Somebody, lease: Reservation, guest: Somebody, **how: str) -> httpx.Response:
    return owner.call("PUT", f"/reservations/{lease.id}/collaborators/{guest.name}", how)


def knows(owner: Somebody, lease: Reservation, words: str) -> bool:
    return any(words in entry.reason for entry in owner.history(lease.id))


def kernel(owner: Somebody, lease: Reservation) -> str:
    """The WebSocket address of a new kernel."""
    kernels = f"{owner.hub.url}/user/{owner.name}/{lease.server_name}/api/kernels"
    login = {"Authorization": f"token {owner.token}"}
    made = httpx.post(kernels, json={}, headers=login, trust_env=False, timeout=PATIENCE)
    made.raise_for_status()
    return f"{kernels.replace('http', 'ws', 1)}/{made.json()['id']}/channels"


async def into(guest: Somebody, address: str) -> WebSocketClientConnection:
    """A guest's connection to a kernel, once the Hub lets them in."""
    login = {"Authorization": f"token {guest.token}"}
    status = f"{address.replace('ws', 'http', 1).partition('/api/')[0]}/api/status"

    def let_in() -> bool:
        return httpx.get(status, headers=login, trust_env=False, timeout=PATIENCE).is_success

    await asyncio.to_thread(until, let_in, "the guest is let in")
    return await websocket_connect(HTTPRequest(address, headers=login))


async def closed(connection: WebSocketClientConnection) -> datetime:
    while await connection.read_message() is not None:
        pass
    now = datetime.now(UTC)
    await hang_up(connection)
    return now


def ended(session: subprocess.Popen[bytes]) -> datetime:
    session.communicate(timeout=2 * PATIENCE)
    return datetime.now(UTC)


def told(ends: list[datetime], due: datetime, what: str) -> None:
    """Nobody is cut off before their time, and then all are."""
    took = [(end - due).total_seconds() for end in ends]
    print(f"R12: {what}", " and ".join(f"{one:.2f} s" for one in took))  # noqa: T201
    assert min(took) >= 0
    assert max(took) < BUSY


def test_a_removed_key_is_out_within_seconds(person: Make) -> None:
    ada = person("ssh-keys")
    ada.lease()
    goes = ada.session()
    ada.keys([])
    took = over(goes)
    print(f"R12: a removed key's session ended after {took:.2f} s")  # noqa: T201
    assert took < REMOVAL
    assert b"no SSH key" in ada.laptop.ssh("true").stderr
    ada.add_key()
    assert ada.laptop.ssh("echo back").stdout == b"back\n"


def test_the_end_of_the_lease_ends_the_session(person: Make) -> None:
    ada = person("ssh-end")
    got = ada.lease()
    running = ada.session("exec sleep 1000")
    ada.cancel(got.id)
    over(running)
    assert running.returncode == 255
    ada.until_over(got.id, State.CANCELLED)
    said = ada.laptop.ssh("true").stderr.decode()
    assert "ended" in said, said


async def test_a_warning_comes_in_every_terminal_of_the_server(person: Make) -> None:
    ada = person("ssh-warned")
    got = ada.lease(hours=0.025)
    by_ssh = pexpect.spawn(
        "ssh",
        ["-tt", *ada.laptop.options(), ada.laptop.host],
        env=ada.laptop.environment,
        timeout=PATIENCE,
    )
    in_lab = await terminal(ada, got)
    try:
        by_ssh.sendline("echo $((40+2))")
        by_ssh.expect("42\r\n")
        await in_lab.write_message(json.dumps(["stdin", "echo $((40+2))\r"]))
        await until_shown(in_lab, "42\r\n")
        # Both are there. The lease gets an end whose warning is due in a few seconds.
        both = datetime.now(UTC)
        ada.at_least(got.id, 65)

        def warned() -> str | None:
            found = [one for one in ada.history(got.id) if one.kind == "warning" and one.at > both]
            return found[-1].reason if found else None

        said = await asyncio.to_thread(until, warned, "the service warns")
        assert "ends in" in said
        by_ssh.expect_exact(f"[gpudev] {said}")
        await until_shown(in_lab, f"[gpudev] {said}")
    finally:
        by_ssh.close(force=True)
        await hang_up(in_lab)


async def terminal(person: Person, lease: Reservation) -> WebSocketClientConnection:
    """A terminal of the server, as JupyterLab opens it."""
    base = f"{person.hub.url}/user/{person.name}/{lease.server_name}"
    login = {"Authorization": f"token {person.token}"}
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE, headers=login) as http:
        made = await http.post(f"{base}/api/terminals")
        made.raise_for_status()
    address = f"{base.replace('http', 'ws', 1)}/terminals/websocket/{made.json()['name']}"
    return await websocket_connect(HTTPRequest(address, headers=login))


async def until_shown(terminal: WebSocketClientConnection, text: str) -> None:
    """Reads what a terminal shows until `text` has been there."""
    shown = ""
    async with asyncio.timeout(PATIENCE):
        while text not in shown:
            message = await terminal.read_message()
            assert message is not None, shown
            kind, *content = json.loads(message)
            shown += content[0] if kind == "stdout" else ""


def test_a_restart_of_hub_and_service_leaves_sessions_alone(hub: RunningHub, person: Make) -> None:
    ada = person("ssh-restart")
    ada.lease()
    running = ada.session()
    hub.end("hub", signal.SIGKILL)
    hub.start_hub()
    hub.process("service").kill()
    until(lambda: hub.call("GET", "/health/live").is_success, "the service is there again")
    out, _ = running.communicate(b"through it all", timeout=60)
    assert out == b"through it all"


def test_sentences_for_what_can_be_wrong(hub: RunningHub, person: Make) -> None:
    ada, eve = person("ssh-words"), person("ssh-eve")
    got = ada.lease()
    laptop = ada.laptop

    def said(by: Laptop, **options: str) -> str:
        done = by.ssh("true", **options)  # type: ignore[arg-type]
        assert done.returncode == 255
        lines = [line for line in done.stderr.decode().splitlines() if line.startswith("gpu-dev:")]
        assert len(lines) == 1, done.stderr
        return lines[0]

    eve.laptop.host = laptop.host
    assert "reservation" in said(eve.laptop)
    assert "no such reservation" in said(laptop, host="gpudev-zyxw0000zyxw0000")
    expired = hub.new_token("ssh-words")
    hub.revoke("ssh-words", expired["id"])
    laptop.log_in(expired["token"])
    assert "gpu-dev login" in said(laptop)
    laptop.log_in(ada.token)
    ada.keys([])
    assert "no SSH key" in said(laptop)
    ada.add_key()
    laptop.service = "http://127.0.0.1:9/services/gpudev"
    laptop.log_in(ada.token)
    assert "cannot be reached" in said(laptop)
    laptop.service = hub.service
    laptop.log_in(ada.token)
    waiting = ada.reserve(gpu_type="t4", gpus=4, hours=1)
    second = ada.reserve(gpu_type="t4", gpus=4, hours=1)
    queued = next(r for r in (waiting, second) if ada.look(r.id).state is State.QUEUED)
    assert "queue" in said(laptop, host=f"gpudev-{queued.id}")
    ada.stop(got.server_name)
    ada.until_over(got.id, State.CANCELLED)
    assert "ended" in said(laptop, host=f"gpudev-{got.id}")


def test_websocat_through_jupyters_own_proxy(hub: RunningHub, person: Make) -> None:
    """The way for clients that know nothing of gpudev: Hub authentication, then the key."""
    ada, bob, eve = person("ssh-cat"), person("ssh-cat-guest"), person("ssh-cat-eve")
    got = ada.lease()
    assert ada.call("PUT", f"/reservations/{got.id}/collaborators/ssh-cat-guest", {}).is_success
    assert ada.laptop.ssh("true").returncode == 0  # by now the server is there
    address = f"{hub.url.replace('http', 'ws', 1)}/user/ssh-cat/{got.server_name}/sshd/"
    known = ada.laptop.folder / "ssh" / "known_hosts.d" / ada.laptop.host

    def by_websocat(who: Somebody, token: str) -> subprocess.CompletedProcess[bytes]:
        secret = who.laptop.folder / "header"
        secret.write_text(f"Authorization: token {token}")
        command = f'websocat --binary -H="$(cat {secret})" {address}'
        return who.laptop.run(
            "ssh", "-F", "none", "-o", f"ProxyCommand={command}", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes",
            "-i", str(who.laptop.key), "-o", "IdentitiesOnly=yes", ada.laptop.host, "echo in",
        )  # fmt: skip

    assert by_websocat(ada, ada.token).stdout == b"in\n"
    until(lambda: by_websocat(bob, bob.token).stdout == b"in\n", "the guest comes in")
    # A token of the owner's without a key of hers: the Hub lets it in, sshd does not.
    assert b"Permission denied" in by_websocat(eve, ada.token).stderr
    assert by_websocat(eve, eve.token).returncode == 255


def test_submit_reserves_runs_and_gives_back(hub: RunningHub, person: Make, tmp_path: Path) -> None:
    ada = person("ssh-submit")
    project = tmp_path / "project"
    project.mkdir()
    (project / "in").write_text("5")
    agent = ada.laptop.folder / "agent"
    running = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        until(agent.exists, "the agent is there")
        ada.laptop.run("env", f"SSH_AUTH_SOCK={agent}", "ssh-add", "-q", str(ada.laptop.key))
        done = ada.laptop.gpudev(
            "submit", "-t", "t4-small", "-h", "0.2", str(project), "--",
            "echo on $CUDA_VISIBLE_DEVICES; cp in out; exit 6",
            SSH_AUTH_SOCK=str(agent), timeout=200,
        )  # fmt: skip
    finally:
        running.terminate()
        running.wait()
    assert done.returncode == 6, done.stderr
    assert done.stdout.startswith(b"on ")
    assert (project / "out").read_text() == "5"
    [made] = ada.reservations()
    ada.until_over(made.id, State.CANCELLED)


def test_a_server_that_crashed_is_waited_for(person: Make) -> None:
    ada = person("ssh-crash")
    got = ada.lease()
    assert ada.laptop.ssh("true").returncode == 0
    kill_all("GPUDEV_RESERVATION", got.id)
    waiting = subprocess.Popen(
        ada.laptop.command(ada.laptop.host, "echo again"),
        env=ada.laptop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(lambda: not (ada.server(got.server_name) or {}).get("ready"), "the Hub has noticed")
    ada.start(got.server_name)
    out, said = waiting.communicate(timeout=120)
    assert out == b"again\n", said
    assert b"Waiting" in said


def test_the_door_is_shut_before_the_upgrade(hub: RunningHub, person: Make) -> None:
    ada = person("ssh-door")
    got = ada.lease()
    ada.laptop.ssh("true")
    address = f"{hub.url}/user/ssh-door/{got.server_name}/gpudev/ssh"
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "gpudev.ssh.raw.v1",
    }
    for extra in ({}, {"Gpudev-Ticket": "made-up"}, {"Authorization": "token made-up"}):
        answer = httpx.get(address, headers={**handshake, **extra}, trust_env=False, timeout=30)
        assert answer.status_code in (403, 404), answer.text
        assert answer.json()["error"]["message"]
    asked = ada.call("POST", f"/reservations/{got.id}/ssh").json()
    by_url = httpx.get(
        f"{address}?ticket={asked['ticket']}", headers=handshake, trust_env=False, timeout=30
    )
    assert by_url.status_code == 403
    assert asked["ticket"] not in hub.logs()
