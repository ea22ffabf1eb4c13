"""Waiting, with bounds, for what controllers of the cluster do with volumes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gpudev_service.disks.base import DiskBusy, DiskFailure
from gpudev_service.disks.claims import TOUCHED, Claim, State, Taken, moment
from gpudev_service.disks.objects import Objects, Refused
from gpudev_service.disks.told import is_full, told

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Options:
    """How volumes are made, and how long is waited.

    `size_bytes`: of a disk for which nobody asked another size. `patience`: seconds for the storage
    to take or copy a snapshot; large volumes take their time. `error_patience`: for how long it may
    report errors in that, which may pass. `gone_patience`: for objects to be gone. What was not
    touched for `abandoned_after` is taken for abandoned by a process that was killed.
    """

    size_bytes: int
    storage_class: str | None = None
    snapshot_class: str | None = None
    patience: float = 3600.0
    error_patience: float = 60.0
    gone_patience: float = 120.0
    abandoned_after: timedelta = timedelta(minutes=2)
    poll: float = 1.0
    now: Callable[[], datetime] = _now


class Waiting:
    """Waits, and tells other processes meanwhile that somebody works on an object."""

    def __init__(self, objects: Objects, options: Options) -> None:
        self._objects = objects
        self._options = options
        self._working: set[str] = set()

    def works_on(self, name: str) -> bool:
        """Whether this process waits for that object."""
        return name in self._working

    async def ready(self, name: str, what: str) -> Taken:
        """A VolumeSnapshot once it is complete. Raises DiskError where it does not come about."""
        patience = _Patience(self._options, what)
        with self._at_work(name):
            while True:
                taken = await self._objects.snapshot(name)
                if taken is None or taken.deleting:
                    raise DiskFailure(f"{what} was removed meanwhile".capitalize())
                if taken.ready:
                    return taken
                await patience.pause(taken.error)
                if patience.is_to_touch():
                    await self._touch(self._objects.patch_snapshot, name)

    async def bound(self, name: str, what: str) -> Claim:
        """A claim once it has its volume. Raises DiskError where it does not come about."""
        patience = _Patience(self._options, what)
        with self._at_work(name):
            while True:
                claim = await self._objects.claim(name)
                if claim is None or claim.deleting:
                    raise DiskFailure(f"{what} was removed meanwhile".capitalize())
                if claim.bound:
                    return claim
                await patience.pause(await self._objects.trouble(name))
                if patience.is_to_touch():
                    await self._touch(self._objects.patch_claim, name)

    async def _touch(self, patch: Callable[..., Awaitable[object]], name: str) -> None:
        try:
            await patch(name, notes={TOUCHED: self._options.now().isoformat()})
        except Refused as refused:
            log.info("%s could not be marked as worked on: %s", name, refused.said)

    async def no_snapshots(self, disk_id: str) -> None:
        async def left() -> bool:
            return bool(await self._objects.snapshots(disk_id))

        await self._gone(left)

    async def no_snapshot(self, name: str) -> None:
        async def left() -> bool:
            return await self._objects.snapshot(name) is not None

        await self._gone(left)

    async def no_claims(self, disk_id: str) -> None:
        async def left() -> bool:
            return bool(await self._objects.claims(disk_id))

        await self._gone(left)

    async def _gone(self, left: Callable[[], Awaitable[bool]]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._options.gone_patience
        while await left():
            if loop.time() > until:
                raise DiskBusy(
                    "the storage has not removed it yet, or a server still uses it; this goes on"
                )
            await asyncio.sleep(self._options.poll)

    async def drop_idle_pods(self) -> int:
        """Removes pods that list a snapshot for a process that was killed."""
        dropped = 0
        for pod in await self._objects.pods(State.INDEX):
            meta = pod["metadata"]
            ended = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
            age = self._options.now() - moment(meta["creationTimestamp"])
            limit = timedelta(seconds=pod["spec"].get("activeDeadlineSeconds", 0))
            if age > (self._options.abandoned_after if ended else limit):
                await self._objects.delete_pod(meta["name"])
                dropped += 1
        return dropped

    @contextlib.contextmanager
    def _at_work(self, name: str) -> Iterator[None]:
        self._working.add(name)
        try:
            yield
        finally:
            self._working.discard(name)


class _Patience:
    """How long one wait may still last, after all that was said meanwhile."""

    def __init__(self, options: Options, what: str) -> None:
        self._options = options
        self._what = what
        self._begun = self._touched = asyncio.get_running_loop().time()
        self._since: float | None = None

    async def pause(self, error: str | None) -> None:
        """Waits a moment; raises what is to be said where that has no more sense."""
        now = asyncio.get_running_loop().time()
        if error is None:
            self._since = None
        else:
            self._since = self._since if self._since is not None else now
            if is_full(error) or now - self._since >= self._options.error_patience:
                log.warning("the storage failed with %s: %s", self._what, error)
                raise told(self._what, error)
        if now - self._begun >= self._options.patience:
            raise told(self._what, None)
        await asyncio.sleep(self._options.poll)

    def is_to_touch(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._touched < self._options.abandoned_after.total_seconds() / 4:
            return False
        self._touched = now
        return True
