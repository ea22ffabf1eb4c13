"""Servers as processes of this machine, under the Hub's own account.

There is no isolation between people here: the mode is for one workstation and for trying gpudev
out. Each server sees its own GPUs by `CUDA_VISIBLE_DEVICES` and lives in its disk's directory.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from jupyterhub.spawner import LocalProcessSpawner
from traitlets import Float, Unicode

from gpudev_client import processes
from gpudev_client.ids import MARK
from gpudev_client.models import ServerLaunch

from .failures import ServerDied
from .mixin import GpuDevMixin

#: The variable by which every process of a reservation's server is known.

#: Seconds by which two readings of one process's creation time may differ.
_SAME = 1.0


class GpuDevLocalSpawner(GpuDevMixin, LocalProcessSpawner):
    """Reservations whose servers are local processes."""

    log_dir = Unicode(
        help="""Directory for the servers' output, one file per reservation, readable by the Hub's
        account only. Empty: they write to the Hub's own output."""
    ).tag(config=True)

    created = Float(
        0.0,
        help="When the server's process was created, in seconds since 1970; with its id, it "
        "tells the process from a later one that has the same id.",
    )

    _home: str | None = None

    def make_preexec_fn(self, name: str) -> None:
        """Servers keep the Hub's account: nothing to do between fork and exec."""
        return

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """`USER` is the Hub user's name; there needs to be no such account on the machine."""
        env["USER"] = self.user.name
        env["HOME"] = self._home or os.environ.get("HOME", "/")
        env["SHELL"] = os.environ.get("SHELL", "/bin/bash")
        return env

    def get_args(self) -> list[str]:
        """The Hub's arguments; where the Hub runs as root its servers do, and must be let."""
        args: list[str] = super().get_args()
        return [*args, "--allow-root"] if os.geteuid() == 0 else args

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """The servers run under the account that owns the certificates."""
        return paths

    async def apply_launch(self, launch: ServerLaunch) -> None:
        self._home = launch.home
        # JupyterLab shows the directory that it is started in.
        self.popen_kwargs = {**self.popen_kwargs, "cwd": launch.home}
        await asyncio.to_thread(_end_leftovers, launch.reservation.id)
        # A port that an earlier start of this object used may be somebody else's by now.
        self.port = 0

    async def _start_server(self, reservation_id: str) -> Any:
        # One file per reservation, so that what one person's server says is not in another's.
        output = _open_log(Path(self.log_dir) / f"{reservation_id}.log") if self.log_dir else None
        self.popen_kwargs = {"stdout": output, "stderr": output}
        try:
            return await super()._start_server(reservation_id)
        finally:
            self.popen_kwargs = {}
            if output is not None:
                os.close(output)

    def server_handle(self) -> dict[str, str | int | float]:
        """The process id with the creation time; both are kept across restarts of the Hub."""
        try:
            self.created = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess as error:
            raise ServerDied(self.proc.wait() if self.proc is not None else 0) from error
        return {"kind": "process", "pid": self.pid, "created": self.created}

    def failure_reason(self, error: Exception) -> str | None:
        if isinstance(error, FileNotFoundError):
            return (
                f"The program that runs servers ({self.cmd[0]}) is not installed on this machine. "
                "An administrator can install JupyterLab with JupyterHub there."
            )
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "There is no space left for the server. Delete files or a disk and try again."
        return None

    async def poll(self) -> int | None:
        """None while the very process that was started runs, else its exit code (0 if unknown)."""
        if self.proc is None and self.pid and self.created and not self._same_process():
            self.clear_state()
            return 0
        status: int | None = await super().poll()
        return status

    def _same_process(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < _SAME
            return same and processes.goes_on(self.pid)
        except psutil.NoSuchProcess:
            return False

    def get_state(self) -> dict[str, Any]:
        state = super().get_state()
        if self.created:
            state["created"] = self.created
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.created = float(state.get("created", 0.0))

    def clear_state(self) -> None:
        super().clear_state()
        self.created = 0.0


def _open_log(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _end_leftovers(reservation_id: str) -> None:
    """Ends what is left of an earlier start of this reservation: a Hub that was killed between
    starting the process and remembering it cannot find it any more, and two servers must not share
    the GPUs of one lease."""
    for process in psutil.process_iter():
        try:
            if processes.variable(process.pid, MARK) == reservation_id:
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended meanwhile, or another account's
