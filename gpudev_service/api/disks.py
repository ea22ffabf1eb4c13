"""Disks with their snapshots, contents and clones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gpudev_client.models import (
    CloneRequest,
    Disk,
    DiskChange,
    DiskContents,
    DiskRequest,
    Page,
    RestoreRequest,
    Snapshot,
    SnapshotRequest,
)
from gpudev_service.errors import not_found
from gpudev_service.events import Owner
from gpudev_service.operations import disks, snapshots

from .route import Access, Call, Route, UserPageQuery, UserQuery


class DisksQuery(UserPageQuery):
    """Whose disks, and whether deleted ones too."""

    deleted: bool = Field(default=False, description="Deleted ones that can be restored, too.")


class ContentsQuery(UserPageQuery):
    """Which directory of which state of a disk."""

    snapshot: str | None = Field(
        default=None,
        max_length=64,
        description="A snapshot's id, or `latest`; default: the disk as it is.",
    )
    path: str = Field(default="", max_length=8192, description="Relative to the disk's top.")


async def listing(call: Call[DisksQuery, None]) -> Page[Disk]:
    query = call.query
    return await disks.listing(
        call.ctx,
        frozenset({_owner(call).user}),
        deleted=query.deleted,
        limit=query.limit,
        cursor=query.cursor,
    )


async def create(call: Call[UserQuery, DiskRequest]) -> Disk:
    owner = _owner(call)
    groups = await _groups(call)
    return await disks.create(call.ctx, owner.user, call.body, groups, call.actor)


async def created(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Disk:
    """The disk that an interrupted call has made."""
    if not made.get("disks"):
        raise not_found("disk")
    return await disks.get(call.ctx, _owner(call).user, call.body.name)


async def show(call: Call[UserQuery, None]) -> Disk:
    return await disks.get(call.ctx, _owner(call).user, call.path["name"])


async def change(call: Call[UserQuery, DiskChange]) -> Disk:
    groups = await _groups(call)
    user, name = _owner(call).user, call.path["name"]
    return await disks.change(call.ctx, user, name, call.body, groups, call.actor)


async def changed(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Disk:
    """The disk that an interrupted call has renamed; a size is the same when set again."""
    return await disks.get(call.ctx, _owner(call).user, call.body.name or call.path["name"])


async def delete(call: Call[UserQuery, None]) -> Disk:
    groups = await _groups(call)
    return await disks.delete(call.ctx, _owner(call).user, call.path["name"], groups, call.actor)


async def deleted(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Disk:
    """The disk of that name that was deleted last."""
    page = await disks.listing(
        call.ctx, frozenset({_owner(call).user}), deleted=True, limit=1000, cursor=None
    )
    found = [d for d in page.items if d.name == call.path["name"] and d.deleted_at is not None]
    if not found:
        raise not_found("disk")
    return max(found, key=lambda disk: str(disk.deleted_at))


async def restore(call: Call[UserQuery, RestoreRequest]) -> Disk:
    groups = await _groups(call)
    user, name = _owner(call).user, call.path["name"]
    return await snapshots.restore(call.ctx, user, name, call.body, groups, call.actor)


async def restored(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Disk:
    return await disks.get(call.ctx, _owner(call).user, call.path["name"])


async def list_snapshots(call: Call[UserPageQuery, None]) -> Page[Snapshot]:
    query = call.query
    return await snapshots.listing(
        call.ctx, _owner(call).user, call.path["name"], query.limit, query.cursor
    )


async def take_snapshot(call: Call[UserQuery, SnapshotRequest]) -> Snapshot:
    user, name = _owner(call).user, call.path["name"]
    return await snapshots.take(call.ctx, user, name, call.body.note, call.actor)


async def taken(call: Call[Any, Any], made: Mapping[str, list[str]]) -> Snapshot:
    """The snapshot that an interrupted call has begun; the loops go on with it."""
    page = await snapshots.listing(call.ctx, _owner(call).user, call.path["name"], 1000, None)
    for snapshot in page.items:
        if snapshot.id in made.get("snapshots", []):
            return snapshot
    raise not_found("snapshot")


async def contents(call: Call[ContentsQuery, None]) -> DiskContents:
    query = call.query
    return await disks.contents(
        call.ctx,
        _owner(call).user,
        call.path["name"],
        snapshot=query.snapshot,
        path=query.path,
        limit=query.limit,
        cursor=query.cursor,
    )


async def clone(call: Call[UserQuery, CloneRequest]) -> Disk:
    groups = await _groups(call)
    user, name = _owner(call).user, call.path["name"]
    return await snapshots.clone(call.ctx, user, name, call.body, groups, call.actor)


def _owner(call: Call[Any, Any]) -> Owner:
    return call.owner or call.caller.owner


async def _groups(call: Call[Any, Any]) -> tuple[str, ...]:
    """The groups of the disks' owner, for policy."""
    owner = _owner(call)
    if owner.user == call.caller.name and call.caller.kind == "user":
        return call.caller.groups
    return await call.service.people.groups_of_existing(owner.user)


