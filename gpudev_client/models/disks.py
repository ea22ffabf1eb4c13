"""Disks and snapshots."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from .base import Answer, DiskName, Note, Page, Request


class Disk(Answer):
    name: str
    user: str
    created_at: AwareDatetime
    last_used_at: AwareDatetime | None = None
    size_bytes: int | None = None
    size_measured_at: AwareDatetime | None = None
    limit_bytes: int | None = None
    over_limit: bool = Field(default=False, description="No GPUs are given to it meanwhile.")
    in_use_by: str | None = Field(default=None, description="Id of the live reservation.")
    snapshots: int = 0
    last_snapshot_at: AwareDatetime | None = None
    deleted_at: AwareDatetime | None = None
    purged_after: AwareDatetime | None = None
    busy: str | None = Field(default=None, description="Long work under way, with its progress.")

    size_gb: int | None = Field(
        default=None, description="Its own size, where disks have one; more cannot be written."
    )
    zones: list[str] = Field(
        default=[], description="Where it can be used; empty: anywhere, or not known yet."
    )


SizeGb = Annotated[int, Field(ge=1, le=1_000_000)]


class DiskRequest(Request):
    name: DiskName
    size_gb: SizeGb | None = Field(
        default=None, description="Where disks have sizes of their own; default: the operator's."
    )


class DiskChange(Request):
    """A new name, a larger size, or both."""

    name: DiskName | None = None
    size_gb: SizeGb | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.name is None and self.size_gb is None:
            raise ValueError("a name or a size_gb")
        return self


class Snapshot(Answer):
    id: str
    disk: str
    taken_at: AwareDatetime
    cause: str
    state: Literal["taking", "ready", "failed"]
    size_bytes: int | None = None
    new_bytes: int | None = None
    files: int | None = None
    progress: str | None = None
    note: str | None = None


class SnapshotRequest(Request):
    note: Note | None = None


class CloneRequest(Request):
    """A new disk `name` from the disk's present state, or from one of its snapshots: by id, or the
    newest one taken at or before `at`."""

    name: DiskName
    snapshot: str | None = None
    at: AwareDatetime | None = None


class RestoreRequest(Request):
    """Puts a disk back to a snapshot (by id, or the newest at or before `at`); the present state is
    snapshotted first. For a deleted disk, without either: undoes the deletion."""

    snapshot: str | None = None
    at: AwareDatetime | None = None


class DiskEntry(Answer):
    """One name in a directory. Bytes of a name that are not UTF-8 are escaped reversibly."""

    name: str
    kind: Literal["file", "directory", "symlink", "other"]
    size_bytes: int
    modified_at: AwareDatetime


class DiskContents(Page[DiskEntry]):
    """A page of a directory. Where a disk cannot be looked at without a server, its present state
    is shown as its newest snapshot had it, and `as_of` says when that was."""

    as_of: AwareDatetime | None = None
