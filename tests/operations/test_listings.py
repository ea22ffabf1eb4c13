"""Indexes in the database: found by key, replaced, and forgotten with what they are of."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select

from gpudev_service.disks import indexes, indexing, listing
from gpudev_service.disks.indexes import Indexed
from gpudev_service.operations.listings import StoredListings, tolerated
from gpudev_service.settings import GpuTypeSpec, KubernetesType
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ListingPageRow
from tests.disks import trees
from tests.fixtures.world import START


async def test_a_snapshot_is_listed_from_the_database(store: Store, tmp_path: Path) -> None:
    kept = StoredListings(store)
    top = tmp_path / "top"
    top.mkdir()
    trees.make_odd_tree(top)
    large = top / "large"
    large.mkdir()
    for number in range(6000):
        (large / f"{number:05}-{'x' * 20}").touch()
    pages, summary = indexing.index(top, 10**7)
    assert len(pages) > 2
    indexed = Indexed("s1", START, summary)
    await kept.put("d1", indexed, 1, pages)
    assert await kept.find("d1", "s1") == indexed
    for path in ("", "a/b/c", "large", "empty"):
        found, more = await indexes.page_of(kept, indexed, path, 10_000, None)
        assert (found, more) == listing.page(top, path, 10_000, None)


async def test_the_newest_index_stands_for_the_disk(store: Store, tmp_path: Path) -> None:
    kept = StoredListings(store)
    pages, summary = indexing.index(tmp_path, 10**7)
    for number, key in enumerate(("s1", "s2", "s3"), start=1):
        # By the order in which they were taken: clocks may be set back.
        when = START - timedelta(minutes=number)
        await kept.put("d1", Indexed(key, when, summary), number, pages)
    await kept.put("d2", Indexed("other", START, summary), 9, pages)
    newest = await kept.find("d1", None)
    assert newest is not None
    assert newest.snapshot_id == "s3"
    await kept.remove("d1", "s3")
    newest = await kept.find("d1", None)
    assert newest is not None
    assert newest.snapshot_id == "s2"
    assert await kept.find("d1", "s3") is None
    assert await kept.find("d2", "s1") is None
    await kept.put("d1", Indexed("s2", START, summary), 2, pages)  # made once more
    await kept.remove("d1")
    assert await kept.find("d1", None) is None
    assert await kept.find("d2", None) is not None
    async with store.reading() as session:
        assert await session.scalar(select(func.count()).select_from(ListingPageRow)) == len(pages)


def test_what_lists_a_snapshot_goes_wherever_a_server_goes() -> None:
    own = {"key": "team", "value": "b", "effect": "NoSchedule"}
    types = [
        GpuTypeSpec(name="here", gpus_per_node=1, cpus=1, memory_gb=1),
        GpuTypeSpec(name="h100", kubernetes=KubernetesType(tolerations=(own,))),
        GpuTypeSpec(name="mig", kubernetes=KubernetesType(resource="nvidia.com/mig-1g.10gb")),
    ]
    found = tolerated(types)
    assert own in found
    for key in ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb"):
        assert {"key": key, "operator": "Exists"} in found
    assert len(found) == len({str(one) for one in found})
