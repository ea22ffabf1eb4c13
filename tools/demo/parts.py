"""The programs that a demo consists of: started, watched, and ended without leftovers."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from gpudev_client.ids import MARK as SERVER_MARK
from gpudev_client.processes import variable
from gpudev_hub_config import local

from .place import MARK, Place

TREE = Path(__file__).resolve().parents[2]
#: Seconds for all parts to answer, and for a part to end politely.
PATIENCE, GRACE = 90.0, 6.0
_PR_SET_PDEATHSIG = 1


class PartFailed(Exception):  # noqa: N818 - says what is the matter
    """A part of the demo did not start or has ended."""


class Parts:
    """The running demo."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_proxy(self) -> None:
        program = shutil.which("configurable-http-proxy", path=_path())
        if program is None:
            raise PartFailed("configurable-http-proxy is missing; `make setup` installs it.")
        command, extra = local.proxy_command(program, self.place.ports, data_dir=self.place.hub_dir)
        self._start("proxy", command, extra)

    def start_hub(self) -> None:
        config = TREE / "tools" / "demo" / "hub.py"
        command = [sys.executable, "-m", "jupyterhub", f"--config={config}"]
        self._start("hub", command, {})

    def _start(self, name: str, command: Sequence[str], extra: Mapping[str, str]) -> None:
        environment = {
            **os.environ,
            **self.place.environment,
            **extra,
            "PATH": _path(),
            "PYTHONPATH": str(TREE),
        }
        with _log(self.place, name).open("ab") as output:
            self._running[name] = subprocess.Popen(
                command,
                cwd=self.place.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is the demo's alone; it ends them in order
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - no threads here
            )

    def check(self) -> None:
        """Raises PartFailed when one of the parts has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise PartFailed(
                    f"The {name} has ended (exit code {process.returncode}). Its last lines:\n"
                    + _tail(_log(self.place, name))
                )

    def wait_for(self, what: str, url: str, good: Callable[[httpx.Response], bool]) -> None:
        """Returns when `url` answers as it should; raises PartFailed when it never does."""
        deadline = time.monotonic() + PATIENCE
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while time.monotonic() < deadline:
                self.check()
                try:
                    if good(http.get(url)):
                        return
                except httpx.HTTPError:
                    pass  # not up yet
                time.sleep(0.2)
        log = _log(self.place, "hub")
        raise PartFailed(f"{what} does not answer. Last lines of {log}:\n{_tail(log)}")

    def end(self) -> None:
        """Ends all that carries this demo's mark: proxy, Hub, service, servers and what they
        started. The servers last, or the service would take note of a crash in its last moment and
        count the time that the demo is away."""
        _end([process for process in marked(self.place) if not _is_server(process)])
        _end(marked(self.place))
        for part in self._running.values():
            part.wait()


def _end(processes: Sequence[psutil.Process]) -> None:
    """Ends them politely and all at once, after `GRACE` seconds by force."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=GRACE)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=GRACE)


def _is_server(process: psutil.Process) -> bool:
    """Whether the process belongs to somebody's server."""
    return variable(process.pid, SERVER_MARK) is not None


def marked(place: Place) -> list[psutil.Process]:
    """Everything that runs for this demo, apart from the demo itself."""
    mine = str(place.directory)
    found = (one for one in psutil.process_iter() if variable(one.pid, MARK) == mine)
    return [one for one in found if one.pid != os.getpid()]


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # what we wanted


def _end_with_parent() -> None:
    """Asks the kernel to end this part when the demo dies, whatever it dies of."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _path() -> str:
    """This tree's programs first."""
    ours = [str(Path(sys.executable).parent), str(TREE / "node_modules" / ".bin")]
    return os.pathsep.join([*ours, os.environ.get("PATH", os.defpath)])


def _log(place: Place, name: str) -> Path:
    return place.logs / f"{name}.log"


def _tail(path: Path, lines: int = 15) -> str:
    if not path.exists():
        return "(nothing)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
