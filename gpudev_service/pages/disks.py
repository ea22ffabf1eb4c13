"""Disks: the list, one disk with its snapshots, what is on it, and everything done to it."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from pydantic import Field

from gpudev_client import limits, words
from gpudev_client.models import (
    CloneRequest,
    DiskChange,
    DiskRequest,
    Page,
    Request,
    RestoreRequest,
    SizeGb,
    Snapshot,
)
from gpudev_client.models import SnapshotRequest as TakeRequest
from gpudev_service.api import access
from gpudev_service.api import disks as api
from gpudev_service.api.permissions import Right
from gpudev_service.api.route import Access, PageQuery, UserPageQuery
from gpudev_service.errors import Refusal, not_found
from gpudev_service.events import Owner

from . import disk_views as views
from .base import Done, PageHandler
from .forms import Forms

#: Snapshots among which a restoration looks for the one that was chosen.
_MOST_SNAPSHOTS = limits.PAGE_MAX


class ChosenSnapshot(UserPageQuery):
    """Which snapshot a page is about."""

    snapshot: str = Field(min_length=1, max_length=64)


class NewSize(Request):
    """How large a disk is to become."""

    size_gb: SizeGb


class DiskPage(PageHandler):
    """Base of pages about disks. `?user=` shows somebody else's to whom that is allowed."""

    tab = "disks"

    async def owner(self, needed: Access, name: str | None = None) -> Owner:
        """Whose disks the page is about, once the viewer may do `needed` with them."""
        if name is not None and re.fullmatch(limits.DISK_NAME, name) is None:
            raise not_found("disk")
        user = self.get_query_argument("user", None) or None
        return await access.person(self.service.people, needed, self.caller, user, named=name)

    def user_of(self, owner: Owner) -> str | None:
        """What addresses carry: nothing for one's own disks."""
        return None if owner.user == self.caller.name else owner.user

    def common(self, owner: Owner) -> dict[str, object]:
        return {
            "user": self.user_of(owner),
            "can_change": self.caller.grants.may(Right.DISK_WRITE, owner),
        }

    def at(self, owner: Owner, name: str, *more: str) -> str:
        return self.addresses.disk(name, *more, user=self.user_of(owner))


class Disks(DiskPage):
    """All disks of a person, and deleted ones that can be brought back."""

    async def get(self) -> None:
        await self.page(Forms())

    async def page(self, forms: Forms) -> None:
        owner = await self.owner(Access.DISK_READ)
        query = self.read_query(UserPageQuery)
        asked = api.DisksQuery(deleted=True, limit=query.limit, cursor=query.cursor)
        page = await api.listing(self.call(query=asked, owner=owner))
        there, deleted = views.split(page.items)
        user, following = self.user_of(owner), page.next_cursor
        self.show(
            "disks.html",
            disks=there,
            deleted=deleted,
            more=self.addresses.page("disks", user=user, cursor=following) if following else None,
            forms=forms,
            sized=self.service.ctx.disks.takes_sizes,
            usual_gb=self.service.ctx.settings.kubernetes.disk_size_gb,
            **self.common(owner),
        )

    async def sent(self) -> None:
        owner = await self.owner(Access.DISK_WRITE)

        async def work() -> Done:
            body = self.read_form(DiskRequest)
            disk = await api.create(self.call(body=body, owner=owner))
            return Done(f"The disk {disk.name} is there.", self.at(owner, disk.name))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(self.refused("create", refusal))


class Undelete(Disks):
    """Brings a deleted disk back."""

    async def get(self, name: str) -> None:  # type: ignore[override]
        self.go_to(self.addresses.page("disks", user=self.get_query_argument("user", None)))

    async def sent(self, name: str) -> None:  # type: ignore[override]
        owner = await self.owner(Access.DISK_WRITE, name)

        async def work() -> Done:
            call = self.call(path={"name": name}, body=RestoreRequest(), owner=owner)
            await api.restore(call)
            return Done(f"The disk {name} is back.", self.at(owner, name))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(self.refused("undelete", refusal, key=name))


class OneDisk(DiskPage):
    """A disk: facts, snapshots, renaming, cloning."""

    async def get(self, name: str) -> None:
        await self.page(name, Forms())

    async def page(self, name: str, forms: Forms) -> None:
        owner = await self.owner(Access.DISK_READ, name)
        query = self.read_query(UserPageQuery)
        path = {"name": name}
        disk = await api.show(self.call(path=path, owner=owner))
        part = PageQuery(limit=query.limit, cursor=query.cursor)
        page = await api.list_snapshots(self.call(path=path, query=part, owner=owner))
        following = page.next_cursor
        address = self.addresses.disk(name, user=self.user_of(owner), cursor=following)
        rows = [views.snapshot_row(snapshot) for snapshot in page.items]
        self.show(
            "disk.html",
            disk=views.disk_card(disk),
            snapshots=rows,
            working=disk.busy is not None or any(row.state == "taking" for row in rows),
            more=address if following else None,
            forms=forms,
            **self.common(owner),
        )


class _Action(OneDisk):
    """Base of the forms on a disk's page; a refusal shows that page again."""

    form = ""

    async def get(self, name: str) -> None:
        """A reload after a refusal: the disk's page."""
        owner = await self.owner(Access.DISK_READ, name)
        self.go_to(self.at(owner, name))

    async def work(self, name: str, owner: Owner) -> Done:
        raise NotImplementedError

    async def sent(self, name: str) -> None:
        owner = await self.owner(Access.DISK_WRITE, name)
        try:
            await self.submit(lambda: self.work(name, owner))
        except Refusal as refusal:
            await self.page(name, self.refused(self.form, refusal))


