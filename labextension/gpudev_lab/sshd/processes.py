"""The processes of SSH sessions: ending them, and telling whether they are used."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import datetime

import psutil

from gpudev_client.ids import MARK
from gpudev_client.processes import variable
from gpudev_lab import usage

from . import daemon

log = logging.getLogger("gpudev_lab.sshd")

#: Seconds between asking a process to end and ending it.
GRACE = 1.0
#: Bytes that keep a connection alive, per sign of life; generously.
_SIGN = 1024


def marked_environment() -> dict[str, str]:
    """The environment of sshd itself."""
    kept = ("PATH", MARK, "LANG", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ}


def end(pid: int | None, mark: str | None, name: str = daemon.MARK) -> None:
    """Ends a session's sshd, and with it the connection, and then everything that it started. What
    belongs to another account, by sudo, cannot be ended here; nothing else waits for it.

    Args:
        pid: the session's sshd, if there is one.
        mark: also everything that was left running in this server by this person, or with this key
            of theirs.
        name: the variable that says so, `daemon.MARK` or `daemon.KEY_MARK`.
    """
    found = usage.tree(pid) if pid is not None else set()
    refused = {one for one in sorted(found, key=lambda p: p.pid != pid) if not _signal(one)}
    if mark is not None:
        more = _marked(name, mark) - found
        refused |= {one for one in more if not _signal(one)}
        found |= more
    _, left = psutil.wait_procs(list(found - refused), timeout=GRACE)
    again = set(left) | (_marked(name, mark) if mark is not None else set())
    refused |= {one for one in again - refused if not _signal(one, force=True)}
    if refused:
        told = ", ".join(str(one.pid) for one in sorted(refused, key=lambda p: p.pid))
        log.warning("belong to another account and could not be ended: %s", told)


def _marked(name: str, mark: str) -> set[psutil.Process]:
    """Those of this server alone: on one machine the same person may be in others, too."""
    own = os.environ.get(MARK)
    found = usage.marked(name, mark) - {psutil.Process()}
    return {one for one in found if own is None or variable(one.pid, MARK) == own}


def _signal(process: psutil.Process, *, force: bool = False) -> bool:
    """False where the process may not be ended by this one."""
    try:
        process.kill() if force else process.terminate()
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
    return True


@dataclass
class Meter:
    """When a connection was used last. With a terminal: when somebody typed there. Without one:
    when data moved, more than keeps it alive. In both: when what it started works."""

    _moved: int = 0
    _spent: float = 0.0
    _looked: datetime | None = None
    _last: datetime | None = None

    def last(self, pid: int, began: datetime, now: datetime) -> datetime:
        """When it was used last; data and work count from one look to the next. Not for the event
        loop."""
        members = usage.tree(pid)
        daemons = {process for process in members if _is_sshd(process)}
        moved = sum(_io(process) for process in daemons)
        spent = usage.processor_time(members - daemons)
        since = (now - (self._looked or began)).total_seconds()
        signs = (since / daemon.ALIVE + 1) * _SIGN
        terminals = usage.typed(members)
        seen = [began, self._last or began, *terminals.values()]
        transfers = not terminals and moved - self._moved > signs
        works = since > 0 and spent - self._spent >= usage.WORKING * since
        if transfers or works:
            seen.append(now)
        self._moved, self._spent, self._looked = moved, spent, now
        self._last = max(seen)
        return self._last


def _is_sshd(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("sshd")
    except psutil.NoSuchProcess:
        return False


def _io(process: psutil.Process) -> int:
    try:
        counters = process.io_counters()
        return int(counters.read_chars + counters.write_chars)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0  # gone; what it moved was seen before
