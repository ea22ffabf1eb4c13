"""Where a demo lies: its directory, its ports, its password. Shared by the demo and by the
configuration files that the Hub and the service read."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpudev_hub_config.local import Ports
from tools.ports import free_port

#: Names the demo's directory to everything that it starts; by it the demo finds what to end.
MARK = "GPUDEV_DEMO"
USERS = ("ada", "grace")
ADMIN = "root-admin"
ADDRESS = "127.0.0.1"


class PortTaken(Exception):  # noqa: N818 - says what is the matter
    """Somebody else listens at the demo's address."""


class DirectoryUnusable(Exception):  # noqa: N818 - says what is the matter
    """The demo's data cannot be kept there; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """One demo. `directory` is absolute."""

    directory: Path
    ports: Ports

    @property
    def url(self) -> str:
        return self.ports.url(self.ports.public)

    @property
    def service_url(self) -> str:
        return f"{self.url}/services/gpudev"

    @property
    def hub_dir(self) -> Path:
        return self.directory / "hub"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def password(self) -> str:
        """The one password of all demo users; made once."""
        path = self.directory / "password"
        if not path.exists():
            letters = string.ascii_lowercase + string.digits
            write_private(path, "demo-" + "".join(secrets.choice(letters) for _ in range(6)))
        return path.read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        return {MARK: str(self.directory)}


def present() -> Place:
    """The demo that the environment names, with the ports that were chosen for it."""
    directory = Path(os.environ[MARK])
    return Place(directory, Ports(**json.loads((directory / "ports.json").read_text())))


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Makes the directory and keeps it for one demo: two on the same data would end each other's
    parts. The kernel lets go with the process.

    Raises:
        DirectoryUnusable: another demo has it, or it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DirectoryUnusable(
            f"The demo cannot keep its data in {directory}: {error.strerror}. "
            "Choose another place, for example: make demo DEMO_DIR=/tmp/gpudev-demo"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryUnusable(
                f"Another demo runs with its data in {directory}. End that one, or start this one "
                "elsewhere, for example: make demo DEMO_PORT=8001 DEMO_DIR=.demo-2"
            ) from None
        yield
    finally:
        os.close(handle)


def prepare(directory: Path, public_port: int) -> Place:
    """Fills the directory and chooses the inner ports; they stay the same from start to start,
    because running servers know them.

    Raises:
        PortTaken: `public_port` is in use.
    """
    directory = directory.absolute()
    for name in ("hub", "logs"):
        (directory / name).mkdir(mode=0o700, exist_ok=True)
    if not is_free(public_port):
        raise PortTaken(public_port)
    path = directory / "ports.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    chosen: dict[str, Any] = {"public": public_port}
    for name in ("hub", "proxy_api", "service"):
        port = known.get(name, 0)
        while not port or port in chosen.values() or not is_free(port):
            port = free_port()
        chosen[name] = port
    write_private(path, json.dumps(chosen))
    return Place(directory, Ports(**chosen))


def is_free(port: int) -> bool:
    """Whether a server could listen at this port."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, in one step."""
    part = path.with_name(f".{path.name}.new")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
