"""Disks as PersistentVolumeClaims, snapshots as VolumeSnapshots. How they look is in `claims`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from gpudev_service.disks import claims as model
from gpudev_service.disks import indexes
from gpudev_service.disks.base import (
    CleanUp,
    ContentsUnknown,
    CopyInfo,
    DiskBusy,
    DiskFailure,
    DiskFull,
    Listing,
    NothingToKeep,
    Progress,
    SnapshotExists,
    SnapshotInfo,
    SnapshotNotFound,
    Usage,
)
from gpudev_service.disks.claims import Claim, State, Taken, current, following
from gpudev_service.disks.index_pods import IndexPods
from gpudev_service.disks.indexes import Indexed, Listings
from gpudev_service.disks.objects import Objects, Refused
from gpudev_service.disks.reach import Reach, reach_of
from gpudev_service.disks.steps import OnVolumeStep, VolumeStep, nothing_listens
from gpudev_service.disks.volume_answers import (
    copy_info,
    disk_exists,
    next_sequence,
    no_disk,
    snapshot_info,
)
from gpudev_service.disks.waiting import Options, Waiting

GB = 10**9
#: Snapshots that are listed at the same time, each by a pod of its own.
_LISTED_AT_ONCE = 4


class VolumeDisks:
    """A `DiskBackend` whose disks are volumes of a cluster.

    What is on a volume cannot be looked at from here: `index` has a pod list each snapshot once,
    and `contents` and `usage` tell what the newest index says.
    """

    takes_sizes = True

    def __init__(
        self,
        objects: Objects,
        listings: Listings,
        options: Options,
        pods: IndexPods | None,
        *,
        on_step: OnVolumeStep = nothing_listens,
    ) -> None:
        self._objects = objects
        self._listings = listings
        self._options = options
        self._pods = pods
        self._on_step = on_step
        self._waiting = Waiting(objects, options)
        self._listing = asyncio.Semaphore(_LISTED_AT_ONCE)

    def close(self) -> None:
        """Nothing to give back: the connection to the cluster is the caller's."""

    def path(self, disk_id: str) -> Path:
        raise DiskFailure(f"disk {model.checked(disk_id)} is no directory of this machine")

    # --- disks ------------------------------------------------------------------------------------

    async def exists(self, disk_id: str) -> bool:
        return current(await self._claims(disk_id)) is not None

    async def size_gb(self, disk_id: str) -> int | None:
        _, live = await self._known(disk_id)
        return -(-live.asked_bytes // GB)

    async def require_snapshots(self) -> None:
        await self._objects.require_snapshots()

    async def claim(self, disk_id: str) -> str | None:
        _, live = await self._known(disk_id)
        return live.name

    async def reach(self, disk_id: str) -> Reach | None:
        _, live = await self._known(disk_id)
        volume = await self._objects.volume(live.volume) if live.volume else None
        return None if volume is None else reach_of(volume)

    async def create(self, disk_id: str, size_gb: int | None = None) -> None:
        there = await self._claims(disk_id)
        if current(there) is not None:
            raise disk_exists()
        if there:
            raise DiskBusy("the disk is just being made or removed; try again later")
        size = self._options.size_bytes if size_gb is None else size_gb * GB
        try:
            of_class = self._options.storage_class
            await self._objects.create_claim(self._manifest(disk_id, 1, State.LIVE, size, of_class))
        except Refused as refused:
            raise (disk_exists() if refused.is_conflict else refused.told("the disk")) from refused
        self._on_step(VolumeStep.CREATED)

    async def resize(self, disk_id: str, size_gb: int) -> None:
        there, live = await self._known(disk_id)
        if size_gb * GB < live.asked_bytes:
            raise DiskFailure("a volume cannot be made smaller")
        if not live.bound:
            # What has no volume yet cannot be changed; but nothing is lost with it either.
            await self._replace_unused(there, live, size_gb * GB)
            return
        try:
            await self._objects.patch_claim(live.name, size_bytes=size_gb * GB)
        except Refused as refused:
            raise refused.told("to let the disk grow") from refused

    async def _replace_unused(self, there: list[Claim], live: Claim, size_bytes: int) -> None:
        manifest = self._manifest(
            live.disk, following(there), State.LIVE, size_bytes, live.storage_class, live.draws_on
        )
        try:
            await self._objects.create_claim(manifest)
        except Refused as refused:
            raise refused.told("the change") from refused
        await self._drop_replaced(live.disk)

    async def purge(self, disk_id: str) -> None:
        there = await self._claims(disk_id)
        live = current(there)
        if live is None and not any(each.state == State.PURGED for each in there):
            raise no_disk()
        taken = await self._objects.snapshots(disk_id)
        await self._refuse_drawn_on({each.name for each in taken}, but=disk_id)
        if live is not None:
            # The one that counts is marked last: until then the disk is there.
            for each in there:
                if each.name != live.name:
                    await self._objects.delete_claim(each.name)
            await self._patched(live, State.PURGED)
            self._on_step(VolumeStep.PURGE_MARKED)
        await self._purge_rest(disk_id)

    async def _purge_rest(self, disk_id: str) -> None:
        """Removes what a disk that is marked as gone had; the mark goes last."""
        for each in await self._objects.snapshots(disk_id):
            await self._objects.delete_snapshot(each.name)
        await self._waiting.no_snapshots(disk_id)
        self._on_step(VolumeStep.PURGE_SNAPSHOTS_GONE)
        await self._listings.remove(disk_id)
        for claim in await self._claims(disk_id):
            await self._objects.delete_claim(claim.name)
        await self._waiting.no_claims(disk_id)
        self._on_step(VolumeStep.PURGE_CLAIMS_GONE)

    # --- snapshots --------------------------------------------------------------------------------

    async def snapshot(
        self, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> SnapshotInfo:
        name = model.snapshot_name(snapshot_id)
        _, live = await self._known(disk_id)
        there = await self._objects.snapshots(disk_id)
        own = next((each for each in there if each.name == name), None)
        if own is not None and own.deleting:
            raise DiskBusy("the snapshot is just being removed; try again later")
        if own is not None and own.ready:
            raise SnapshotExists("the snapshot is already there")
        if own is None:
            if not live.bound:
                raise NothingToKeep("The disk has not been used yet: there is nothing to keep.")
            await self._begin_snapshot(disk_id, snapshot_id, live.name, next_sequence(there))
        # One that is there and not ready was begun by a process that was killed: it is taken up.
        self._on_step(VolumeStep.SNAPSHOT_BEGUN)
        ready = await self._finished_snapshot(name, "the snapshot")
        self._on_step(VolumeStep.SNAPSHOT_READY)
        return snapshot_info(ready, None)

    async def _begin_snapshot(
        self, disk_id: str, snapshot_id: str, claim: str, sequence: int, state: State | None = None
    ) -> None:
        manifest = model.new_snapshot(
            disk_id,
            snapshot_id,
            claim,
            sequence,
            self._options.now(),
            snapshot_class=self._options.snapshot_class,
            state=state,
        )
        try:
            await self._objects.create_snapshot(manifest)
        except Refused as refused:
            if not refused.is_conflict:
                raise refused.told("the snapshot") from refused

    async def _finished_snapshot(self, name: str, what: str) -> Taken:
        """Waits for a snapshot; one that does not come about is removed again."""
        try:
            return await self._waiting.ready(name, what)
        except (DiskFailure, DiskFull, asyncio.CancelledError):
            await self._objects.delete_snapshot(name)
            raise

    async def snapshots(self, disk_id: str) -> Sequence[SnapshotInfo]:
        await self._known(disk_id)
        found = [each for each in await self._objects.snapshots(disk_id) if each.is_complete]
        found.sort(key=lambda each: (each.sequence, each.taken_at))
        return [
            snapshot_info(each, await self._listings.find(disk_id, each.snapshot)) for each in found
        ]

    async def delete_snapshot(self, disk_id: str, snapshot_id: str) -> None:
        taken = await self._complete(disk_id, snapshot_id, unfinished=True)
        await self._refuse_drawn_on({taken.name})
        await self._objects.delete_snapshot(taken.name)
        self._on_step(VolumeStep.DELETE_BEGUN)
        await self._listings.remove(disk_id, snapshot_id)
        await self._waiting.no_snapshot(taken.name)

    async def _refuse_drawn_on(self, names: set[str], but: str | None = None) -> None:
        """Snapshots of which a copy is to be made that has no bytes yet are still needed."""
        for claim in await self._objects.claims():
            if claim.draws_on in names and not claim.bound and claim.disk != but:
                raise DiskBusy(
                    "A copy of this snapshot has not been used yet, and takes its bytes from it "
                    "then."
                    if claim.disk
                    else "The files of this snapshot are just being listed."
                )

    # --- copies -----------------------------------------------------------------------------------

    async def clone(
        self,
        disk_id: str,
        new_disk_id: str,
        snapshot_id: str | None = None,
        progress: Progress | None = None,
    ) -> CopyInfo:
        model.checked(new_disk_id)
        _, live = await self._known(disk_id)
        chosen = None if snapshot_id is None else await self._complete(disk_id, snapshot_id)
        await self._make_room(new_disk_id)
        if chosen is None and live.is_empty:
            await self.create(new_disk_id, live.asked_bytes // GB)
            return copy_info(None, progress)
        source = chosen or await self._source(live, new_disk_id)
        made = await self._begin_copy(new_disk_id, 1, source, live)
        self._on_step(VolumeStep.CLONE_BEGUN)
        # Else the copy may begin in any zone with its first user; until then its source is kept.
        if not await self._objects.waits_for_first_user(made.storage_class):
            await self._filled(made, "the copy")
        self._on_step(VolumeStep.CLONE_FILLED)
        await self._patched(made, State.LIVE)
        self._on_step(VolumeStep.CLONE_PUBLISHED)
        await self._drop_sources(new_disk_id)
        indexed = await self._listings.find(disk_id, chosen.snapshot) if chosen else None
        return copy_info(indexed, progress)

    async def _make_room(self, disk_id: str) -> None:
        """Refuses a disk that is there; removes what a killed process has left of one."""
        there = await self._claims(disk_id)
        if current(there) is not None:
            raise disk_exists()
        if any(not self._is_abandoned(each) for each in there):
            raise DiskBusy("the disk is just being made or removed; try again later")
        for each in there:
            await self._objects.delete_claim(each.name)
        if there:
            await self._waiting.no_claims(disk_id)

    async def _source(self, live: Claim, new_disk_id: str) -> Taken:
        """A snapshot of the present state, for a copy; it goes when the copy has its bytes."""
        if not live.bound and live.draws_on is not None:
            # Never used: what it will be made from is what it is.
            found = await self._objects.snapshot(live.draws_on)
            if found is None:
                raise SnapshotNotFound("what the disk is to be made from is gone")
            return found
        key = f"{new_disk_id}-source"
        name = model.snapshot_name(key)
        await self._begin_snapshot(new_disk_id, key, live.name, 1, State.SOURCE)
        self._on_step(VolumeStep.SOURCE_BEGUN)
        ready = await self._finished_snapshot(name, "the copy")
        self._on_step(VolumeStep.SOURCE_READY)
        return ready

    async def _drop_sources(self, disk_id: str) -> int:
        """Removes the snapshots that only the disk's own claims were made from, once they are."""
        there = await self._claims(disk_id)
        needed = {each.draws_on for each in await self._objects.claims() if not each.bound}
        dropped = 0
        for taken in await self._objects.snapshots(disk_id):
            idle = not there and not self._is_abandoned(taken)
            if taken.state == State.SOURCE and taken.name not in needed and not idle:
                await self._objects.delete_snapshot(taken.name)
                dropped += 1
        return dropped

    async def restore(
        self, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> CopyInfo:
        there, live = await self._known(disk_id)
        source = await self._complete(disk_id, snapshot_id)
        for each in there:
            if each.state == State.MAKING and self._is_abandoned(each):
                await self._objects.delete_claim(each.name)
            elif each.state == State.MAKING and not each.deleting:
                raise DiskBusy("other work is under way on this disk; try again later")
        made = await self._begin_copy(disk_id, following(there), source, live, near=live)
        self._on_step(VolumeStep.RESTORE_BEGUN)
        waits = await self._objects.waits_for_first_user(made.storage_class)
        if made.selected_node is not None or not waits:
            await self._filled(made, "the restoration")
        self._on_step(VolumeStep.RESTORE_FILLED)
        await self._patched(made, State.LIVE)
        self._on_step(VolumeStep.RESTORE_PUBLISHED)
        await self._drop_replaced(disk_id)
        self._on_step(VolumeStep.RESTORE_OLD_REMOVED)
        return copy_info(await self._listings.find(disk_id, snapshot_id), progress)

    async def _drop_replaced(self, disk_id: str) -> int:
        """Removes live states that a newer one has replaced."""
        there = await self._claims(disk_id)
        live = current(there)
        old = [
            each
            for each in there
            if live and each.state == State.LIVE and each.generation < live.generation
        ]
        for each in old:
            await self._objects.delete_claim(each.name)
        return len(old)

    async def _begin_copy(
        self, disk_id: str, generation: int, source: Taken, like: Claim, near: Claim | None = None
    ) -> Claim:
        size = max(like.asked_bytes, source.size_bytes)
        node = None if near is None else await self._objects.node_near(near)
        manifest = self._manifest(
            disk_id, generation, State.MAKING, size, like.storage_class, source.name, node
        )
        try:
            return await self._objects.create_claim(manifest)
        except Refused as refused:
            if refused.is_conflict:
                raise DiskBusy("other work is under way on this disk; try again later") from refused
            raise refused.told("the copy") from refused

    async def _filled(self, made: Claim, what: str) -> None:
        """Waits for a copy's volume; a copy that does not come about is removed again."""
        try:
            await self._waiting.bound(made.name, what)
        except (DiskFailure, DiskFull, asyncio.CancelledError):
            await self._objects.delete_claim(made.name)
            raise

    async def _patched(self, claim: Claim, state: State) -> None:
        try:
            now = await self._objects.patch_claim(claim.name, state=state)
        except Refused as refused:
            raise refused.told("the change") from refused
        if now.deleting:
            raise DiskFailure("the volume was removed meanwhile")

    # --- what is on it ----------------------------------------------------------------------------

    async def index(self, disk_id: str, snapshot_id: str) -> SnapshotInfo | None:
        _, live = await self._known(disk_id)
        taken = await self._complete(disk_id, snapshot_id)
        if self._pods is None:
            return None
        async with self._listing:
            self._on_step(VolumeStep.INDEX_BEGUN)
            try:
                pages, summary = await self._pods.run(
                    self._objects, taken, live.storage_class, live.asked_bytes
                )
            except Refused as refused:
                raise refused.told("the listing of the snapshot") from refused
        self._on_step(VolumeStep.INDEX_READ)
        indexed = Indexed(snapshot_id, taken.taken_at, summary)
        await self._listings.put(disk_id, indexed, taken.sequence, pages)
        self._on_step(VolumeStep.INDEX_STORED)
        return snapshot_info(taken, indexed)

    async def contents(
        self,
        disk_id: str,
        snapshot_id: str | None = None,
        path: str = "",
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Listing:
        model.checked(disk_id)
        if snapshot_id is not None:
            model.checked(snapshot_id)
        indexed = await self._listings.find(disk_id, snapshot_id)
        if indexed is None:
            raise await self._not_listed(disk_id, snapshot_id)
        entries, more = await indexes.page_of(self._listings, indexed, path, limit, cursor)
        return Listing(entries, more, indexed.taken_at)

    async def _not_listed(self, disk_id: str, snapshot_id: str | None) -> ContentsUnknown:
        _, live = await self._known(disk_id)
        if snapshot_id is not None:
            await self._complete(disk_id, snapshot_id)
            return ContentsUnknown("The files of this snapshot have not been listed yet.")
        if live.is_empty:
            return ContentsUnknown("The disk has not been used yet.")
        return ContentsUnknown(
            "The files of a disk are listed with each of its snapshots, and there is none yet."
        )

    async def usage(self, disk_id: str) -> Usage:
        indexed = await self._listings.find(disk_id, None)
        if indexed is None:
            raise await self._not_listed(disk_id, None)
        said = indexed.summary
        return Usage(said.size_bytes, said.allocated_bytes, said.files)

    # --- after crashes ----------------------------------------------------------------------------

    async def clean_up(self) -> CleanUp:
        everything = await self._objects.claims()
        abandoned = restored = 0
        for disk_id in sorted({each.disk for each in everything if each.disk}):
            there = [each for each in everything if each.disk == disk_id]
            for each in there:
                if each.state == State.MAKING and self._is_abandoned(each) and not each.deleting:
                    await self._objects.delete_claim(each.name, each.version)
                    abandoned += 1
            if current(there) is not None:
                restored += await self._drop_replaced(disk_id)
            elif any(each.state == State.PURGED for each in there):
                await self._purge_rest(disk_id)
                abandoned += 1
        disks = {each.disk for each in await self._objects.snapshots()}
        for disk_id in sorted(disks):
            abandoned += await self._drop_sources(disk_id)
        abandoned += await self._waiting.drop_idle_pods()
        return CleanUp(abandoned=abandoned, restored=restored)

    def _is_abandoned(self, made: Claim | Taken) -> bool:
        """Whether nobody has worked on it for so long that whoever did has been killed."""
        idle = self._options.now() - made.touched
        return idle > self._options.abandoned_after and not self._waiting.works_on(made.name)

    # --- shared -----------------------------------------------------------------------------------

    async def _claims(self, disk_id: str) -> list[Claim]:
        return await self._objects.claims(model.checked(disk_id))

    async def _known(self, disk_id: str) -> tuple[list[Claim], Claim]:
        there = await self._claims(disk_id)
        live = current(there)
        if live is None:
            raise no_disk()
        return there, live

    async def _complete(self, disk_id: str, snapshot_id: str, *, unfinished: bool = False) -> Taken:
        name = model.snapshot_name(snapshot_id)
        await self._known(disk_id)
        for each in await self._objects.snapshots(disk_id):
            if each.name == name and (each.is_complete or (unfinished and not each.deleting)):
                return each
        raise SnapshotNotFound("the disk has no such snapshot")

    def _manifest(
        self,
        disk_id: str,
        generation: int,
        state: State,
        size: int,
        storage_class: str | None,
        draws_on: str | None = None,
        node: str | None = None,
    ) -> dict[str, object]:
        return model.new_claim(
            disk_id,
            generation,
            state,
            self._options.now(),
            size_bytes=size,
            storage_class=storage_class,
            draws_on=draws_on,
            node=node,
        )
