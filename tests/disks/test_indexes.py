"""An index lists what the directory itself lists, from pages alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpudev_service.disks import indexes, indexing, listing
from gpudev_service.disks.base import ContentsUnknown, Entry, PathNotFound, PathOutsideDisk
from gpudev_service.disks.indexes import Indexed, Page
from tests.disks import trees

NOW = datetime(2031, 5, 1, tzinfo=UTC)


class Pages:
    """Pages of one index in a list, found as a database finds them."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self.pages = list(pages)

    async def put(
        self, disk_id: str, indexed: Indexed, sequence: int, pages: Sequence[Page]
    ) -> None:
        self.pages = list(pages)

    async def find(self, disk_id: str, snapshot_id: str | None) -> Indexed | None:
        return None

    async def page(self, snapshot_id: str, key: bytes) -> tuple[int, bytes] | None:
        before = [at for at, page in enumerate(self.pages) if page.first <= key]
        return (before[-1], self.pages[before[-1]].data) if before else None

    async def numbered(self, snapshot_id: str, number: int) -> bytes | None:
        return self.pages[number].data if number < len(self.pages) else None

    async def remove(self, disk_id: str, snapshot_id: str | None = None) -> None:
        self.pages = []


def made(top: Path, most: int = 10**7) -> tuple[Pages, Indexed]:
    """The index of a tree, through the text that a pod would write."""
    text = "\n".join(indexing.written(*indexing.index(top, most))) + "\n"
    pages, summary = indexing.read(text)
    return Pages(pages), Indexed("s1", NOW, summary)


async def everything(pages: Pages, indexed: Indexed, path: str, limit: int = 7) -> list[Entry]:
    found: list[Entry] = []
    cursor = None
    while True:
        entries, cursor = await indexes.page_of(pages, indexed, path, limit, cursor)
        found += entries
        if cursor is None:
            return found


async def test_every_directory_lists_as_it_is(tmp_path: Path) -> None:
    trees.make_odd_tree(tmp_path)
    (tmp_path / "odd").mkdir()
    for odd in trees.ODD_NAMES:
        trees.write(tmp_path / "odd", odd, b"")
    for name in ("a.b", "a b", "a\x01b", "a0", "a-"):
        (tmp_path / name / "inner").mkdir(parents=True)
    pages, indexed = made(tmp_path)
    for path in ["", "a", "a/b/c", "empty", "odd", "a.b", "a b", "a\x01b/inner", "a0", "a-"]:
        expected, more = listing.page(tmp_path, path, 10_000, None)
        assert more is None
        assert await everything(pages, indexed, path) == expected


async def test_a_directory_may_go_over_many_pages(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    for number in range(9000):
        (large / f"{number:06}-{'x' * 30}").touch()
    (tmp_path / "z").mkdir()
    pages, indexed = made(tmp_path)
    assert len(pages.pages) > 3
    assert (
        await everything(pages, indexed, "large", 1000)
        == listing.page(tmp_path, "large", 10_000, None)[0]
    )
    assert await everything(pages, indexed, "z") == []


async def test_what_cannot_be_listed_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to("inside")
    pages, indexed = made(tmp_path)
    for path, error in (
        ("none", PathNotFound),
        ("inside/none/more", PathNotFound),
        ("file", PathNotFound),
        ("file/more", PathNotFound),
        ("link", PathOutsideDisk),
        ("link/more", PathOutsideDisk),
        ("x/" * 5000, PathNotFound),
    ):
        with pytest.raises(error):
            await indexes.page_of(pages, indexed, path, 10, None)


async def test_an_index_that_is_too_large_ends_early_and_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4000):
            (tmp_path / name / f"{number:06}-{'y' * 40}").touch()
    whole, _ = made(tmp_path)
    first = len(whole.pages[0].data) + len(whole.pages[0].first)
    pages, indexed = made(tmp_path, first)
    assert not indexed.summary.complete
    assert indexed.summary.files == 8000
    with pytest.raises(ContentsUnknown):
        await everything(pages, indexed, "a", 1000)
    with pytest.raises(ContentsUnknown):
        await everything(pages, indexed, "b")


def test_the_summary_measures_as_the_listing_does(tmp_path: Path) -> None:
    trees.make_odd_tree(tmp_path)
    (tmp_path / "again").hardlink_to(tmp_path / "big.bin")
    _, summary = indexing.index(tmp_path, 10**7)
    usage = listing.measure(tmp_path, lambda: None)
    assert (summary.size_bytes, summary.allocated_bytes, summary.files) == (
        usage.size_bytes,
        usage.allocated_bytes,
        usage.files,
    )


@pytest.mark.parametrize("damage", ["", "x", "gpudev-index 1", "gpudev-index 1\nend {}"])
def test_a_log_that_is_not_whole_is_refused(damage: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        indexing.read(damage)


def test_a_log_that_lost_its_middle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lines = list(indexing.written(*indexing.index(tmp_path, 10**6)))
    with pytest.raises(ValueError, match=r"whole|damaged"):
        indexing.read("\n".join([lines[0], *lines[3:]]))
    assert indexing.read("\n".join(lines))[1].files == 1
