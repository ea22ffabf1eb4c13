"""Copying a whole tree, as it is or sharing with an earlier snapshot what has not changed.

Kept: names of any bytes, modes, modification times, symbolic links as such, empty directories,
holes, extended attributes as far as the file system and the account allow, and the owner where the
service runs as root. Not kept: that two names are one file (each becomes a file of its own),
sockets, FIFOs, devices, and what is mounted inside the tree.

A live file never gets a second name in a snapshot, since a write in place would then change the
snapshot. Only copies, which nobody writes to, are shared, among snapshots.
"""

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from gpudev_service.disks import files
from gpudev_service.disks.steps import OnStep, Step
from gpudev_service.disks.trees import Descent
from gpudev_service.disks.work import Watch

#: A file that changes while it is copied is copied once more; then it is kept as it came.
_ATTEMPTS = 2


@dataclass(slots=True)
class Tally:
    """What a copy did; the words of `SnapshotInfo`."""

    files: int = 0
    size_bytes: int = 0
    new_bytes: int = 0
    skipped: int = 0
    vanished: int = 0
    unreadable: int = 0
    changed: int = 0


@dataclass(slots=True)
class _Directory:
    status: os.stat_result
    extended: dict[str, bytes]
    pending: list[str] = field(default_factory=list)


class _Base:
    """The earlier snapshot at the place where the copy is, as far down as it has that place."""

    def __init__(self, top: Path | None) -> None:
        self._walk = None if top is None else Descent(top)
        self._missing = 0 if top is not None else 1

    @property
    def fd(self) -> int | None:
        return None if self._walk is None or self._missing else self._walk.fd

    def descend(self, name: str) -> None:
        if self._walk is None or self._missing:
            self._missing += 1
            return
        try:
            self._walk.descend(name)
        except OSError:
            # Not there, no directory, or not readable then: nothing below can be shared.
            self._missing += 1

    def ascend(self) -> None:
        if self._missing:
            self._missing -= 1
        elif self._walk is not None:
            self._walk.ascend()

    def close(self) -> None:
        if self._walk is not None:
            self._walk.close()


