"""A proxy, and behind it a Jupyter server with SSH; and the real `ssh` as people use it.

site.ssh("true")                 runs `ssh HOST true` by our ProxyCommand
site.control(people={...})       what the service says now
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from gpudev_client.ids import MARK, new_id
from tests.fixtures.certificates import self_signed
from tests.fixtures.hub import PATIENCE, _end_with_parent
from tests.fixtures.processes import kill_all
from tests.tiers import ROOT
from tools.ports import free_ports

from .child import OWNER
from .laptop import Laptop

#: The reservation; of this test process alone: what a server ends it knows by this name, among all
#: processes of the machine.
ID = new_id()
HOST = f"gpudev-{ID}"


class Person(Laptop):
    """Somebody whom a site knows."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        super().__init__(site.home / f"laptop-{name}", site.service, secrets.token_hex(16), HOST)

    @property
    def entry(self) -> dict[str, Any]:
        return {"token": self.token, "keys": [self.public_key]}


class Site:
    """One server behind one proxy."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="gpudev-ssh-site-"))
        self.disk = self.home / "disk"
        self.disk.mkdir(mode=0o700)
        self.public, self.api, self.port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.public}"
        #: The server without the proxy.
        self.local = f"http://127.0.0.1:{self.port}"
        self.service = f"{self.url}/services/gpudev"
        self.base = f"/user/{OWNER}/{ID}"
        self.server_token = secrets.token_hex(16)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.proxy_options: list[str] = []
        self.http = self._http()
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
            *self.proxy_options,
        ]  # fmt: skip
        self._launch("proxy", command, {"CONFIGPROXY_AUTH_TOKEN": "unused"})

    def start_server(self, **environment: str) -> None:
        command = [sys.executable, "-m", "tests.ssh.child", str(self.port), self.server_token]
        own = {
            "HOME": str(self.disk),
            "SHELL": "/bin/bash",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "labextension")]),
            "SSH_TEST_PUBLIC": self.url,
            "SSH_TEST_BASE": self.base,
            MARK: ID,
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
        # What sessions have left running.
        kill_all("HOME", str(self.disk))
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
        address = f"{self.local}/control"
        self.http.post(address, json=values).raise_for_status()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"{self.local}/control").json()
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

    @staticmethod
    def _http(certificate: str | None = None) -> httpx.Client:
        verify = ssl.create_default_context(cafile=certificate) if certificate else True
        return httpx.Client(trust_env=False, timeout=30.0, verify=verify)

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


class TlsSite(Site):
    """A site with a certificate of its own.

    Args:
        inside: the server speaks TLS too, and is reached without a proxy, as a proxy reaches it
            where the Hub has `internal_ssl`.
    """

    def __init__(self, *, inside: bool = False) -> None:
        super().__init__()
        self.inside = inside
        self.certificate, self.private = self_signed(self.home, "IP:127.0.0.1")
        self.proxy_options = [f"--ssl-key={self.private}", f"--ssl-cert={self.certificate}"]
        self.url = f"https://127.0.0.1:{self.port if inside else self.public}"
        self.local = f"https://127.0.0.1:{self.port}" if inside else self.local
        self.service = f"{self.url}/services/gpudev"
        self.http.close()
        self.http = self._http(str(self.certificate))

    def start(self) -> None:
        if not self.inside:
            self.start_proxy()
        self.start_server()

    def start_server(self, **environment: str) -> None:
        own = {"SSH_TEST_KEY": str(self.private), "SSH_TEST_CERT": str(self.certificate)}
        super().start_server(**{**(own if self.inside else {}), **environment})

    def person(self, name: str) -> Person:
        found = super().person(name)
        found.extra = {"SSL_CERT_FILE": str(self.certificate)}
        return found
