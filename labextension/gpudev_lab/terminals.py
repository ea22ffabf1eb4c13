"""Warnings in the open terminals of this server, where the service cannot reach them: in a pod.

On a single machine the service writes into the terminals itself (`gpudev_service.servers.local`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from gpudev_client.models import Event

log = logging.getLogger(__name__)

#: The variable that says that this server is a pod.
IN_POD = "GPUDEV_POD"
#: Events whose sentence people have to see wherever they look.
_SHOWN = frozenset({"warning", "idle"})
_TERMINALS = Path("/dev/pts")


class Terminals:
    """Shows what the service warns of.

    Args:
        folder: where the terminals of this server are; in a pod there are no others.
    """

    def __init__(self, folder: Path = _TERMINALS) -> None:
        self._folder = folder

    async def hear(self, event: Event) -> None:
        """Takes in one event of the reservation."""
        if event.kind in _SHOWN:
            reached = await asyncio.to_thread(tell, event.message, self._folder)
            log.info("a warning was shown in %d terminals", reached)


def terminals_of(environment: Mapping[str, str]) -> Terminals | None:
    """None where the service writes into the terminals itself."""
    return Terminals() if environment.get(IN_POD) else None


def tell(text: str, folder: Path = _TERMINALS) -> int:
    """Writes `text` into every open terminal; how many it reached."""
    line = "".join(c for c in text if c.isprintable())
    found = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return sum(_write(path, f"\r\n\a[gpudev] {line}\r\n") for path in found)


def _write(path: Path, text: str) -> bool:
    """Without ever waiting for a reader; False where it would have to."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False  # closed meanwhile
    try:
        if not stat.S_ISCHR(os.fstat(handle).st_mode):
            return False
        return os.write(handle, text.encode()) > 0
    except OSError:
        return False
    finally:
        os.close(handle)
