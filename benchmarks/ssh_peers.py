"""The ways into one server by SSH that are compared: directly, ours, and by websocat."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpudev_client.ssh import config
from gpudev_lab.sshd import daemon
from tests.ssh.site import HOST, Person, Site
from tools.ports import free_ports

#: A command that runs `ssh` up to and with the host, and its environment.
Way = tuple[list[str], dict[str, str]]


def here() -> None:
    """Programs of this tree come first, as with `make`."""
    root = Path(__file__).parent.parent
    own = [str(Path(sys.executable).parent), str(root / "node_modules" / ".bin")]
    os.environ["PATH"] = os.pathsep.join([*own, os.environ["PATH"]])


@contextlib.contextmanager
def direct(
    ada: Person, through: Callable[[int], contextlib.AbstractContextManager[int]] | None = None
) -> Iterator[Way]:
    """An sshd that listens, with the same keys; `through` gives the port that leads to its."""
    [own] = free_ports(1)
    with (through or contextlib.nullcontext)(own) as port:
        yield from _listening(ada, own, port)


def _listening(ada: Person, own: int, port: int) -> Iterator[Way]:
    folder = ada.folder
    key, known = folder / "direct_key", folder / "direct_known"
    Person.new_key(key)
    known.write_text(f"[127.0.0.1]:{port} {key.with_suffix('.pub').read_text()}")
    (folder / "authorized").write_text(ada.public_key + "\n")
    config = folder / "direct_config"
    config.write_text(
        f"Port {own}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nStrictModes no\nPrintMotd no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 1000\n"
    )
    program = shutil.which("sshd", path="/usr/sbin") or "/usr/sbin/sshd"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    command = [
        "ssh", "-F", "none", "-p", str(port), "-o", f"UserKnownHostsFile={known}",
        "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
        "-i", str(ada.key), "-l", daemon.account().login, "127.0.0.1",
    ]  # fmt: skip
    try:
        ada.site.until(
            lambda: (
                subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
            ),
            "the sshd that listens answers",
        )
        yield command, ada.environment
    finally:
        server.terminate()
        server.wait()


def ours(ada: Person, *, framed: bool = False) -> Way:
    tls = ada.service.startswith("https")
    environment = {**ada.environment, **({"GPUDEV_SSH_FRAMES": "1"} if framed else {})}
    return with_our_ciphers((ada.command(HOST, fdpass=not tls), environment))


def with_our_ciphers(way: Way) -> Way:
    """As our part of the SSH configuration has it; the others have what `ssh` chooses by itself."""
    [program, *rest], environment = way
    return [program, "-o", f"Ciphers={config.CIPHERS}", *rest], environment


def websocat(ada: Person, site: Site) -> Way:
    """jupyter-server-proxy's raw socket with websocat, as its users are told to."""
    secret = ada.folder / "header"
    secret.write_text(f"Authorization: token {site.server_token}")
    address = f"{site.url.replace('http', 'ws', 1)}{site.base}/sshd/"
    command = f'websocat --binary -H="$(cat {secret})" {address}'
    options = ada.options()
    options[3], options[5] = f"ProxyCommand={command}", "ProxyUseFdpass=no"
    return ["ssh", *options, HOST], ada.environment


def seconds(way: Way, command: str, **how: object) -> float:
    """How long one command takes, as the person who waits for it sees it."""
    words, environment = way
    began = time.perf_counter()
    subprocess.run([*words, command], env=environment, check=True, **how)  # type: ignore[call-overload]
    return time.perf_counter() - began


def in_turn(
    ways: dict[str, Way], measure: Callable[[Way], float], rounds: int
) -> dict[str, list[float]]:
    """Each way once, and again: whatever the machine does beside it happens to all."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        for name in order:
            found[name].append(measure(ways[name]))
    return found


def medians(found: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in found.items()}
