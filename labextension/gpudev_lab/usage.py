"""Signs that somebody uses a terminal, read from /proc: not for the event loop.

Printing is no sign: `watch nvidia-smi` prints for ever, and so do our own warnings.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psutil

from gpudev_client.processes import variable

#: The share of a processor's core from which on something works.
WORKING = 0.2
_TERMINALS = Path("/dev/pts")


def tree(pid: int) -> set[psutil.Process]:
    """A process with all that it has started; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return {root, *root.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def marked(name: str, value: str) -> set[psutil.Process]:
    """All processes that have this variable in their environment, whoever's children they are."""
    return {one for one in psutil.process_iter() if variable(one.pid, name) == value}


def processor_time(processes: Iterable[psutil.Process]) -> float:
    """Seconds of processor time of these processes and of their ended children."""
    spent = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended meanwhile: what it spent is in its parent's children
        spent += times.user + times.system + times.children_user + times.children_system
    return spent


def typed(processes: Iterable[psutil.Process]) -> dict[str, datetime]:
    """The terminals of these processes, each with when somebody last typed there: whoever reads a
    terminal changes its time of access."""
    found = {}
    for process in processes:
        try:
            path = Path(f"/proc/{process.pid}/fd/0").resolve()
            if path.parent == _TERMINALS and path.name.isdecimal():
                found[path.name] = datetime.fromtimestamp(path.stat().st_atime, UTC)
        except OSError:
            continue  # it ended meanwhile
    return found
