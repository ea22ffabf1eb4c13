"""The real `ssh`, and the command, as people use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.tiers import ROOT

PROXY = ROOT / "gpudev_client" / "ssh"
#: The command, before its arguments.
GPUDEV = [sys.executable, "-c", "from gpudev_client.cli import main; main()"]


class Laptop:
    """Somebody's machine: a key pair, a token of theirs, an SSH configuration of their own.

    Args:
        folder: the home directory, which is made.
        service: the service's address.
        token: theirs.
        host: the reservation that is meant where no other is named.
    """

    def __init__(self, folder: Path, service: str, token: str, host: str) -> None:
        self.folder, self.service, self.host = folder, service, host
        #: More variables for every program.
        self.extra: dict[str, str] = {}
        self.folder.mkdir(mode=0o700)
        self.config = self.folder / "config.json"
        self.config.touch(mode=0o600)
        self.log_in(token)
        self.key = self.folder / "id"
        self.new_key(self.key)

    def log_in(self, token: str) -> None:
        """What `gpu-dev login` leaves behind."""
        self.token = token
        tokens = {self.service: token}
        self.config.write_text(json.dumps({"format": 1, "url": self.service, "tokens": tokens}))

    @staticmethod
    def new_key(path: Path) -> str:
        """Makes a key pair; the public one."""
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "t", "-f", str(path)]
        subprocess.run(command, check=True)
        return path.with_suffix(".pub").read_text().rsplit(" ", 1)[0]

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().rsplit(" ", 1)[0]

    def options(self, *, fdpass: bool = True, host: str | None = None) -> list[str]:
        """What our SSH configuration says, as options."""
        host = host or self.host
        flag = " --fdpass" if fdpass else ""
        command = f"{sys.executable} -I -S {PROXY} --config {self.config}{flag} {host}"
        known = self.folder / "ssh" / "known_hosts.d" / host
        return [
            "-F", "none",
            "-o", f"ProxyCommand={command}",
            "-o", f"ProxyUseFdpass={'yes' if fdpass else 'no'}",
            "-o", f"UserKnownHostsFile={known}",
            "-o", "GlobalKnownHostsFile=none",
            "-o", "StrictHostKeyChecking=yes",
            "-o", "UpdateHostKeys=no",
            "-o", "BatchMode=yes",
            "-o", "IdentitiesOnly=yes",
            "-o", f"IdentityFile={self.key}",
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not (k.startswith(("SSH_", "GPUDEV_")) or k.lower().endswith("_proxy"))
        }
        return {**kept, "HOME": str(self.folder), **self.extra}

    def command(self, *arguments: str, fdpass: bool = True, host: str | None = None) -> list[str]:
        return ["ssh", *self.options(fdpass=fdpass, host=host), *arguments]

    def run(
        self, *command: str, stdin: bytes = b"", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a program on this person's machine."""
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env=self.environment,
            timeout=timeout,
            check=False,
        )

    def gpudev(
        self, *arguments: str, stdin: bytes = b"", timeout: float = 60.0, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs the command as this person does."""
        return subprocess.run(
            [*GPUDEV, *arguments],
            input=stdin,
            capture_output=True,
            env=self.gpudev_environment(**environment),
            timeout=timeout,
            check=False,
        )

    def gpudev_environment(self, **more: str) -> dict[str, str]:
        """What the command finds this person's login by."""
        own = {"GPUDEV_CONFIG": str(self.config), "PYTHONPATH": str(ROOT)}
        return {**self.environment, **own, **more}

    def ssh(
        self,
        *arguments: str,
        fdpass: bool = True,
        frames: bool = False,
        host: str | None = None,
        stdin: bytes = b"",
        timeout: float = 60.0,
        options: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs `ssh`; `arguments` come after the host."""
        host = host or self.host
        environment = {**self.environment, **({"GPUDEV_SSH_FRAMES": "1"} if frames else {})}
        return subprocess.run(
            self.command(*options, host, *arguments, fdpass=fdpass, host=host),
            input=stdin,
            capture_output=True,
            env=environment,
            timeout=timeout,
            check=False,
        )