ROUTES = (
    Route(
        "list_disks",
        "GET",
        "/disks",
        Access.DISK_READ,
        listing,
        "A user's disks by name.",
        query=DisksQuery,
        answer=Page[Disk],
    ),
    Route(
        "create_disk",
        "POST",
        "/disks",
        Access.DISK_WRITE,
        create,
        "A new, empty disk.",
        query=UserQuery,
        body=DiskRequest,
        answer=Disk,
        status=201,
        errors=("name_taken", "quota", "disk_full", "policy_limit"),
        recall=created,
    ),
    Route(
        "show_disk",
        "GET",
        "/disks/{name}",
        Access.DISK_READ,
        show,
        "One disk.",
        query=UserQuery,
        answer=Disk,
    ),
    Route(
        "change_disk",
        "PATCH",
        "/disks/{name}",
        Access.DISK_WRITE,
        change,
        "Give a disk another name, or make it larger.",
        query=UserQuery,
        body=DiskChange,
        answer=Disk,
        errors=("name_taken", "policy_limit", "disk_busy"),
        recall=changed,
    ),
    Route(
        "delete_disk",
        "DELETE",
        "/disks/{name}",
        Access.DISK_WRITE,
        delete,
        "Delete a disk; it can be restored until `purged_after`.",
        query=UserQuery,
        answer=Disk,
        errors=("disk_in_use", "disk_busy"),
        recall=deleted,
    ),
    Route(
        "restore_disk",
        "POST",
        "/disks/{name}/restoration",
        Access.DISK_WRITE,
        restore,
        "Undo a deletion, or put a disk back to a snapshot.",
        query=UserQuery,
        body=RestoreRequest,
        answer=Disk,
        recall=restored,
        errors=(
            "disk_in_use",
            "disk_busy",
            "disk_full",
            "impossible",
            "name_taken",
            "quota",
            "gone",
        ),
    ),
    Route(
        "list_snapshots",
        "GET",
        "/disks/{name}/snapshots",
        Access.DISK_READ,
        list_snapshots,
        "A disk's snapshots, newest first.",
        query=UserPageQuery,
        answer=Page[Snapshot],
    ),
    Route(
        "take_snapshot",
        "POST",
        "/disks/{name}/snapshots",
        Access.DISK_WRITE,
        take_snapshot,
        "Begin a snapshot of a disk, used or not.",
        query=UserQuery,
        body=SnapshotRequest,
        answer=Snapshot,
        status=202,
        errors=("disk_busy", "disk_full", "impossible"),
        recall=taken,
    ),
    Route(
        "disk_contents",
        "GET",
        "/disks/{name}/contents",
        Access.DISK_READ,
        contents,
        "One directory of a disk or of a snapshot, without a running server.",
        query=ContentsQuery,
        answer=DiskContents,
        errors=("disk_full", "not_listed"),
    ),
    Route(
        "clone_disk",
        "POST",
        "/disks/{name}/clones",
        Access.DISK_WRITE,
        clone,
        "A new disk from this one, or from one of its snapshots.",
        query=UserQuery,
        body=CloneRequest,
        answer=Disk,
        status=201,
        recall=created,
        errors=("name_taken", "quota", "disk_busy", "disk_full", "impossible"),
    ),
)
