"""Servers as processes of this machine.

A server's processes are known by `GPUDEV_RESERVATION` in their environment, which every kernel,
terminal and job inherits; the process id alone would miss what has left the server's group, and may
belong to somebody else after a reboot. This is bookkeeping, not isolation: local servers run under
the Hub's own account.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

from gpudev_client import processes
from gpudev_client.ids import MARK
from gpudev_service.settings import STOP_BY_FORCE

from .base import Handle

log = logging.getLogger(__name__)

#: Seconds between two looks at whether a server has ended.
_ROUND = 0.1
#: The largest process id that Linux gives.
_PID_MAX = 2**22


class LocalServers:
    """Finds processes in /proc. Scans run in a thread: they read one file per process."""

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        return bool(await asyncio.to_thread(self._members, reservation_id, handle))

    async def told_gone(self, reservation_id: str) -> None:
        """Processes go without a word."""
        del reservation_id
        await asyncio.Event().wait()

    async def running(self) -> set[str]:
        return await asyncio.to_thread(lambda: {mark for _, mark in _marked()})

    async def give_up(self) -> None:
        """Nothing here can be silent: a process is there or it is not."""

    async def main_gone(self, reservation_id: str, handle: Handle | None) -> bool:
        return await asyncio.to_thread(_is_gone, handle)

    async def is_idle(self, reservation_id: str, handle: Handle | None) -> bool:
        return await asyncio.to_thread(self._is_idle, reservation_id, handle)

    async def why_gone(self, reservation_id: str) -> str | None:
        """A process that is gone leaves no word."""
        del reservation_id
        return None

    async def stop(self, reservation_id: str, handle: Handle | None, grace: float) -> bool:
        """TERM to all, KILL after `grace` seconds to what is left, in a bounded number of rounds
        since a process may start another one between the scan and the signal."""
        await asyncio.to_thread(self._signal, reservation_id, handle, signal.SIGTERM)
        for _ in range(max(1, round(grace / _ROUND))):
            if not await self.alive(reservation_id, handle):
                return True
            await asyncio.sleep(_ROUND)
        for _ in range(round(STOP_BY_FORCE / _ROUND)):
            await asyncio.to_thread(self._signal, reservation_id, handle, signal.SIGKILL)
            if not await self.alive(reservation_id, handle):
                return True
            await asyncio.sleep(_ROUND)
        return False

    async def tell(self, reservation_id: str, text: str) -> int:
        return await asyncio.to_thread(self._tell, reservation_id, text)

    def _members(self, reservation_id: str, handle: Handle | None) -> list[psutil.Process]:
        members = [process for process, mark in _marked() if mark == reservation_id]
        main = _by_handle(handle)
        if main is not None and main not in members:
            members.append(main)
        return members

    def _is_idle(self, reservation_id: str, handle: Handle | None) -> bool:
        main = _by_handle(handle)
        return main is not None and self._members(reservation_id, handle) == [main]

    def _signal(self, reservation_id: str, handle: Handle | None, number: int) -> None:
        for process in self._members(reservation_id, handle):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue  # gone meanwhile: what we wanted
            except psutil.AccessDenied:
                log.warning("no right to stop process %d of %s", process.pid, reservation_id)

    def _tell(self, reservation_id: str, text: str) -> int:
        line = "".join(c for c in text if c.isprintable())
        targets: dict[str, str] = {}
        for process in self._members(reservation_id, None):
            targets.update(_outlets(process))
        reached = 0
        for path in targets.values():
            if _write(path, f"\r\n\a[gpudev] {line}\r\n"):
                reached += 1
        return reached


def _marked() -> Iterator[tuple[psutil.Process, str]]:
    """Processes with a reservation in their environment of which a thread still runs."""
    for process in psutil.process_iter():
        if mark := processes.variable(process.pid, MARK):
            yield process, mark


def _by_handle(handle: Handle | None) -> psutil.Process | None:
    """The server's main process, if it is still that very one (same pid and creation time)."""
    named = _named(handle)
    return None if named is None else _same(*named)


def _is_gone(handle: Handle | None) -> bool:
    """Whether the handle names a process that is not there any more."""
    named = _named(handle)
    return named is not None and _same(*named) is None


def _named(handle: Handle | None) -> tuple[int, float] | None:
    """Process id and creation time in a handle; None where there are none."""
    if not handle or handle.get("kind") != "process":
        return None
    try:
        pid, created = int(handle["pid"]), float(handle["created"])
    except (KeyError, ValueError, OverflowError):
        pid = created = -1
    if not 0 < pid <= _PID_MAX:
        # A handle that says nothing must not keep a lease from ending; the mark still finds it.
        log.warning("a process handle without sense: %r", dict(handle))
        return None
    return pid, created


def _same(pid: int, created: float) -> psutil.Process | None:
    """The living process that has this id since then."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 1.0
        return process if same and processes.goes_on(pid) else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None  # gone, or another account's: not the one that was reported


def _outlets(process: psutil.Process) -> dict[str, str]:
    """Where a message to this process's user can be written, keyed so that each shows it once.

    A shell's terminal, or the captured standard output of an IPython kernel: what is written into
    that pipe appears under the notebook's cell that ran last.
    """
    base = Path(f"/proc/{process.pid}/fd")
    try:
        terminal = _terminal(process.pid)
        if terminal:
            return _open_as(base, terminal)
        if any("ipykernel" in part for part in process.cmdline()[:4]):
            out = base / "1"
            return {f"{out.stat().st_dev}:{out.stat().st_ino}": str(out)}
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return {}
    return {}


def _terminal(pid: int) -> int:
    """The device number of the process's controlling terminal, 0 without one.

    Read here because psutil looks for terminals once and never finds those that are opened later.
    Only the controlling one counts: servers may write to the terminal of whoever started the Hub.
    """
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(fields[4]) & 0xFFFFFFFF


def _open_as(base: Path, device: int) -> dict[str, str]:
    """The terminal `device`, by one of the standard streams that are open on it."""
    for stream in ("0", "1", "2"):
        try:
            found = (base / stream).stat()
        except FileNotFoundError:
            continue
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == device:
            return {f"terminal {device}": str(base / stream)}
    return {}


def _write(path: str, text: str) -> bool:
    """Writes without ever waiting for a reader; False where it would have to."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    try:
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
            return False  # a log file: nobody looks at it
        os.write(handle, text.encode())
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
