"""Processes that go on without their first thread.

Linux shows such a process as a zombie, without an environment, while its other threads run on and
hold its memory, ports and GPUs. A program may end its first thread at will, and what is killed is
like that for a moment: whoever takes zombies for ended gives its GPUs away too early, or for ever
overlooks it. Service and Hub meet here, as both look for the processes of a reservation.
"""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")
#: States of a thread that has ended.
_ENDED = frozenset("ZXx")


def goes_on(pid: int) -> bool:
    """Whether any thread of the process has not ended; False where there is none, or no `/proc`."""
    return _thread(pid) is not None


def variable(pid: int, name: str) -> str | None:
    """What the process has as `name` in its environment, by any thread that has not ended.

    None where it has no such thread or no such variable, and where it is another account's, whose
    environment nobody else may see.
    """
    thread = _thread(pid)
    if thread is None:
        return None
    try:
        pairs = (thread / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # ended meanwhile, or another account's
    start = name.encode() + b"="
    found = next((pair for pair in pairs if pair.startswith(start)), None)
    return None if found is None else found.removeprefix(start).decode(errors="replace")


def _thread(pid: int) -> Path | None:
    """The directory of a thread that has not ended: mostly the first."""
    threads = _PROC / str(pid) / "task"
    first = threads / str(pid)
    if _runs(first):
        return first
    try:
        return next(filter(_runs, threads.iterdir()), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _runs(thread: Path) -> bool:
    try:
        said = (thread / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return said.rpartition(")")[2].split()[0] not in _ENDED
