"""`gpu-dev disk ...`: persistent homes, their snapshots and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from gpudev_client import words

from . import pick, verbs
from .app import App, Refused, pass_app
from .show import emit_json, note, out, table

if TYPE_CHECKING:
    from gpudev_client import models


@click.group("disk", cls=verbs.Verbs)
def disk() -> None:
    """Disks: named homes that outlive a reservation."""


_LATEST = "latest"
_from_snapshot = click.option("--snapshot", metavar="ID", help="From this snapshot.")
_from_time = click.option(
    "--at", type=verbs.when, metavar="TIME", help="From the newest snapshot until then."
)


@disk.command("list")
@click.option("--deleted", is_flag=True, help="Those that were deleted and can be restored.")
@verbs.of_user
@verbs.as_json
@pass_app
def list_(app: App, deleted: bool, user: str | None, as_json: bool) -> None:
    """List disks."""
    # The service tells deleted ones beside the others.
    found = [d for d in app.client.disks(user, deleted=deleted) if bool(d.deleted_at) == deleted]
    emit_json(found) if as_json else out(_listing(app, found))


@disk.command()
@click.argument("name")
@click.option(
    "--size",
    "size_gb",
    type=click.IntRange(min=1),
    metavar="GB",
    help="Its size, where disks have sizes of their own.",
)
@verbs.of_user
@verbs.as_json
@pass_app
def create(app: App, name: str, size_gb: int | None, user: str | None, as_json: bool) -> None:
    """Create an empty disk."""
    made = app.client.create_disk(_checked(name), user, size_gb)
    emit_json(made) if as_json else app.tell(f"Disk {made.name} is there.")


@disk.command()
@click.argument("name")
@click.argument("new_name")
@verbs.of_user
@verbs.as_json
@pass_app
def rename(app: App, name: str, new_name: str, user: str | None, as_json: bool) -> None:
    """Give a disk another name."""
    changed = app.client.rename_disk(name, _checked(new_name), user)
    emit_json(changed) if as_json else app.tell(f"Disk {name} is now called {changed.name}.")


@disk.command()
@click.argument("name")
@click.argument("size_gb", type=click.IntRange(min=1), metavar="GB")
@verbs.of_user
@verbs.as_json
@pass_app
def resize(app: App, name: str, size_gb: int, user: str | None, as_json: bool) -> None:
    """Make a disk larger. It cannot be made smaller again."""
    changed = app.client.resize_disk(name, size_gb, user)
    emit_json(changed) if as_json else app.tell(
        f"Disk {changed.name} has {changed.size_gb} GB now. A server that runs may see the room "
        "only at its next start."
    )


@disk.command()
@click.argument("name")
@verbs.yes
@verbs.of_user
@verbs.as_json
@pass_app
def delete(app: App, name: str, yes: bool, user: str | None, as_json: bool) -> None:
    """Delete a disk. It can be restored for a while."""
    found = app.client.disk(name, user)
    if not app.confirm(f"Delete disk {name} ({words.size(found.size_bytes)})?", yes=yes):
        raise Refused("Nothing was deleted.")
    gone = app.client.delete_disk(name, user)
    if as_json:
        emit_json(gone)
        return
    until = words.moment(gone.purged_after, app.now(), app.zone) if gone.purged_after else None
    how = f" Until {until} it comes back with: gpu-dev disk restore {name}" if until else ""
    app.tell(f"Disk {name} is deleted.{how}")


@disk.command()
@click.argument("name")
@_from_snapshot
@_from_time
@verbs.yes
@verbs.of_user
@verbs.as_json
@pass_app
def restore(
    app: App,
    name: str,
    snapshot: str | None,
    at: datetime | None,
    yes: bool,
    user: str | None,
    as_json: bool,
) -> None:
    """Undo a deletion, or put a disk back to one of its snapshots.

    The present state is snapshotted first.
    """
    back = snapshot is not None or at is not None
    if back and not app.confirm(f"Put disk {name} back to the snapshot?", yes=yes):
        raise Refused("Nothing was changed.")
    chosen = _snapshot_id(app, name, snapshot, user)
    restored = app.client.restore_disk(name, chosen, at, user)
    done = "is back at the snapshot" if back else "is restored"
    emit_json(restored) if as_json else app.tell(_outcome(restored, done, "is being restored"))


@disk.command()
@click.argument("name")
@click.argument("new_name")
@_from_snapshot
@_from_time
@verbs.of_user
@verbs.as_json
@pass_app
def clone(
    app: App,
    name: str,
    new_name: str,
    snapshot: str | None,
    at: datetime | None,
    user: str | None,
    as_json: bool,
) -> None:
    """Make a new disk from a disk or one of its snapshots."""
    chosen = _snapshot_id(app, name, snapshot, user)
    made = app.client.clone_disk(name, _checked(new_name), chosen, at, user)
    emit_json(made) if as_json else app.tell(
        _outcome(made, f"is a copy of {name}", f"becomes a copy of {name}")
    )


@disk.command("snapshot")
@click.argument("name")
@click.option("--note", "text", help="What it is for.")
@verbs.of_user
@verbs.as_json
@pass_app
def take(app: App, name: str, text: str | None, user: str | None, as_json: bool) -> None:
    """Take a snapshot now."""
    begun = app.client.take_snapshot(name, text, user)
    if as_json:
        emit_json(begun)
    elif begun.state == "failed":
        raise Refused(f"The snapshot of disk {name} failed.")
    else:
        what = "is ready" if begun.state == "ready" else "is being taken"
        app.tell(f"Snapshot {begun.id} of disk {name} {what}.")
        if begun.state != "ready":
            note(f"`gpu-dev disk snapshots {name}` shows its progress.", app.error_width)


@disk.command()
@click.argument("name")
@verbs.of_user
@verbs.as_json
@pass_app
def snapshots(app: App, name: str, user: str | None, as_json: bool) -> None:
    """List a disk's snapshots."""
    found = app.client.snapshots(name, user).all()
    emit_json(found) if as_json else out(_snapshots(app, name, found))


