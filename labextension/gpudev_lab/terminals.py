"""Warnings, and what has happened to the lease's pods, in the open terminals of this server, where
the service cannot reach them: in a pod.

On a single machine the service writes into the terminals itself (`gpudev_service.servers.local`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from gpudev_client.models import Event, LabView, Notice

log = logging.getLogger(__name__)

#: The variable that says that this server is a pod.
IN_POD = "GPUDEV_POD"
#: Events whose sentence people have to see wherever they look.
_SHOWN = frozenset({"warning", "idle"})
_TERMINALS = Path("/dev/pts")


class Terminals:
    """Shows what the service warns of, and what it says has happened.

    Args:
        folder: where the terminals of this server are; in a pod there are no others.
    """

    def __init__(self, folder: Path = _TERMINALS) -> None:
        self._folder = folder
        self._looked = False
        self._known: Notice | None = None
        self._telling: set[asyncio.Task[None]] = set()

    async def hear(self, event: Event) -> None:
        """Takes in one event of the reservation."""
        if event.kind in _SHOWN:
            await self._tell(event.message)

    def look(self, view: LabView | None) -> None:
        """Takes in one view of the reservation. What the first one says was before any terminal of
        this server; later the Hub may need half a minute to hear why the server is a new one."""
        if view is None:
            return
        notice, known = view.reservation.notice, self._known
        first, self._looked, self._known = not self._looked, True, notice
        if notice is None or first or (known is not None and known.at == notice.at):
            return
        task = asyncio.create_task(self._tell(notice.text))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, text: str) -> None:
        reached = await asyncio.to_thread(tell, text, self._folder)
        log.info("a sentence of the service was shown in %d terminals", reached)


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
