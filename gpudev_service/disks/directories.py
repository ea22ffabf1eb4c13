"""Disks as directories of one file system of this machine."""

import asyncio
import contextlib
import dataclasses
import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from gpudev_service.disks import descriptions, listing, storage
from gpudev_service.disks.base import (
    CleanUp,
    CopyInfo,
    DiskBusy,
    DiskFailure,
    DiskFull,
    DiskNotFound,
    Entry,
    Listing,
    Progress,
    SnapshotExists,
    SnapshotInfo,
    Usage,
)
from gpudev_service.disks.copying import Tally, TreeCopy
from gpudev_service.disks.reach import Reach
from gpudev_service.disks.steps import OnStep, Step, nothing_listens
from gpudev_service.disks.storage import (
    DiskPlace,
    Hold,
    SnapshotPlace,
    Storage,
    held,
    sync_directory,
    sync_file_system,
)
from gpudev_service.disks.trees import remove_tree
from gpudev_service.disks.work import Watch, Workers

T = TypeVar("T")
log = logging.getLogger(__name__)


class DirectoryDisks:
    """A `DiskBackend` below the directory `root`, which is made if it is not there.

    At most `copies_at_once` long calls work at the same time, the others wait. Progress is told
    every `progress_seconds` at most. A directory cannot refuse a write: limits are soft. Homes
    belong to the account of the service; where servers run under other accounts, the caller sets
    the owner of a new home (root keeps owners in copies).
    """

    takes_sizes = False

    def __init__(
        self,
        root: Path,
        *,
        copies_at_once: int = 4,
        progress_seconds: float = 0.5,
        on_step: OnStep = nothing_listens,
    ) -> None:
        self._storage = Storage(root.absolute())
        self._storage.prepare()
        self._workers = Workers(copies_at_once, progress_seconds)
        self._on_step = on_step

    def close(self) -> None:
        """End the threads, after the work that they are doing."""
        self._workers.close()

    # --- the seam; what each call promises stands in `base.DiskBackend` ---------------------------

    def path(self, disk_id: str) -> Path:
        return self._storage.disk(disk_id).home

    async def size_gb(self, disk_id: str) -> int | None:
        return None

    async def require_snapshots(self) -> None:
        """A directory can always be copied."""

    async def exists(self, disk_id: str) -> bool:
        return await asyncio.to_thread(self._storage.disk(disk_id).top.is_dir)

    async def create(self, disk_id: str, size_gb: int | None = None) -> None:
        disk = self._storage.disk(disk_id)
        await self._short(lambda: self._create(disk))

    async def resize(self, disk_id: str, size_gb: int) -> None:
        raise DiskFailure("a directory has no size of its own")

    async def claim(self, disk_id: str) -> str | None:
        return None

    async def reach(self, disk_id: str) -> Reach | None:
        return None

    async def index(self, disk_id: str, snapshot_id: str) -> SnapshotInfo | None:
        return None  # its files can be looked at

    async def purge(self, disk_id: str) -> None:
        disk = self._storage.disk(disk_id)
        await self._long(lambda watch: self._purge(disk, watch))

    async def snapshot(
        self, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> SnapshotInfo:
        disk, snapshot = self._snapshot_place(disk_id, snapshot_id)
        return await self._long(lambda watch: self._snapshot(disk, snapshot, watch), progress)

    async def snapshots(self, disk_id: str) -> Sequence[SnapshotInfo]:
        disk = self._storage.disk(disk_id)
        return await self._short(lambda: [info for _, _, info in descriptions.descriptions(disk)])

    async def delete_snapshot(self, disk_id: str, snapshot_id: str) -> None:
        disk, snapshot = self._snapshot_place(disk_id, snapshot_id)
        await self._long(lambda watch: self._delete_snapshot(disk, snapshot, watch))

    async def clone(
        self,
        disk_id: str,
        new_disk_id: str,
        snapshot_id: str | None = None,
        progress: Progress | None = None,
    ) -> CopyInfo:
        source, new = self._storage.disk(disk_id), self._storage.disk(new_disk_id)
        snapshot = None if snapshot_id is None else source.snapshot(snapshot_id)
        return await self._long(lambda watch: self._clone(source, new, snapshot, watch), progress)

    async def restore(
        self, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> CopyInfo:
        disk, snapshot = self._snapshot_place(disk_id, snapshot_id)
        return await self._long(lambda watch: self._restore(disk, snapshot, watch), progress)

    async def contents(
        self,
        disk_id: str,
        snapshot_id: str | None = None,
        path: str = "",
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Listing:
        disk = self._storage.disk(disk_id)
        snapshot = None if snapshot_id is None else disk.snapshot(snapshot_id)
        entries, more = await self._short(lambda: _contents(disk, snapshot, path, limit, cursor))
        return Listing(entries, more)

    async def usage(self, disk_id: str) -> Usage:
        disk = self._storage.disk(disk_id)

        def measure(watch: Watch) -> Usage:
            with _still_there(disk):
                return listing.measure(disk.home, watch.check)

        return await self._long(measure)

    async def clean_up(self) -> CleanUp:
        return await self._long(self._clean_up)

    # --- in a thread --------------------------------------------------------------------------

    def _snapshot_place(self, disk_id: str, snapshot_id: str) -> tuple[DiskPlace, SnapshotPlace]:
        disk = self._storage.disk(disk_id)
        return disk, disk.snapshot(snapshot_id)

    async def _short(self, work: Callable[[], T]) -> T:
        with _told_plainly():
            return await asyncio.to_thread(work)

    async def _long(self, work: Callable[[Watch], T], progress: Progress | None = None) -> T:
        with _told_plainly():
            return await self._workers.run(work, progress)

    def _create(self, disk: DiskPlace) -> None:
        with self._storage.staged() as stage:
            new = DiskPlace(stage.item)
            new.furnish()
            new.home.mkdir(0o700)
            self._on_step(Step.CREATE_STAGED)
            self._publish_disk(new, disk)
            self._on_step(Step.CREATE_PUBLISHED)

    def _publish_disk(self, new: DiskPlace, disk: DiskPlace) -> None:
        try:
            new.top.rename(disk.top)
        except OSError as error:
            # A directory that is there takes no other's place unless it is empty, and no disk is.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise storage.disk_exists() from None
            raise
        sync_directory(self._storage.disks)

    def _purge(self, disk: DiskPlace, watch: Watch) -> None:
        with held(disk.lock, Hold.EXCLUSIVE, storage.no_disk):
            aside = self._storage.set_aside(disk.top)
            self._on_step(Step.PURGE_SET_ASIDE)
        self._discard(aside, watch)

    def _snapshot(self, disk: DiskPlace, snapshot: SnapshotPlace, watch: Watch) -> SnapshotInfo:
        with contextlib.ExitStack() as stack:
            stack.enter_context(held(disk.lock, Hold.SHARED, storage.no_disk))
            stack.enter_context(held(disk.snapshots_lock, Hold.EXCLUSIVE, storage.no_disk))
            if snapshot.top.exists():
                raise SnapshotExists("the snapshot is already there")
            base, sequence = descriptions.newest(disk, stack)
            stage = stack.enter_context(self._storage.staged())
            self._on_step(Step.SNAPSHOT_STAGED)
            # Not for durability: from here on every store into a mapped page stamps its file anew.
            sync_file_system(self._storage.root)
            new = SnapshotPlace(stage.item)
            new.top.mkdir(0o700)
            taken_at = datetime.now(UTC)
            tally = TreeCopy(
                disk.home,
                new.tree,
                watch=watch,
                on_step=self._on_step,
                base=None if base is None else base.tree,
                clock_ns=stage.clock_ns,
            ).run()
            self._on_step(Step.SNAPSHOT_COPIED)
            info = SnapshotInfo(id=snapshot.top.name, taken_at=taken_at, **_counts(tally))
            descriptions.describe(new, sequence, info)
            self._on_step(Step.SNAPSHOT_DESCRIBED)
            sync_file_system(self._storage.root)
            self._on_step(Step.SNAPSHOT_SYNCED)
            new.top.rename(snapshot.top)
            self._on_step(Step.SNAPSHOT_PUBLISHED)
            sync_directory(disk.snapshots)
            return info

    def _delete_snapshot(self, disk: DiskPlace, snapshot: SnapshotPlace, watch: Watch) -> None:
        with (
            held(disk.lock, Hold.SHARED, storage.no_disk),
            held(snapshot.info, Hold.EXCLUSIVE, storage.no_snapshot),
        ):
            aside = self._storage.set_aside(snapshot.top)
            self._on_step(Step.DELETE_SET_ASIDE)
        self._discard(aside, watch)

    def _clone(
        self, source: DiskPlace, new: DiskPlace, snapshot: SnapshotPlace | None, watch: Watch
    ) -> CopyInfo:
        with contextlib.ExitStack() as stack:
            stack.enter_context(held(source.lock, Hold.SHARED, storage.no_disk))
            if snapshot is not None:
                stack.enter_context(held(snapshot.info, Hold.SHARED, storage.no_snapshot))
            if new.top.exists():
                raise storage.disk_exists()
            staged = DiskPlace(stack.enter_context(self._storage.staged()).item)
            staged.furnish()
            self._on_step(Step.CLONE_STAGED)
            tree = source.home if snapshot is None else snapshot.tree
            tally = TreeCopy(tree, staged.home, watch=watch, on_step=self._on_step).run()
            self._on_step(Step.CLONE_COPIED)
            sync_file_system(self._storage.root)
            self._publish_disk(staged, new)
            self._on_step(Step.CLONE_PUBLISHED)
            return _copy_info(tally)

    def _restore(self, disk: DiskPlace, snapshot: SnapshotPlace, watch: Watch) -> CopyInfo:
        with contextlib.ExitStack() as stack:
            stack.enter_context(held(disk.lock, Hold.EXCLUSIVE, storage.no_disk))
            stack.enter_context(held(snapshot.info, Hold.SHARED, storage.no_snapshot))
            self._settle(disk)
            stage = stack.enter_context(self._storage.staged())
            self._on_step(Step.RESTORE_STAGED)
            tally = TreeCopy(snapshot.tree, stage.item, watch=watch, on_step=self._on_step).run()
            self._on_step(Step.RESTORE_COPIED)
            sync_file_system(self._storage.root)
            stage.item.rename(disk.incoming)
            sync_directory(disk.top)
            self._on_step(Step.RESTORE_INCOMING)
            # Without write permission a directory cannot be moved elsewhere, and its owner may
            # have taken that away.
            disk.home.chmod(0o700)
            aside = self._storage.set_aside(disk.home)
            self._on_step(Step.RESTORE_SET_ASIDE)
            self._settle(disk)
            self._on_step(Step.RESTORE_PUBLISHED)
        self._discard(aside, watch)
        return _copy_info(tally)

    def _settle(self, disk: DiskPlace) -> bool:
        """Leave a disk, held exclusively, with the old or the new state after a crash in a
        restoration; whether it was the new one.

        A complete new state whose predecessor is still in place is dropped: nobody was told that
        the restoration had happened.
        """
        if not disk.incoming.exists():
            return False
        if disk.home.exists():
            self._storage.set_aside(disk.incoming)
            return False
        disk.incoming.rename(disk.home)
        sync_directory(disk.top)
        return True

    def _discard(self, aside: Path, watch: Watch) -> None:
        """Remove what is out of sight already. If that fails, the next `clean_up` goes on."""
        try:
            remove_tree(aside, watch.check, lambda: self._on_step(Step.DIRECTORY_REMOVED))
        except OSError:
            log.warning("Could not remove %s; it stays for the next clean-up", aside, exc_info=True)

    def _clean_up(self, watch: Watch) -> CleanUp:
        restored = 0
        for top in sorted(self._storage.disks.iterdir()):
            disk = DiskPlace(top)
            if not disk.incoming.exists():
                continue
            # Busy: another process is in the middle of it. Not found: purged this moment.
            with (
                contextlib.suppress(DiskBusy, DiskNotFound),
                held(disk.lock, Hold.EXCLUSIVE, storage.no_disk),
            ):
                restored += self._settle(disk)
        self._storage.abandon()
        abandoned = sorted(self._storage.trash.iterdir())
        for aside in abandoned:
            self._discard(aside, watch)
        return CleanUp(abandoned=len(abandoned), restored=restored)


@contextlib.contextmanager
def _told_plainly() -> Iterator[None]:
    """Turn what the file system says, which names paths, into errors that may be shown."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("there is no room left for disks") from error
        raise DiskFailure("the file system of the disks refused the work") from error


@contextlib.contextmanager
def _still_there(disk: DiskPlace, snapshot: SnapshotPlace | None = None) -> Iterator[None]:
    """Tell why there was nothing to open. Reading holds nothing, so that it is in nobody's way."""
    try:
        yield
    except FileNotFoundError:
        if not disk.top.exists():
            raise storage.no_disk() from None
        if snapshot is not None and not snapshot.top.exists():
            raise storage.no_snapshot() from None
        raise DiskBusy("a restoration is putting its state in place; try again") from None


def _contents(
    disk: DiskPlace, snapshot: SnapshotPlace | None, path: str, limit: int, cursor: str | None
) -> tuple[list[Entry], str | None]:
    top = disk.home if snapshot is None else snapshot.tree
    with _still_there(disk, snapshot):
        return listing.page(top, path, limit, cursor)


def _counts(tally: Tally) -> dict[str, int]:
    return dataclasses.asdict(tally)


def _copy_info(tally: Tally) -> CopyInfo:
    counts = _counts(tally)
    counts.pop("new_bytes")
    return CopyInfo(**counts)
