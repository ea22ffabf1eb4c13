"""What a page says about disks, their snapshots and the files on them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from gpudev_client import words
from gpudev_client.models import Disk, DiskEntry, Snapshot

#: Why a snapshot was taken, in words.
_CAUSES = MappingProxyType(
    {
        "person": "taken on demand",
        "end": "at the end of a lease",
        "safety": "before a restoration",
    }
)


@dataclass(frozen=True, slots=True)
class DiskCard:
    """One disk in the list and on its own page."""

    name: str
    user: str
    size: str
    over: bool
    size_gb: int | None
    zones: list[str]
    snapshots: str
    last_snapshot: datetime | None
    last_used: datetime | None
    created: datetime
    measured: datetime | None
    in_use_by: str | None
    busy: str | None
    deleted: datetime | None
    until: datetime | None

    @property
    def idle(self) -> bool:
        """Nothing is in the way of deleting or restoring it."""
        return self.in_use_by is None and self.busy is None


def disk_card(disk: Disk) -> DiskCard:
    """What there is to say about a disk."""
    size = words.size(disk.size_bytes)
    if disk.limit_bytes is not None:
        over = "over its limit of" if disk.over_limit else "at most"
        size = f"{size}, {over} {words.size(disk.limit_bytes)}"
    return DiskCard(
        name=disk.name,
        user=disk.user,
        size=size,
        over=disk.over_limit,
        size_gb=disk.size_gb,
        zones=disk.zones,
        snapshots=words.counted(disk.snapshots, "snapshot"),
        last_snapshot=disk.last_snapshot_at,
        last_used=disk.last_used_at,
        created=disk.created_at,
        measured=disk.size_measured_at,
        in_use_by=disk.in_use_by,
        busy=disk.busy,
        deleted=disk.deleted_at,
        until=disk.purged_after,
    )


def split(disks: Iterable[Disk]) -> tuple[list[DiskCard], list[DiskCard]]:
    """Disks, and deleted ones that can be restored. Of several deleted ones of a name only the one
    that went last can be brought back by that name."""
    there: list[DiskCard] = []
    newest: dict[str, Disk] = {}
    for disk in disks:
        if disk.deleted_at is None:
            there.append(disk_card(disk))
            continue
        other = newest.get(disk.name)
        if other is None or other.deleted_at is None or other.deleted_at < disk.deleted_at:
            newest[disk.name] = disk
    return there, [disk_card(disk) for disk in newest.values()]


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One snapshot of a disk."""

    id: str
    at: datetime
    cause: str
    note: str | None
    size: str
    state: str
    progress: str | None

    @property
    def ready(self) -> bool:
        return self.state == "ready"


def snapshot_row(snapshot: Snapshot) -> SnapshotRow:
    size = words.size(snapshot.size_bytes)
    if snapshot.files is not None:
        size = f"{words.counted(snapshot.files, 'file')}, {size}"
    if snapshot.new_bytes is not None:
        size = f"{size} ({words.size(snapshot.new_bytes)} of it new)"
    return SnapshotRow(
        id=snapshot.id,
        at=snapshot.taken_at,
        cause=_CAUSES.get(snapshot.cause, snapshot.cause),
        note=snapshot.note,
        size=size,
        state=snapshot.state,
        progress=snapshot.progress,
    )


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One name in a directory; `path` leads into it where it is a directory."""

    shown: str
    kind: str
    size: str
    modified: datetime
    path: str | None


def entry_rows(entries: Sequence[DiskEntry], path: str) -> list[EntryRow]:
    """A directory's entries in the order they came."""
    return [
        EntryRow(
            shown=visible(entry.name),
            kind=entry.kind,
            size=words.size(entry.size_bytes) if entry.kind == "file" else "",
            modified=entry.modified_at,
            path=_join(path, entry.name) if entry.kind == "directory" else None,
        )
        for entry in entries
    ]


@dataclass(frozen=True, slots=True)
class Crumb:
    """One step of the way to a directory; the last has no path, it is where one is."""

    shown: str
    path: str | None


def crumbs(disk: str, path: str) -> list[Crumb]:
    """The way from the disk's top to `path`."""
    parts = [part for part in path.split("/") if part]
    steps = [Crumb(disk, "" if parts else None)]
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        steps.append(Crumb(visible(part), None if last else "/".join(parts[:number])))
    return steps


def visible(name: str) -> str:
    """A file's name for the eye: line breaks, control characters and those that turn the direction
    of text around are written out, so that a name never looks like another one."""
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in name)


def _join(path: str, name: str) -> str:
    return f"{path.strip('/')}/{name}" if path.strip("/") else name
