"""Where things lie under the root, who holds them, and how something whole takes its place.

    disks/<disk>/home/                  the live state
    disks/<disk>/snapshots/<id>/tree/   a complete snapshot, described by info.json beside the tree
    disks/<disk>/incoming/              the state that a restoration puts in place, for a moment
    disks/<disk>/lock, snapshots.lock
    staging/<name>/item/                what is being built; staging/<name>/lock is held meanwhile
    trash/<name>/                       what is being removed

All of it must be one file system: things take their place by being renamed.

Locks are flock(2) on files: the kernel drops them with the process, so that no crash leaves one,
and they hold between processes as well as between threads.
"""

import contextlib
import ctypes
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from gpudev_service.disks.base import (
    DiskBusy,
    DiskError,
    DiskExists,
    DiskNotFound,
    SnapshotNotFound,
)
from gpudev_service.disks.names import checked_id
from gpudev_service.disks.trees import remove_tree

#: A server under another account passes through to its own home, and lists nothing on the way.
_PASS = 0o711
_PRIVATE = 0o700
_ATTEMPTS = 5


class Hold(Enum):
    """Shared by those who read, exclusive for who swaps or removes."""

    SHARED = fcntl.LOCK_SH
    EXCLUSIVE = fcntl.LOCK_EX


@dataclass(frozen=True, slots=True)
class DiskPlace:
    """The paths of one disk."""

    top: Path

    @property
    def home(self) -> Path:
        return self.top / "home"

    @property
    def lock(self) -> Path:
        return self.top / "lock"

    @property
    def snapshots_lock(self) -> Path:
        return self.top / "snapshots.lock"

    @property
    def snapshots(self) -> Path:
        return self.top / "snapshots"

    @property
    def incoming(self) -> Path:
        return self.top / "incoming"

    def snapshot(self, snapshot_id: str) -> "SnapshotPlace":
        return SnapshotPlace(self.snapshots / checked_id(snapshot_id))

    def furnish(self) -> None:
        """Make all of a disk but its home, where nothing is yet."""
        self.top.mkdir(_PASS)
        self.top.chmod(_PASS)
        self.snapshots.mkdir(_PRIVATE)
        self.lock.touch(0o600)
        self.snapshots_lock.touch(0o600)


@dataclass(frozen=True, slots=True)
class SnapshotPlace:
    """The paths of one snapshot. Its description is also the file by which it is locked."""

    top: Path

    @property
    def tree(self) -> Path:
        return self.top / "tree"

    @property
    def info(self) -> Path:
        return self.top / "info.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """A place to build something out of sight. `clock` is the file system's time (ns since the
    epoch, as it stamps files) before anything was built here."""

    item: Path
    clock_ns: int


class Storage:
    """The root of all disks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disks = root / "disks"
        self.staging = root / "staging"
        self.trash = root / "trash"

    def prepare(self) -> None:
        """Make the folders under the root; raises OSError."""
        self.root.mkdir(_PASS, parents=True, exist_ok=True)
        for folder, mode in (
            (self.disks, _PASS),
            (self.staging, _PRIVATE),
            (self.trash, _PRIVATE),
        ):
            folder.mkdir(mode, exist_ok=True)
            folder.chmod(mode)

    def disk(self, disk_id: str) -> DiskPlace:
        return DiskPlace(self.disks / checked_id(disk_id))

    @contextlib.contextmanager
    def staged(self) -> Iterator[Stage]:
        """A fresh place; what is left of it at the end is removed."""
        stage, lock = self._new_stage()
        try:
            yield Stage(item=stage / "item", clock_ns=os.fstat(lock).st_ctime_ns)
        finally:
            try:
                remove_tree(stage, _never_stops, _never_stops)
            finally:
                os.close(lock)

    def _new_stage(self) -> tuple[Path, int]:
        for _ in range(_ATTEMPTS):
            stage = self.staging / secrets.token_hex(8)
            stage.mkdir(_PRIVATE)
            with contextlib.suppress(FileNotFoundError):
                # Taken for abandoned by `abandon` of another process before the lock was held.
                path = stage / "lock"
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                if _try_lock(lock, Hold.EXCLUSIVE) and _is_same_file(lock, path):
                    return stage, lock
                os.close(lock)
        raise DiskBusy("other work clears this storage; try again later")

    def set_aside(self, item: Path) -> Path:
        """Take something out of sight in one step; returns where it lies until it is removed."""
        aside = self.trash / f"{item.name}-{secrets.token_hex(8)}"
        item.rename(aside)
        sync_directory(item.parent)
        return aside

    def abandon(self) -> None:
        """Move the stages of killed processes to the trash."""
        for stage in sorted(self.staging.iterdir()):
            try:
                lock = os.open(stage / "lock", os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                # Killed, or about to make its lock; the latter notices and takes another stage.
                with contextlib.suppress(OSError):
                    stage.rmdir()
                continue
            try:
                if _try_lock(lock, Hold.EXCLUSIVE) and _is_same_file(lock, stage / "lock"):
                    self.set_aside(stage)
            finally:
                os.close(lock)


def _never_stops() -> None:
    """Small enough to be removed without asking, or already being unwound."""


def no_disk() -> DiskNotFound:
    return DiskNotFound("there is no such disk")


def no_snapshot() -> SnapshotNotFound:
    return SnapshotNotFound("the disk has no such snapshot")


def disk_exists() -> DiskExists:
    return DiskExists("the disk is already there")


@contextlib.contextmanager
def held(lock: Path, hold: Hold, missing: Callable[[], DiskError]) -> Iterator[None]:
    """Hold what `lock` stands for; raises DiskBusy at once, or `missing` if it is not there."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise missing() from None
    try:
        if not _try_lock(fd, hold):
            raise DiskBusy("other work is under way on this disk; try again later")
        # Who held it before may have removed what it stands for.
        if not _is_same_file(fd, lock):
            raise missing()
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int, hold: Hold) -> bool:
    try:
        fcntl.flock(fd, hold.value | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def sync_directory(directory: Path) -> None:
    """Make renames in a directory last through a power failure."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: Path) -> None:
    """Write out everything of the file system on which `path` lies.

    One call for a whole tree: an fsync for each of a million small files takes far longer.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)
