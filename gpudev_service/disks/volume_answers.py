"""What calls on volumes answer, made from what the cluster and the indexes say. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gpudev_service.disks.base import (
    CopyInfo,
    DiskExists,
    DiskNotFound,
    Progress,
    SnapshotInfo,
)
from gpudev_service.disks.claims import Taken
from gpudev_service.disks.indexes import Indexed


def next_sequence(there: Sequence[Taken]) -> int:
    return max((each.sequence for each in there), default=0) + 1


def snapshot_info(taken: Taken, indexed: Indexed | None) -> SnapshotInfo:
    said = None if indexed is None else indexed.summary
    return SnapshotInfo(
        id=taken.snapshot,
        taken_at=taken.taken_at,
        size_bytes=None if said is None else said.size_bytes,
        new_bytes=None,
        files=None if said is None else said.files,
        unreadable=0 if said is None else said.unreadable,
    )


def copy_info(indexed: Indexed | None, progress: Progress | None) -> CopyInfo:
    if indexed is None:
        return CopyInfo(size_bytes=None, files=None)
    said = indexed.summary
    if progress is not None:
        progress(said.files, said.size_bytes)
    return CopyInfo(size_bytes=said.size_bytes, files=said.files)


def no_disk() -> DiskNotFound:
    return DiskNotFound("there is no such disk")


def disk_exists() -> DiskExists:
    return DiskExists("the disk is already there")
