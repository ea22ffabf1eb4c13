"""One service per data directory; a new one takes over from the one before.

A killed Hub leaves its service running, so that leases end on time. The restarted Hub starts a new
one, which asks the old to end, waits, and goes on. The kernel drops the lock with the process, so a
crash leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

#: Seconds for the holder to end politely, and then once more after it was killed.
PATIENCE = 15.0


class Occupied(Exception):  # noqa: N818 - says what is the matter
    """Another service has the data directory and does not end."""


class Unwritable(Exception):  # noqa: N818 - says what is the matter
    """The data directory cannot be used."""


@contextlib.contextmanager
def lock(data_dir: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Holds `service.lock` in `data_dir`.

    Raises:
        Occupied: the holder has not ended within `patience` seconds.
        Unwritable: nothing can be written there.
    """
    handle = _open(data_dir)
    try:
        if not _try(handle):
            _take_over(handle, patience)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _open(data_dir: Path) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(data_dir / "service.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        is_another = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a file is in its place" if is_another else error.strerror
        raise Unwritable(
            f"The data directory {data_dir} cannot be written: {why}. The service keeps "
            "its database and disks there."
        ) from error


def _take_over(handle: int, patience: float) -> None:
    holder = _holder(handle)
    log.info("the service with process id %s has the data directory; asking it to end", holder)
    if holder is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while not _try(handle):
        if time.monotonic() > deadline:
            raise Occupied(
                f"Another gpudev service (process {holder or 'unknown'}) uses the data directory "
                f"and did not end within {patience:g} seconds. End it, or use another directory."
            )
        time.sleep(0.05)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> int | None:
    """The process id in the file, when that process is a gpudev service: ids are used again."""
    text = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
    if not text.isdigit() or int(text) == os.getpid():
        return None
    try:
        words = psutil.Process(int(text)).cmdline()
    except psutil.Error:
        return None
    return int(text) if any("gpudev" in word for word in words) else None
