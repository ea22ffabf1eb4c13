"""Long file work in threads: bounded, cancellable, with progress in the event loop."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gpudev_service.disks.base import Progress

T = TypeVar("T")


class WorkCancelled(Exception):  # noqa: N818 - not an error: it only unwinds the thread
    """Raised inside the thread after the caller was cancelled."""


class Watch:
    """What a thread and the caller that waits for it share."""

    def __init__(
        self,
        progress: Progress | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        every_seconds: float = 0.0,
    ) -> None:
        self._cancelled = threading.Event()
        self._progress = progress
        self._loop = loop
        self._every_seconds = every_seconds
        self._next = time.monotonic() + every_seconds
        self._reported = (0, 0)

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        """Called in the thread between files; raises WorkCancelled."""
        if self._cancelled.is_set():
            raise WorkCancelled

    def report(self, files: int, size_bytes: int, *, last: bool = False) -> None:
        """Called in the thread; hands on at most one report per interval, and always the last."""
        if self._progress is None or self._loop is None:
            return
        if not last and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every_seconds
        # A file that changed while it was read is read again; what was told stays told.
        self._reported = (files, max(size_bytes, self._reported[1]))
        # The loop may be closed only if nobody waits for the work any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._progress, *self._reported)


class Workers:
    """Threads for long file work, apart from those that short calls share.

    A storm of snapshots at the end of many leases waits here, and delays no listing.
    """

    def __init__(self, at_once: int, progress_seconds: float) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="disks")
        self._progress_seconds = progress_seconds

    async def run(self, work: Callable[[Watch], T], progress: Progress | None = None) -> T:
        """Run `work` in a thread. If the caller is cancelled, waits for the thread to give up."""
        watch = Watch(progress, asyncio.get_running_loop(), self._progress_seconds)
        running = self._threads.submit(work, watch)
        waited = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(waited)
        except asyncio.CancelledError:
            watch.cancel()
            if not running.cancel():
                # Who is told that the work has ended must be able to begin anew at once.
                await asyncio.wait([waited])
                if not waited.cancelled():
                    waited.exception()
            raise

    def close(self) -> None:
        """Wait for the work that runs; what has not begun never will."""
        self._threads.shutdown(cancel_futures=True)
