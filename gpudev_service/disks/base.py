"""The seam between the operations on disks and what holds their bytes.

The errors, all of them safe to show to a person (no path of the machine in the message):

    DiskError
     ├─ InvalidDiskId        an id that is not of the expected shape
     ├─ DiskNotFound
     ├─ DiskExists
     ├─ SnapshotNotFound
     ├─ SnapshotExists
     ├─ DiskBusy             other work holds the disk or the snapshot; try again later
     ├─ DiskFull             no space or no inodes left, or a quota of the file system is reached
     ├─ DiskFailure          the file system or the storage refused; the cause is chained
     ├─ NothingToKeep        a snapshot of a disk that nobody has used yet
     ├─ NoSnapshots          disks have no snapshots here at all
     ├─ ContentsUnknown      the files are not known without a server; the message says why
     ├─ InvalidCursor
     └─ PathError
         ├─ InvalidPath      NUL bytes, a wrong escape
         ├─ PathOutsideDisk  absolute, `..`, a symbolic link or another file system on the way
         └─ PathNotFound     no directory of that name
"""

# ruff: noqa: N818 - these errors say what is so, as FileNotFound would; the base has the suffix

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from gpudev_service.disks.reach import Reach

#: Called with (files done, bytes done) while long work runs; in the event loop, never in a thread.
#: Numbers never go down; the last call has the totals (a file that shrinks while it is copied may
#: leave the bytes higher). It must not raise and not block.
Progress = Callable[[int, int], None]

EntryKind = Literal["file", "directory", "symlink", "other"]


class DiskError(Exception):
    """Anything that a disk backend refuses or fails to do."""


class InvalidDiskId(DiskError):
    """An id of a disk or a snapshot does not have the shape of one."""


class DiskNotFound(DiskError):
    """There is no such disk."""


class DiskExists(DiskError):
    """The disk is already there, complete: disks appear whole, so a repeated call may go on."""


class SnapshotNotFound(DiskError):
    """The disk has no such snapshot."""


class SnapshotExists(DiskError):
    """The snapshot is already there, complete: a repeated call may go on."""


class DiskBusy(DiskError):
    """Other work, perhaps of another process, holds the disk or the snapshot. Try again later."""


class DiskFull(DiskError):
    """There is no room left; what was begun has been removed again."""


class DiskFailure(DiskError):
    """The file system refused. The cause is chained, for the log."""


class NothingToKeep(DiskError):
    """The disk has no bytes yet of which a snapshot could be taken."""


class NoSnapshots(DiskError):
    """What holds the disks takes no snapshots, and makes no copies therefore."""


class ContentsUnknown(DiskError):
    """What is on the disk cannot be told (yet) where it cannot be looked at directly."""


class InvalidCursor(DiskError):
    """A cursor that no listing has handed out."""


class PathError(DiskError):
    """A path inside a disk cannot be listed."""


class InvalidPath(PathError):
    """The path is not written as paths inside a disk are."""


class PathOutsideDisk(PathError):
    """The path would leave the disk."""


class PathNotFound(PathError):
    """Nothing is there, or it is not a directory."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A complete snapshot.

    `size_bytes` is the sum of the apparent sizes of its regular files, `new_bytes` the part whose
    content the disk's previous snapshot did not have (what this snapshot costs at most), `files`
    the number of regular files. What could not be kept is counted, never silent: `skipped` are
    sockets, FIFOs, devices and what is mounted inside; `vanished` went away during the copy;
    `unreadable` forbid reading to the account of the service; `changed` were still being written
    when they were copied, so that the copy may mix two states. Sizes and numbers are None where the
    storage does not tell them: `index` finds them out later.
    """

    id: str
    taken_at: datetime
    size_bytes: int | None
    new_bytes: int | None
    files: int | None
    skipped: int = 0
    vanished: int = 0
    unreadable: int = 0
    changed: int = 0


@dataclass(frozen=True, slots=True)
class CopyInfo:
    """What `clone` or `restore` copied; the counts mean what they mean in `SnapshotInfo`."""

    size_bytes: int | None
    files: int | None
    skipped: int = 0
    vanished: int = 0
    unreadable: int = 0
    changed: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory.

    `name` is escaped (see `names.shown`): JSON-safe and reversible whatever its bytes are.
    `size_bytes` is the apparent size. `modified_at` is UTC; a time that no datetime can hold is
    moved to the nearest that one can.
    """

    name: str
    kind: EntryKind
    size_bytes: int
    modified_at: datetime


class Listing(NamedTuple):
    """One page of a directory: `following` is the cursor of the next one, None after the last.

    `as_of` is the time of the state that is shown where that is not the present one: a backend that
    cannot look into a disk shows what its newest snapshot that was listed had.
    """

    entries: list[Entry]
    following: str | None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the live state of a disk takes, or took at its newest snapshot.

    `size_bytes` is apparent (what `ls` adds up to), `allocated_bytes` what the file system set
    aside, directories included. A file with several names counts once. `files` are regular ones.
    """

    size_bytes: int
    allocated_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class CleanUp:
    """What `clean_up` found after a crash: abandoned work removed, restorations completed."""

    abandoned: int
    restored: int