@disk.command("list-content")
@click.argument("name")
@click.argument("path", default="")
@_from_snapshot
@verbs.of_user
@verbs.as_json
@pass_app
def list_content(
    app: App, name: str, path: str, snapshot: str | None, user: str | None, as_json: bool
) -> None:
    """List a directory of a disk as it is now, or as it was in a snapshot.

    No server has to run for it. What is on a volume is known as of its newest snapshot.
    """
    chosen = _snapshot_id(app, name, snapshot, user)
    listing = app.client.disk_contents(name, path, chosen, user)
    page = listing.page()
    found = list(page.items)
    as_of = getattr(page, "as_of", None)
    while page.next_cursor is not None:
        page = listing.page(cursor=page.next_cursor)
        found += page.items
    if as_of is not None and chosen is None:
        when = words.moment(as_of, app.now(), app.zone)
        note(f"As at the disk's newest snapshot that was listed, {when}.", app.error_width)
    if as_json:
        emit_json(found)
    elif not found:
        app.tell("Nothing is in there.")
    else:
        out(_contents(app, found))


def _checked(name: str) -> str:
    import re

    from gpudev_client import limits

    if not re.fullmatch(limits.DISK_NAME, name):
        raise click.UsageError(
            f"{name!r} cannot be a disk's name: letters, digits, '.', '_' and '-' can, "
            "63 at most, beginning with a letter or digit."
        )
    return name


def _snapshot_id(app: App, disk_name: str, given: str | None, user: str | None) -> str | None:
    if given in (None, _LATEST):  # the service knows what the newest is
        return given
    return pick.match((s.id for s in app.client.snapshots(disk_name, user)), given, "snapshot")


def _outcome(disk: models.Disk, done: str, doing: str) -> str:
    if disk.busy:
        return f"Disk {disk.name} {doing} ({disk.busy})."
    return f"Disk {disk.name} {done}."


def _listing(app: App, found: Sequence[models.Disk]) -> str:
    if not found:
        return "No disks."
    now, zone = app.now(), app.zone
    rows = [
        (
            d.name,
            _size(d),
            f"in use by {d.in_use_by}" if d.in_use_by else d.busy or "",
            str(d.snapshots),
            words.moment(d.last_snapshot_at, now, zone) if d.last_snapshot_at else "",
            words.moment(d.last_used_at, now, zone) if d.last_used_at else "",
            f"until {words.moment(d.purged_after, now, zone)}" if d.purged_after else "",
        )
        for d in found
    ]
    titles = ("NAME", "SIZE", "NOW", "SNAPSHOTS", "NEWEST SNAPSHOT", "LAST USED", "RESTORABLE")
    return table(titles, rows, app.width)


def _size(d: models.Disk) -> str:
    measured = words.size(d.size_bytes)
    if d.limit_bytes is None:
        return measured
    over = ", over its limit" if d.over_limit else ""
    return f"{measured} of {words.size(d.limit_bytes)}{over}"


def _snapshots(app: App, name: str, found: Sequence[models.Snapshot]) -> str:
    if not found:
        return f"Disk {name} has no snapshots."
    now = app.now()
    rows = [
        (
            s.id,
            words.moment(s.taken_at, now, app.zone),
            s.cause,
            s.progress or s.state,
            words.size(s.size_bytes) if s.size_bytes is not None else "",
            str(s.files) if s.files is not None else "",
            s.note or "",
        )
        for s in found
    ]
    return table(("ID", "TAKEN", "CAUSE", "STATE", "SIZE", "FILES", "NOTE"), rows, app.width)


def _contents(app: App, found: Sequence[models.DiskEntry]) -> str:
    now = app.now()
    mark = {"directory": "/", "symlink": "@"}
    rows = [
        (
            e.name + mark.get(e.kind, ""),
            words.size(e.size_bytes) if e.kind == "file" else "",
            words.moment(e.modified_at, now, app.zone),
        )
        for e in found
    ]
    return table(("NAME", "SIZE", "CHANGED"), rows, app.width)