class TreeCopy:
    """One copy of the directory `source` to the new directory `destination`.

    `base` is the tree of the earlier snapshot to share with. With `clock_ns` (see `files`) the
    copies are marked, so that the next snapshot can share them.
    """

    def __init__(
        self,
        source: Path,
        destination: Path,
        *,
        watch: Watch,
        on_step: OnStep,
        base: Path | None = None,
        clock_ns: int | None = None,
    ) -> None:
        self._paths = (source, destination, base)
        self._watch = watch
        self._on_step = on_step
        self._clock_ns = clock_ns
        self._device = 0
        self.tally = Tally()

    def run(self) -> Tally:
        """Copy; raises OSError of the destination's side, WorkCancelled, DiskFailure."""
        source, destination, base = self._paths
        destination.mkdir(0o700)
        with contextlib.ExitStack() as stack:
            self._from = Descent(source)
            stack.callback(self._from.close)
            self._to = Descent(destination)
            stack.callback(self._to.close)
            self._base = _Base(base)
            stack.callback(self._base.close)
            self._device = os.fstat(self._from.fd).st_dev
            self._walk()
        self._watch.report(self.tally.files, self.tally.size_bytes, last=True)
        return self.tally

    def _walk(self) -> None:
        way = [self._enter()]
        while way:
            if way[-1].pending:
                name = way[-1].pending.pop()
                if self._descend(name):
                    way.append(self._enter())
                continue
            self._leave(way.pop(), is_top=not way)

    def _enter(self) -> _Directory:
        fd = self._from.fd
        here = _Directory(os.fstat(fd), files.attributes(fd))
        with os.scandir(fd) as found:
            for entry in found:
                self._watch.check()
                self._on_step(Step.FILE_STARTED)
                self._copy_entry(entry.name, here)
        return here

    def _leave(self, here: _Directory, *, is_top: bool) -> None:
        mode = files.kept_mode(here.status)
        # The top takes part in renames and is somebody's home: its owner can always use it.
        files.dress(self._to.fd, here.status, here.extended, mode | 0o700 if is_top else mode)
        if not is_top:
            self._from.ascend()
            self._to.ascend()
            self._base.ascend()

    def _descend(self, name: str) -> bool:
        try:
            self._from.descend(name)
        except PermissionError:
            self.tally.unreadable += 1
            return False
        except (FileNotFoundError, NotADirectoryError):
            self.tally.vanished += 1
            return False
        if os.fstat(self._from.fd).st_dev != self._device:
            self._from.ascend()
            self.tally.skipped += 1
            return False
        os.mkdir(name, 0o700, dir_fd=self._to.fd)
        self._to.descend(name)
        self._base.descend(name)
        return True

    def _copy_entry(self, name: str, here: _Directory) -> None:
        try:
            status = os.stat(name, dir_fd=self._from.fd, follow_symlinks=False)
        except FileNotFoundError:
            self.tally.vanished += 1
            return
        except PermissionError:
            self.tally.unreadable += 1
            return
        if stat.S_ISDIR(status.st_mode):
            here.pending.append(name)
        elif stat.S_ISLNK(status.st_mode):
            self._copy_link(name, status)
        elif stat.S_ISREG(status.st_mode):
            self._copy_file(name, status)
        else:
            self.tally.skipped += 1

    def _copy_link(self, name: str, status: os.stat_result) -> None:
        try:
            target = os.readlink(name, dir_fd=self._from.fd)
        except OSError:
            # Removed, or replaced by something that is no link.
            self.tally.vanished += 1
            return
        to = self._to.fd
        os.symlink(target, name, dir_fd=to)
        if files.IS_ROOT:
            os.chown(name, status.st_uid, status.st_gid, dir_fd=to, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=to, follow_symlinks=False)

    def _copy_file(self, name: str, status: os.stat_result) -> None:
        if self._share(name, status):
            self._count(status.st_size, is_new=False)
            return
        source = self._open(name)
        if source is None:
            return
        try:
            size = self._make_copy(name, source)
        finally:
            os.close(source)
        self._count(size, is_new=True)

    def _count(self, size: int, *, is_new: bool) -> None:
        self.tally.files += 1
        self.tally.size_bytes += size
        if is_new:
            self.tally.new_bytes += size
        self._watch.report(self.tally.files, self.tally.size_bytes)
        self._on_step(Step.FILE_COPIED)

    def _on_piece(self, done: int) -> None:
        self._watch.check()
        self._watch.report(self.tally.files, self.tally.size_bytes + done)

    def _open(self, name: str) -> int | None:
        """Open a live file, or count why that cannot be."""
        try:
            source = files.open_to_read(name, self._from.fd)
        except (PermissionError, BlockingIOError):
            # Forbidden to this account, or somebody holds a lease on the file.
            self.tally.unreadable += 1
            return None
        except OSError as error:
            if error.errno not in files.REPLACED:
                raise
            source = None
        if source is None:
            self.tally.vanished += 1
        return source

    def _share(self, name: str, status: os.stat_result) -> bool:
        """Give the earlier snapshot's copy a name here, if it holds what the live file holds."""
        base = self._base.fd
        if base is None:
            return False
        try:
            copy = files.open_to_read(name, base)
        except OSError:
            return False
        if copy is None:
            return False
        try:
            if not files.attributes_match(status, os.fstat(copy)):
                return False
            if not files.is_marked(copy, status) and not self._compare(name, copy):
                return False
        finally:
            os.close(copy)
        return files.link(name, base, self._to.fd)

    def _compare(self, name: str, copy: int) -> bool:
        try:
            source = files.open_to_read(name, self._from.fd)
        except OSError:
            return False
        if source is None:
            return False
        try:
            before = os.fstat(source)
            if not files.attributes_match(before, os.fstat(copy)):
                return False
            if not files.is_equal(source, copy, self._on_piece):
                return False
            # If the file was written meanwhile, its change time has left this mark behind.
            if self._clock_ns is not None:
                files.mark(copy, before, self._clock_ns)
            return True
        finally:
            os.close(source)

    def _make_copy(self, name: str, source: int) -> int:
        """Copy an open live file to a new one; returns the size of the copy."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(name, flags, 0o600, dir_fd=self._to.fd)
        try:
            for _ in range(_ATTEMPTS):
                os.ftruncate(copy, 0)
                before = os.fstat(source)
                files.copy_content(source, copy, self._on_piece)
                is_whole = files.is_unchanged(before, os.fstat(source))
                if is_whole:
                    break
            if not is_whole:
                self.tally.changed += 1
            elif self._clock_ns is not None:
                files.mark(copy, before, self._clock_ns)
            files.dress(copy, before, files.attributes(source), files.kept_mode(before))
            return os.fstat(copy).st_size
        finally:
            os.close(copy)