class DiskBackend(Protocol):
    """Holds disks. The caller decides who may do what, keeps names and states, and sees to it that
    no server runs on a disk that it restores or purges.

    Every disk and every snapshot appears whole or not at all, also when the process is killed in
    between; `clean_up` removes what a killed process left. Cancelling a call ends its work at the
    next file (or piece of a large file), removes what it began, and then raises CancelledError.
    """

    #: Whether disks have sizes of their own, which can be asked for and which refuse more.
    takes_sizes: bool

    async def create(self, disk_id: str, size_gb: int | None = None) -> None:
        """Make an empty disk, of that size where sizes are taken. Raises DiskExists, DiskFull."""

    async def resize(self, disk_id: str, size_gb: int) -> None:
        """Make a disk larger; a server that uses it sees the room at once or at its next start.

        Raises DiskNotFound, DiskFailure (a smaller size, or the storage does not do that).
        """

    async def exists(self, disk_id: str) -> bool:
        """Whether the disk is there."""

    async def size_gb(self, disk_id: str) -> int | None:
        """What the disk was made with, or has grown to; None where disks take no sizes. Raises
        DiskNotFound."""

    async def require_snapshots(self) -> None:
        """Raises NoSnapshots where disks can have none."""

    def path(self, disk_id: str) -> Path:
        """The live directory, mode 0700, that a server gets as its home.

        Not checked for existence. A backend whose disks are no directories of this machine raises
        DiskFailure.
        """

    async def claim(self, disk_id: str) -> str | None:
        """The PersistentVolumeClaim that the disk is now; None where disks are directories. It is
        another one after each restoration. Raises DiskNotFound."""

    async def reach(self, disk_id: str) -> Reach | None:
        """Where the disk can be used; None: everywhere (yet). Raises DiskNotFound."""

    async def purge(self, disk_id: str) -> None:
        """Remove the disk and all its snapshots for good. Raises DiskNotFound, DiskBusy."""

    async def snapshot(
        self, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> SnapshotInfo:
        """Copy the live state. What has not changed since the newest snapshot costs no space.

        A server may run on the disk. Raises DiskNotFound, SnapshotExists, DiskBusy (another
        snapshot of the disk is being taken), DiskFull, NothingToKeep, NoSnapshots.
        """

    async def snapshots(self, disk_id: str) -> Sequence[SnapshotInfo]:
        """All complete snapshots in the order in which they were taken. Raises DiskNotFound."""

    async def index(self, disk_id: str, snapshot_id: str) -> SnapshotInfo | None:
        """Have the files of a snapshot listed, where they cannot be looked at, for `contents` and
        `usage`. None where there is nothing to do, or nothing to do it with. May be repeated.

        Raises DiskNotFound, SnapshotNotFound, DiskBusy, DiskFailure.
        """

    async def delete_snapshot(self, disk_id: str, snapshot_id: str) -> None:
        """Remove one snapshot; the others stay as they are.

        Raises DiskNotFound, SnapshotNotFound, DiskBusy (something is reading it).
        """

    async def clone(
        self,
        disk_id: str,
        new_disk_id: str,
        snapshot_id: str | None = None,
        progress: Progress | None = None,
    ) -> CopyInfo:
        """Make `new_disk_id` from a snapshot, or from the live state; without the snapshots.

        Raises DiskNotFound, SnapshotNotFound, DiskExists, DiskBusy, DiskFull, NoSnapshots.
        """

    async def restore(
        self, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> CopyInfo:
        """Replace the live state by a snapshot's. The old state is lost: take a snapshot before.

        No server may run on the disk. Raises DiskNotFound, SnapshotNotFound, DiskBusy, DiskFull.
        """

    async def contents(
        self,
        disk_id: str,
        snapshot_id: str | None = None,
        path: str = "",
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Listing:
        """One page of a directory of the live state or of a snapshot, by name (as bytes).

        `path` is relative, its parts written as `Entry.name` gives them; "" is the top. `cursor`
        is None for the first page, then what the page before returned; None after the last.
        Raises DiskNotFound, SnapshotNotFound, InvalidPath, PathOutsideDisk, PathNotFound,
        InvalidCursor, ContentsUnknown.
        """

    async def usage(self, disk_id: str) -> Usage:
        """Measure the live state. Raises DiskNotFound, ContentsUnknown."""

    async def clean_up(self) -> CleanUp:
        """Remove what killed processes left, complete a restoration that was decided.

        To be called at start; harmless at any time, beside other processes too.
        """

    def close(self) -> None:
        """Give back what the backend itself holds, threads for example. Waits for running work."""
