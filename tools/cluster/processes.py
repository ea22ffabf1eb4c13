"""The processes of the cluster: started detached, known by pid and start time, ended for sure."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gpudev_client.processes import goes_on, variable

from .place import ClusterError, Place, State

#: In the environment of all that the cluster starts, with the folder of its run.
MARK = "GPUDEV_CLUSTER_RUN"
_PATIENCE_S, _GRACE_S = 90.0, 10.0
_PAUSE_S = 0.05
_TAIL_LINES = 25


class PartFailed(ClusterError):  # noqa: N818 - says what is the matter
    """A part of the cluster did not start, or has ended."""


@dataclass(frozen=True)
class Part:
    """A program of the cluster: how it is started, and how one sees that it works."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


def start(place: Place, state: State, part: Part) -> None:
    """Starts the part and returns when it works.

    Raises:
        PartFailed: it ended, or did not answer in time; with the end of its log.
    """
    log = place.logs / f"{part.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = _spawn(part, log, place)
    state.started(part.name, pid, _ticks(pid) or 0)
    wait_for(part.name, part.ready, alive=lambda: _lives(pid), log=log)


def wait_for(
    what: str,
    ready: Callable[[], bool],
    *,
    alive: Callable[[], bool] = lambda: True,
    log: Path | None = None,
    patience: float = _PATIENCE_S,
) -> None:
    """Returns when it is ready; raises PartFailed when it is dead, or takes too long."""
    deadline = time.monotonic() + patience
    while not ready():
        if not alive():
            raise PartFailed(f"{what} has ended. {tail(log)}")
        if time.monotonic() > deadline:
            raise PartFailed(f"{what} was not ready after {patience:.0f} s. {tail(log)}")
        time.sleep(_PAUSE_S)


def stop(
    state: State, name: str, how: signal.Signals = signal.SIGTERM, grace: float = _GRACE_S
) -> None:
    """Ends the part, by force when it takes longer than its grace; one that is gone is fine."""
    pid, ticks = state.parts.get(name, (0, 0))
    if not pid or _ticks(pid) != ticks:
        return
    for number in (how, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if _ended(pid, grace):
            return
    raise ClusterError(f"{name} (process {pid}) does not end, not even when it is killed.")


def is_running(state: State, name: str) -> bool:
    """Whether the part's process is there."""
    pid, ticks = state.parts.get(name, (0, 0))
    return bool(pid) and _ticks(pid) == ticks and _lives(pid)


def marked(place: Place) -> list[psutil.Process]:
    """All living processes that carry this cluster's mark, whoever started them."""
    mine = str(place.run)
    return [one for one in psutil.process_iter() if variable(one.pid, MARK) == mine]


def kill(processes: list[psutil.Process]) -> None:
    """Kills them and waits until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=_GRACE_S)


def tail(log: Path | None) -> str:
    """The end of a log, for people."""
    if log is None or not log.exists():
        return "It left no log."
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return f"The end of {log.name}:\n" + "\n".join(f"  {line[:300]}" for line in lines)


def _spawn(part: Part, log: Path, place: Place) -> int:
    # No Popen: it wants to see the end of its child, and these outlive whoever starts them.
    output = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.posix_spawn(
        part.command[0],
        part.command,
        {**os.environ, **part.environment, MARK: str(place.run)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            output,
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _ticks(pid: int) -> int | None:
    """When the process began, as the kernel counts it; None without such a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])


def _lives(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # another process started it
        os.waitpid(pid, os.WNOHANG)  # our own child would stay as a zombie
    # One whose first thread has ended still has its ports, until the last one has.
    return goes_on(pid)


def _ended(pid: int, grace: float) -> bool:
    deadline = time.monotonic() + grace
    while _lives(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True
