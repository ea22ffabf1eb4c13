"""Indexes of snapshots, kept in the database: all replicas of the service list from there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.disks.index_pods import IndexPods
from gpudev_service.disks.indexes import Indexed, Page, Summary
from gpudev_service.disks.objects import Objects
from gpudev_service.disks.volumes import GB, VolumeDisks
from gpudev_service.disks.waiting import Options
from gpudev_service.fleet.parts import tolerations
from gpudev_service.settings import GpuTypeSpec, Settings
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ListingPageRow, ListingRow

if TYPE_CHECKING:
    from gpudev_service.kube.connection import Kube


class StoredListings:
    """The `Listings` of `disks.indexes`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(
        self, disk_id: str, indexed: Indexed, sequence: int, pages: Sequence[Page]
    ) -> None:
        async def work(session: AsyncSession) -> None:
            await _remove(session, [indexed.snapshot_id])
            session.add(
                ListingRow(
                    snapshot_id=indexed.snapshot_id,
                    disk_id=disk_id,
                    taken_at=indexed.taken_at,
                    sequence=sequence,
                    summary=indexed.summary.to_json(),
                )
            )
            await session.flush()
            session.add_all(
                ListingPageRow(
                    snapshot_id=indexed.snapshot_id, number=number, first=page.first, data=page.data
                )
                for number, page in enumerate(pages)
            )

        await self._store.run(work)

    async def find(self, disk_id: str, snapshot_id: str | None) -> Indexed | None:
        query = select(ListingRow).where(ListingRow.disk_id == disk_id)
        if snapshot_id is None:
            query = query.order_by(ListingRow.sequence.desc()).limit(1)
        else:
            query = query.where(ListingRow.snapshot_id == snapshot_id)
        async with self._store.reading() as session:
            row = await session.scalar(query)
        return None if row is None else Indexed(row.snapshot_id, row.taken_at, _summary(row))

    async def page(self, snapshot_id: str, key: bytes) -> tuple[int, bytes] | None:
        row = ListingPageRow
        async with self._store.reading() as session:
            found = await session.execute(
                select(row.number, row.data)
                .where(row.snapshot_id == snapshot_id, row.first <= key)
                .order_by(row.number.desc())
                .limit(1)
            )
        return next(((each.number, each.data) for each in found), None)

    async def numbered(self, snapshot_id: str, number: int) -> bytes | None:
        async with self._store.reading() as session:
            found = await session.get(ListingPageRow, (snapshot_id, number))
        return None if found is None else found.data

    async def remove(self, disk_id: str, snapshot_id: str | None = None) -> None:
        async def work(session: AsyncSession) -> None:
            query = select(ListingRow.snapshot_id).where(ListingRow.disk_id == disk_id)
            if snapshot_id is not None:
                query = query.where(ListingRow.snapshot_id == snapshot_id)
            await _remove(session, list(await session.scalars(query)))

        await self._store.run(work)


def _summary(row: ListingRow) -> Summary:
    return Summary(**row.summary)


async def _remove(session: AsyncSession, snapshots: Sequence[str]) -> None:
    for table in (ListingPageRow, ListingRow):
        await session.execute(delete(table).where(table.snapshot_id.in_(snapshots)))


def tolerated(types: Iterable[GpuTypeSpec]) -> list[Mapping[str, Any]]:
    """What pods of any of the types tolerate, each once."""
    found: list[Mapping[str, Any]] = []
    for kind in types:
        for one in tolerations(kind.kubernetes) if kind.kubernetes is not None else ():
            if one not in found:
                found.append(one)
    return found


def volume_disks(kube: Kube, settings: Settings, store: Store) -> VolumeDisks:
    """Disks as volumes of the cluster, as the settings say."""
    said = settings.kubernetes
    options = Options(
        size_bytes=said.disk_size_gb * GB,
        storage_class=said.storage_class,
        snapshot_class=said.snapshot_class,
    )
    pods = None
    if said.index_image:
        borne = tuple(tolerated(settings.gpu_types.values()))
        pods = IndexPods(said.index_image, said.index_uid, tolerations=borne)
    return VolumeDisks(Objects(kube, said.namespace), StoredListings(store), options, pods)
