"""Listing a directory of a disk without ever leaving the disk, and measuring a disk."""

import contextlib
import heapq
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gpudev_service.disks import names
from gpudev_service.disks.base import (
    Entry,
    EntryKind,
    InvalidCursor,
    InvalidPath,
    PathNotFound,
    PathOutsideDisk,
    Usage,
)
from gpudev_service.disks.trees import Descent, entries, open_directory

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A day off the ends, so that showing the time in any zone cannot overflow.
_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
_LATEST = datetime(9999, 12, 30, tzinfo=UTC)
_BLOCK = 512


def page(top: Path, path: str, limit: int, cursor: str | None) -> tuple[list[Entry], str | None]:
    """The next `limit` entries of a directory under `top` in the order of their bytes.

    Raises the path errors, InvalidCursor, and OSError if `top` cannot be opened.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    after = b"" if cursor is None else _position(cursor)
    fd = _open_inside(top, names.parts(path))
    try:
        with os.scandir(fd) as found:
            later = (name for entry in found if (name := os.fsencode(entry.name)) > after)
            chosen = heapq.nsmallest(limit + 1, later)
        listed = [entry for name in chosen[:limit] if (entry := _entry(fd, name)) is not None]
    finally:
        os.close(fd)
    more = names.shown(os.fsdecode(chosen[limit - 1])) if len(chosen) > limit else None
    return listed, more


def _position(cursor: str) -> bytes:
    try:
        return os.fsencode(names.stored(cursor))
    except InvalidPath:
        raise InvalidCursor("the cursor is not one of this listing") from None


def _open_inside(top: Path, way: list[str]) -> int:
    """Open a directory below `top`, one name at a time and never through a symbolic link.

    Between two steps a user may rename or replace anything; since every step starts from an open
    directory and refuses links, it stays below what was `top`.
    """
    fd = open_directory(top)
    try:
        device = os.fstat(fd).st_dev
        for name in way:
            deeper = _step(fd, name)
            os.close(fd)
            fd = deeper
            _refuse_mount(fd, device)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_mount(fd: int, device: int) -> None:
    if os.fstat(fd).st_dev != device:
        raise PathOutsideDisk("another file system is mounted there")


def _step(fd: int, name: str) -> int:
    try:
        return open_directory(name, fd)
    except PermissionError:
        raise PathNotFound("the directory cannot be read") from None
    except OSError as error:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            raise PathNotFound("there is no such directory") from error
        if stat.S_ISLNK(status.st_mode):
            raise PathOutsideDisk("symbolic links are not followed") from None
        raise PathNotFound("that is not a directory") from error


def _entry(fd: int, name: bytes) -> Entry | None:
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except (FileNotFoundError, PermissionError):
        return None
    return Entry(
        name=names.shown(os.fsdecode(name)),
        kind=_kind(status.st_mode),
        size_bytes=status.st_size,
        modified_at=moment(status.st_mtime_ns),
    )


def _kind(mode: int) -> EntryKind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def moment(nanoseconds: int) -> datetime:
    """A file's time; one that no datetime can hold is moved to the nearest that one can."""
    try:
        moment = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _LATEST if nanoseconds > 0 else _EARLIEST
    return min(max(moment, _EARLIEST), _LATEST)


def measure(top: Path, check: Callable[[], None]) -> Usage:
    """Add up a tree. `check` is called for every name and may raise to stop."""
    walk = Descent(top)
    try:
        meter = _Meter(os.fstat(walk.fd), check)
        pending = [meter.add(walk.fd)]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    walk.ascend()
                continue
            # Removed, replaced or closed to this account since it was listed: nothing to add.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                walk.descend(pending[-1].pop())
                pending.append(meter.add(walk.fd))
    finally:
        walk.close()
    return meter.usage()


class _Meter:
    def __init__(self, top: os.stat_result, check: Callable[[], None]) -> None:
        self._check = check
        self._device = top.st_dev
        self._blocks = top.st_blocks
        self._size = self._files = 0
        #: Inodes with several names that have been counted.
        self._seen: set[int] = set()

    def add(self, fd: int) -> list[str]:
        """Count what is in an open directory; returns the directories in it."""
        directories = []
        for name, status in entries(fd):
            self._check()
            if status.st_dev != self._device or self._is_known(status):
                continue
            self._blocks += status.st_blocks
            if stat.S_ISDIR(status.st_mode):
                directories.append(name)
            elif stat.S_ISREG(status.st_mode):
                self._size += status.st_size
                self._files += 1
        return directories

    def _is_known(self, status: os.stat_result) -> bool:
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            return False
        if status.st_ino in self._seen:
            return True
        self._seen.add(status.st_ino)
        return False

    def usage(self) -> Usage:
        return Usage(self._size, self._blocks * _BLOCK, self._files)
