"""The server extension: loads everything else into a Jupyter server."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.utils import url_path_join

from gpudev_client import AsyncClient
from gpudev_client.ids import MARK

from . import handlers, sshd
from .activity import Observer, Reporter
from .gpu import NvmlSource, Sampler, SimulatedSource
from .link import Link
from .overdue import Overdue
from .sshd import worker
from .state import Hint, LabState
from .terminals import IN_POD, terminals_of

#: The event of `events/lease.yaml`.
EVENT = "gpudev:lease"
_SCHEMA = Path(__file__).parent / "events" / "lease.yaml"


class LabExtension(ExtensionApp):
    """gpudev in a single-user server. Without a reservation in the environment (a Jupyter that no
    gpudev has started) the endpoints say so, and nothing else happens."""

    name = "gpudev_lab"

    state: LabState
    _ssh: Any = None
    _reporter: Reporter | None = None
    _overdue: Overdue | None = None
    _beside: subprocess.Popen[bytes] | None = None

    def initialize_settings(self) -> None:
        server: Any = self.serverapp
        server.event_logger.register_event_schema(_SCHEMA)
        base_url = server.web_app.settings["base_url"]
        self.state = LabState(
            link_from(os.environ),
            os.environ.get("JUPYTERHUB_USER", ""),
            sampler=sampler_from(os.environ),
            announce=self.announce,
            event_path=url_path_join(base_url, "api", "events", "subscribe"),
            home=Path.home(),
        )
        self.state.guard.watch(server.web_app.settings["identity_provider"])

    def initialize_handlers(self) -> None:
        self.handlers.extend(handlers.handlers(self.state))
        link = self.state.link
        if link is not None:
            terminals = terminals_of(os.environ)
            if terminals is not None:
                link.on_event = terminals.hear
                link.subscribe(lambda: terminals.look(link.view))
            if os.environ.get(IN_POD):
                self._overdue = Overdue(link)
                link.subscribe(self._overdue.update)
            ssh = self._ssh = sshd.setup(self.serverapp, link)

            async def sessions() -> list[datetime]:
                return [one.last for one in await ssh.sessions.activity()]

            observer = Observer(self.serverapp, link.reservation_id, self.state.sampler, sessions)
            self._reporter = Reporter(link, observer.look)

    def announce(self, what: Hint) -> None:
        """Tells every open page to look."""
        server: Any = self.serverapp
        server.event_logger.emit(schema_id=EVENT, data={"what": what})

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        self.state.start()
        self._beside = worker.beside(os.environ)
        if self._reporter is not None:
            self._reporter.start()

    async def stop_extension(self) -> None:
        if self._reporter is not None:
            await self._reporter.stop()
        if self._overdue is not None:
            await self._overdue.stop()
        if self._ssh is not None:
            await self._ssh.close()
        if self._beside is not None:
            self._beside.terminate()
        await self.state.stop()


def link_from(environment: os._Environ[str] | dict[str, str]) -> Link | None:
    """The connection that the environment describes; None for a server without a reservation."""
    reservation = environment.get(MARK)
    url, token = environment.get("GPUDEV_URL"), environment.get("JUPYTERHUB_API_TOKEN")
    if not (reservation and url and token):
        return None
    return Link(AsyncClient(url, token), reservation)


def sampler_from(environment: os._Environ[str] | dict[str, str]) -> Sampler | None:
    """The figures of this lease's GPUs; None for a lease without."""
    named = environment.get("CUDA_VISIBLE_DEVICES", "")
    if environment.get(IN_POD):
        # The device plugin says which they are; where it does not name them, all that are seen.
        named = environment.get("NVIDIA_VISIBLE_DEVICES", "")
        if not named.startswith(("GPU-", "MIG-")) and named != "void":
            count = int(environment.get("GPUDEV_GPUS_HERE") or 0)
            named = ",".join(str(index) for index in range(count))
    devices = [part for part in named.split(",") if part and part != "void"]
    if not environment.get(MARK) or not devices:
        return None
    if environment.get("GPUDEV_SIMULATED"):
        memory = environment.get("GPUDEV_GPU_MEMORY_GB") or "16"
        return Sampler(SimulatedSource(len(devices), int(memory)))
    return Sampler(NvmlSource(devices))