class Rename(_Action):
    form = "rename"

    async def work(self, name: str, owner: Owner) -> Done:
        body = self.read_form(DiskRequest)
        changed = DiskChange(name=body.name)
        disk = await api.change(self.call(path={"name": name}, body=changed, owner=owner))
        return Done(f"{name} is called {disk.name} now.", self.at(owner, disk.name))


class Resize(_Action):
    form = "resize"

    async def work(self, name: str, owner: Owner) -> Done:
        body = self.read_form(NewSize)
        changed = DiskChange(size_gb=body.size_gb)
        disk = await api.change(self.call(path={"name": name}, body=changed, owner=owner))
        return Done(f"{name} has {disk.size_gb} GB now.", self.at(owner, name))


class Take(_Action):
    form = "snapshot"

    async def work(self, name: str, owner: Owner) -> Done:
        body = self.read_form(TakeRequest)
        await api.take_snapshot(self.call(path={"name": name}, body=body, owner=owner))
        return Done("A snapshot is being taken.", self.at(owner, name))


class Clone(_Action):
    form = "clone"

    async def work(self, name: str, owner: Owner) -> Done:
        body = self.read_form(CloneRequest)
        disk = await api.clone(self.call(path={"name": name}, body=body, owner=owner))
        return Done(f"{name} is being cloned to {disk.name}.", self.at(owner, disk.name))


class Delete(DiskPage):
    """Asks once more, then deletes; says until when that can be undone."""

    async def get(self, name: str) -> None:
        await self.page(name, Forms())

    async def page(self, name: str, forms: Forms) -> None:
        owner = await self.owner(Access.DISK_WRITE, name)
        disk = await api.show(self.call(path={"name": name}, owner=owner))
        days = self.service.ctx.settings.policy.of(owner.groups).disk_retention_days
        self.show(
            "disk-delete.html",
            disk=views.disk_card(disk),
            days=words.counted(days, "day"),
            forms=forms,
            **self.common(owner),
        )

    async def sent(self, name: str) -> None:
        owner = await self.owner(Access.DISK_WRITE, name)

        async def work() -> Done:
            await api.delete(self.call(path={"name": name}, owner=owner))
            back = self.addresses.page("disks", user=self.user_of(owner))
            return Done(f"The disk {name} is deleted. It can be restored below for a while.", back)

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(name, self.refused("delete", refusal))


class Restore(DiskPage):
    """Asks once more, then puts a disk back to a snapshot."""

    async def get(self, name: str) -> None:
        await self.page(name, Forms())

    async def page(self, name: str, forms: Forms) -> None:
        owner = await self.owner(Access.DISK_WRITE, name)
        wanted = self.read_query(ChosenSnapshot).snapshot
        disk = await api.show(self.call(path={"name": name}, owner=owner))
        snapshot = await self._snapshot(name, owner, wanted)
        self.show(
            "disk-restore.html",
            disk=views.disk_card(disk),
            snapshot=views.snapshot_row(snapshot),
            forms=forms,
            **self.common(owner),
        )

    async def _snapshot(self, name: str, owner: Owner, wanted: str) -> Snapshot:
        query = PageQuery(limit=_MOST_SNAPSHOTS)
        while True:
            call = self.call(path={"name": name}, query=query, owner=owner)
            page: Page[Snapshot] = await api.list_snapshots(call)
            for snapshot in page.items:
                if snapshot.id == wanted:
                    return snapshot
            if page.next_cursor is None:
                raise not_found("snapshot")
            query = PageQuery(limit=_MOST_SNAPSHOTS, cursor=page.next_cursor)

    async def sent(self, name: str) -> None:
        owner = await self.owner(Access.DISK_WRITE, name)
        wanted = self.read_query(ChosenSnapshot).snapshot

        async def work() -> Done:
            body = RestoreRequest(snapshot=wanted)
            await api.restore(self.call(path={"name": name}, body=body, owner=owner))
            return Done(f"{name} is being put back.", self.at(owner, name))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(name, self.refused("restore", refusal))


class Contents(DiskPage):
    """What is on a disk, or was on it at a snapshot, directory by directory."""

    async def get(self, name: str) -> None:
        owner = await self.owner(Access.DISK_READ, name)
        query = self.read_query(api.ContentsQuery)
        page = await api.contents(self.call(path={"name": name}, query=query, owner=owner))

        def address(path: str | None, cursor: str | None = None) -> str | None:
            if path is None:
                return None
            given = {
                "user": self.user_of(owner),
                "snapshot": query.snapshot,
                "path": path,
                "cursor": cursor,
            }
            asked = urlencode({k: v for k, v in given.items() if v}, errors="surrogateescape")
            return f"{self.addresses.disk(name, 'contents')}?{asked}"

        self.show(
            "contents.html",
            disk_name=name,
            snapshot=query.snapshot,
            as_of=page.as_of,
            crumbs=views.crumbs(name, query.path),
            entries=views.entry_rows(page.items, query.path),
            address=address,
            more=address(query.path, page.next_cursor) if page.next_cursor else None,
            **self.common(owner),
        )
