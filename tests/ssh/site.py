"""A proxy, and behind it a Jupyter server with SSH; and the real `ssh` as people use it.

site.ssh("true")                 runs `ssh HOST true` by our ProxyCommand
site.control(people={...})       what the service says now
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.client.models import ID
from tests.fixtures.hub import PATIENCE, _end_with_parent, _free_ports
from tests.tiers import ROOT

from .child import OWNER

HOST = f"gpudev-{ID}"
PROXY = ROOT / "gpudev_client" / "ssh"


class Person:
    """Somebody with a key pair, a token, and an SSH configuration of their own."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.token = secrets.token_hex(16)
        self.folder = site.home / f"laptop-{name}"
        self.folder.mkdir(mode=0o700)
        self.config = self.folder / "config.json"
        self.config.touch(mode=0o600)
        tokens = {site.service: self.token}
        self.config.write_text(json.dumps({"format": 1, "url": site.service, "tokens": tokens}))
        self.key = self.folder / "id"
        self.new_key(self.key)

    @staticmethod
    def new_key(path: Path) -> str:
        """Makes a key pair; the public one."""
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "t", "-f", str(path)]
        subprocess.run(command, check=True)
        return path.with_suffix(".pub").read_text().rsplit(" ", 1)[0]

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().rsplit(" ", 1)[0]

    @property
    def entry(self) -> dict[str, Any]:
        return {"token": self.token, "keys": [self.public_key]}

    def options(self, *, fdpass: bool = True, host: str = HOST) -> list[str]:
        """What our SSH configuration says, as options."""
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
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SSH_", "GPUDEV_"))}
        return {**kept, "HOME": str(self.folder)}

    def command(self, *arguments: str, fdpass: bool = True, host: str = HOST) -> list[str]:
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
        code = "from gpudev_client.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            input=stdin,
            capture_output=True,
            env={
                **self.environment,
                "GPUDEV_CONFIG": str(self.config),
                "PYTHONPATH": str(ROOT),
                **environment,
            },
            timeout=timeout,
            check=False,
        )

    def ssh(
        self,
        *arguments: str,
        fdpass: bool = True,
        frames: bool = False,
        host: str = HOST,
        stdin: bytes = b"",
        timeout: float = 60.0,
        options: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs `ssh`; `arguments` come after the host."""
        environment = {**self.environment, **({"GPUDEV_SSH_FRAMES": "1"} if frames else {})}
        return subprocess.run(
            self.command(*options, host, *arguments, fdpass=fdpass, host=host),
            input=stdin,
            capture_output=True,
            env=environment,
            timeout=timeout,
            check=False,
        )


class Site:
    """One server behind one proxy."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="gpudev-ssh-site-"))
        self.disk = self.home / "disk"
        self.disk.mkdir(mode=0o700)
        self.public, self.api, self.port = _free_ports(3)
        self.url = f"http://127.0.0.1:{self.public}"
        self.service = f"{self.url}/services/gpudev"
        self.base = f"/user/{OWNER}/{ID}"
        self.server_token = secrets.token_hex(16)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.http = httpx.Client(trust_env=False, timeout=30.0)
        self.people: dict[str, Person] = {}

    def start(self) -> None:
        self.start_proxy()
        self.start_server()

    def start_proxy(self) -> None:
        program = shutil.which("configurable-http-proxy")
        assert program is not None
        command = [
            program, "--ip=127.0.0.1", f"--port={self.public}", "--api-ip=127.0.0.1",
            f"--api-port={self.api}", f"--default-target=http://127.0.0.1:{self.port}",
        ]  # fmt: skip
        self._launch("proxy", command, {"CONFIGPROXY_AUTH_TOKEN": "unused"})

    def start_server(self, **environment: str) -> None:
        command = [sys.executable, "-m", "tests.ssh.child", str(self.port), self.server_token]
        own = {
            "HOME": str(self.disk),
            "SHELL": "/bin/bash",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "labextension")]),
            "SSH_TEST_PUBLIC": self.url,
            "GPUDEV_RESERVATION": ID,
            "CUDA_VISIBLE_DEVICES": "0,1",
            "JUPYTER_RUNTIME_DIR": str(self.home / "runtime"),
            **environment,
        }
        self._launch("server", command, own)
        self.until(self._answers, "the server answers")

    def end(self, part: str, how: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(part)
        process.send_signal(how)
        process.wait(20)

    def remove(self) -> None:
        for part in list(self.processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.end(part)
        self.http.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def person(self, name: str) -> Person:
        if name not in self.people:
            self.people[name] = Person(self, name)
        return self.people[name]

    def admit(self, *people: Person, **more: Any) -> None:
        """These may come in, with their first key, and nobody else."""
        self.control(people={one.name: one.entry for one in people}, **more)
        self.until(lambda: self.state()["published"], "the host key is published")

    def control(self, **values: Any) -> None:
        address = f"http://127.0.0.1:{self.port}/control"
        self.http.post(address, json=values).raise_for_status()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"http://127.0.0.1:{self.port}/control").json()
        return found

    def log(self, part: str = "server") -> str:
        return (self.home / f"{part}.log").read_text(errors="replace")

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """Waits for something that happens in other processes."""
        deadline = time.monotonic() + patience
        while not (found := condition()):
            for part, process in self.processes.items():
                assert process.poll() is None, f"the {part} has ended:\n{self.log(part)[-4000:]}"
            assert time.monotonic() < deadline, f"never: {what}\n{self.log()[-4000:]}"
            time.sleep(0.05)
        return found

    def _answers(self) -> bool:
        try:
            return self.http.get(f"{self.url}/control").is_success
        except httpx.TransportError:
            return False

    def _launch(self, part: str, command: list[str], extra: Mapping[str, str]) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SSH_", "GPUDEV_"))}
        with (self.home / f"{part}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                command,
                cwd=self.home,
                env={**kept, **extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - set before any thread runs
            )
