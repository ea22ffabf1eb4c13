"""What every disk backend must do. An implementation inherits `DiskContract`, gives it `disks`,
and says with `home` where tests find the live files of a disk.
"""

import os
from pathlib import Path

import pytest

from gpudev_service.disks import names
from gpudev_service.disks.base import (
    DiskBackend,
    DiskExists,
    DiskNotFound,
    Entry,
    InvalidCursor,
    InvalidDiskId,
    InvalidPath,
    PathNotFound,
    PathOutsideDisk,
    Progress,
    SnapshotExists,
    SnapshotInfo,
    SnapshotNotFound,
)
from tests.disks import trees


class DiskContract:
    """Subclasses provide the fixture `disks`, and say how a test reaches a disk's live files."""

    #: The mode of a new disk's top, and whether there is nothing in it; None: not the backend's.
    mode: int | None = 0o700
    #: Whether a snapshot tells how much of it is new, and long work how far it has come.
    tells_new_bytes = True
    tells_progress = True

    async def home(self, disks: DiskBackend, disk_id: str) -> Path:
        """Where the live files of a disk are for the test, ready to be read and written."""
        return disks.path(disk_id)

    async def take(
        self, disks: DiskBackend, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> SnapshotInfo:
        """A snapshot, with all that follows it in the service."""
        return await disks.snapshot(disk_id, snapshot_id, progress)

    async def look(self, disks: DiskBackend, disk_id: str) -> None:
        """Makes what is on a disk now known to `contents` and `usage`."""

    async def new_disk(self, disks: DiskBackend, disk_id: str = "d1") -> Path:
        await disks.create(disk_id)
        return await self.home(disks, disk_id)

    async def all_names(
        self, disks: DiskBackend, disk_id: str, snapshot_id: str | None = None, path: str = ""
    ) -> list[str]:
        entries, more, _ = await disks.contents(disk_id, snapshot_id, path, limit=10_000)
        assert more is None
        return [entry.name for entry in entries]

    # --- disks ------------------------------------------------------------------------------------

    async def test_a_new_disk_is_empty_and_private(self, disks: DiskBackend) -> None:
        assert not await disks.exists("d1")
        home = await self.new_disk(disks)
        assert await disks.exists("d1")
        assert list(home.iterdir()) == []
        assert self.mode is None or home.stat().st_mode & 0o7777 == self.mode
        assert await disks.snapshots("d1") == []

    async def test_a_disk_is_made_once(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        (home / "kept").touch()
        with pytest.raises(DiskExists):
            await disks.create("d1")
        assert (home / "kept").exists()

    async def test_purge_removes_disk_and_snapshots(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        trees.make_odd_tree(home)
        await self.take(disks, "d1", "s1")
        await disks.purge("d1")
        assert not await disks.exists("d1")
        with pytest.raises(DiskNotFound):
            await disks.snapshots("d1")
        await disks.create("d1")
        assert await disks.snapshots("d1") == []

    async def test_what_is_not_there_is_said_so(self, disks: DiskBackend) -> None:
        for call in (
            disks.purge("none"),
            disks.snapshot("none", "s1"),
            disks.snapshots("none"),
            disks.delete_snapshot("none", "s1"),
            disks.clone("none", "d2"),
            disks.restore("none", "s1"),
            disks.contents("none"),
            disks.usage("none"),
        ):
            with pytest.raises(DiskNotFound):
                await call
        await disks.create("d1")
        for call in (
            disks.delete_snapshot("d1", "s1"),
            disks.clone("d1", "d2", "s1"),
            disks.restore("d1", "s1"),
            disks.contents("d1", "s1"),
        ):
            with pytest.raises(SnapshotNotFound):
                await call
        assert not await disks.exists("d2")

    @pytest.mark.parametrize(
        "hostile", ["", ".", "..", "../d1", "a/b", "/etc", "-rf", "A", "a\n", "a\0", "a" * 64, "é"]
    )
    async def test_an_id_never_becomes_another_path(self, disks: DiskBackend, hostile: str) -> None:
        await disks.create("d1")
        with pytest.raises(InvalidDiskId):
            disks.path(hostile)
        for call in (
            disks.create(hostile),
            disks.exists(hostile),
            disks.purge(hostile),
            disks.usage(hostile),
            disks.snapshots(hostile),
            disks.snapshot("d1", hostile),
            disks.delete_snapshot("d1", hostile),
            disks.restore("d1", hostile),
            disks.clone("d1", hostile),
            disks.clone("d1", "d2", hostile),
            disks.contents("d1", hostile),
        ):
            with pytest.raises(InvalidDiskId):
                await call

    # --- snapshots ----------------------------------------------------------------------------

    async def test_restoring_brings_everything_back(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        trees.make_odd_tree(home)
        before = trees.describe(home)
        info = await self.take(disks, "d1", "s1")
        assert trees.describe(home) == before

        (home / "plain.txt").write_text("overwritten")
        (home / "new").touch()
        (home / "mode-644").unlink()
        (home / "empty").rmdir()

        copied = await disks.restore("d1", "s1")
        home = await self.home(disks, "d1")
        assert trees.describe(home) == before
        assert (copied.files, copied.size_bytes) == (info.files, info.size_bytes)
        usage = await disks.usage("d1")
        assert (usage.files, usage.size_bytes) == (info.files, info.size_bytes)

    async def test_a_snapshot_says_what_it_holds(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        (home / "one").write_bytes(b"x" * 1000)
        (home / "two").write_bytes(b"y" * 500)
        first = await self.take(disks, "d1", "s1")
        assert (first.files, first.size_bytes) == (2, 1500)
        assert first.taken_at.utcoffset() is not None
        (home / "two").write_bytes(b"z" * 600)
        second = await self.take(disks, "d1", "s2")
        assert (second.files, second.size_bytes) == (2, 1600)
        if self.tells_new_bytes:
            assert (first.new_bytes, second.new_bytes) == (1500, 600)
        assert list(await disks.snapshots("d1")) == [first, second]

    async def test_a_snapshot_is_taken_once(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        await self.take(disks, "d1", "s1")
        (home / "later").touch()
        with pytest.raises(SnapshotExists):
            await disks.snapshot("d1", "s1")
        assert await self.all_names(disks, "d1", "s1") == []

    async def test_later_changes_do_not_reach_a_snapshot(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        (home / "data").write_bytes(b"before")
        (home / "same").write_bytes(b"same")
        await self.take(disks, "d1", "s1")
        await self.take(disks, "d1", "s2")
        for name in ("data", "same"):
            with (home / name).open("r+b") as file:
                file.write(b"AFTER!")
            (home / name).chmod(0o600)
        await disks.restore("d1", "s2")
        assert ((await self.home(disks, "d1")) / "data").read_bytes() == b"before"
        with ((await self.home(disks, "d1")) / "data").open("r+b") as file:
            file.write(b"AGAIN!")
        await disks.restore("d1", "s1")
        assert ((await self.home(disks, "d1")) / "data").read_bytes() == b"before"
        assert ((await self.home(disks, "d1")) / "same").read_bytes() == b"same"

    async def test_deleting_one_snapshot_leaves_the_others(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        trees.make_odd_tree(home)
        before = trees.describe(home)
        for snapshot_id in ("s1", "s2", "s3"):
            await self.take(disks, "d1", snapshot_id)
        await disks.delete_snapshot("d1", "s1")
        await disks.delete_snapshot("d1", "s2")
        assert [info.id for info in await disks.snapshots("d1")] == ["s3"]
        (home / "plain.txt").unlink()
        await disks.restore("d1", "s3")
        assert trees.describe(await self.home(disks, "d1")) == before
        await disks.delete_snapshot("d1", "s3")
        with pytest.raises(SnapshotNotFound):
            await disks.delete_snapshot("d1", "s3")

    async def test_progress_ends_with_the_totals(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        trees.make_odd_tree(home)
        if not self.tells_progress:
            pytest.skip("this storage does not tell how far it has come")
        for call in (
            lambda p: disks.snapshot("d1", "s1", p),
            lambda p: disks.snapshot("d1", "s2", p),
            lambda p: disks.clone("d1", "d2", None, p),
            lambda p: disks.restore("d1", "s1", p),
        ):
            told: list[tuple[int, int]] = []
            info = await call(lambda *seen, told=told: told.append(seen))
            assert told[-1] == (info.files, info.size_bytes)
            assert told == sorted(told)

    # --- clones -------------------------------------------------------------------------------

    @pytest.mark.parametrize("snapshot_id", ["s1", None])
    async def test_a_clone_is_equal_and_separate(
        self, disks: DiskBackend, snapshot_id: str | None
    ) -> None:
        home = await self.new_disk(disks)
        trees.make_odd_tree(home)
        before = trees.describe(home)
        await self.take(disks, "d1", "s1")
        if snapshot_id is not None:
            (home / "plain.txt").write_text("not in the snapshot")
        live = trees.describe(home)

        await disks.clone("d1", "d2", snapshot_id)
        clone = await self.home(disks, "d2")
        assert trees.describe(clone) == before
        assert await disks.snapshots("d2") == []
        with (clone / "big.bin").open("r+b") as file:
            file.write(b"written to the clone")
        assert trees.describe(home) == live
        await disks.restore("d1", "s1")
        assert trees.describe(await self.home(disks, "d1")) == before
        await disks.purge("d1")
        assert (clone / "big.bin").read_bytes().startswith(b"written to the clone")

    async def test_a_clone_replaces_no_disk(self, disks: DiskBackend) -> None:
        await self.new_disk(disks, "d1")
        other = await self.new_disk(disks, "d2")
        (other / "kept").touch()
        with pytest.raises(DiskExists):
            await disks.clone("d1", "d2")
        assert (other / "kept").exists()

    # --- contents -----------------------------------------------------------------------------

    async def test_contents_tell_kind_size_and_time(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        trees.make_odd_tree(home)
        (home / "far-future").touch()
        os.utime(home / "far-future", ns=(0, 2**62))
        await self.take(disks, "d1", "s1")
        for snapshot_id in (None, "s1"):
            entries, more, _ = await disks.contents("d1", snapshot_id, limit=1000)
            assert more is None
            by_name = {entry.name: entry for entry in entries}
            assert set(by_name) == {names.shown(path.name) for path in home.iterdir()}
            assert by_name["sparse.bin"].size_bytes == 96 * 1024 * 1024
            assert by_name["big.bin"].kind == "file"
            assert by_name["a"].kind == "directory"
            assert by_name["link-outside"].kind == "symlink"
            assert all(entry.modified_at.utcoffset() is not None for entry in entries)
            plain = by_name["plain.txt"]
            assert plain.modified_at.timestamp() == pytest.approx(trees.SOME_TIME_NS / 1e9)

    async def test_contents_come_in_pages(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        trees.make_odd_tree(home)
        await self.look(disks, "d1")
        seen: list[Entry] = []
        cursor = None
        for _ in range(100):
            entries, cursor, _ = await disks.contents("d1", limit=3, cursor=cursor)
            assert len(entries) <= 3
            seen += entries
            if cursor is None:
                break
        listed = [os.fsencode(names.stored(entry.name)) for entry in seen]
        assert listed == sorted(os.fsencode(path.name) for path in home.iterdir())
        with pytest.raises(InvalidCursor):
            await disks.contents("d1", cursor="\\")

    async def test_every_directory_can_be_reached_by_its_listed_name(
        self, disks: DiskBackend
    ) -> None:
        home = await self.new_disk(disks)
        for name in trees.ODD_NAMES:
            directory = home / os.fsdecode(name)
            directory.mkdir()
            trees.write(directory, b"in", name)
        await self.look(disks, "d1")
        for listed in await self.all_names(disks, "d1"):
            assert await self.all_names(disks, "d1", None, listed) == ["in"]
            assert await self.all_names(disks, "d1", None, f"./{listed}//") == ["in"]

    async def test_a_path_never_leaves_the_disk(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks, "d1")
        sibling = await self.new_disk(disks, "d1x")
        (sibling / "secret").mkdir()
        (home / "inside").mkdir()
        (home / "out").symlink_to("/etc")
        (home / "up").symlink_to("..")
        (home / "inside" / "over").symlink_to(sibling)
        (home / "here").symlink_to("inside")
        await self.take(disks, "d1", "s1")
        for snapshot_id in (None, "s1"):
            for path in (
                "..",
                "../d1x",
                "inside/../..",
                "inside/..",
                "/",
                "/etc",
                str(sibling),
                f"../{sibling.name}",
                "out",
                "out/ssh",
                "up",
                "up/snapshots",
                "inside/over",
                "inside/over/secret",
                "here",
            ):
                with pytest.raises(PathOutsideDisk):
                    await disks.contents("d1", snapshot_id, path)
            for path in ("in\0side", "\0", "a\\b", "\\x41", "\\x2e\\x2e", "\udcff", "\\xc3\\xa9"):
                with pytest.raises(InvalidPath):
                    await disks.contents("d1", snapshot_id, path)
            for path in ("none", "inside/none/more", "x" * 300, "x/" * 5000):
                with pytest.raises(PathNotFound):
                    await disks.contents("d1", snapshot_id, path)

    async def test_a_file_is_not_listed_as_a_directory(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        (home / "file").touch()
        await self.look(disks, "d1")
        for path in ("file", "file/more"):
            with pytest.raises(PathNotFound):
                await disks.contents("d1", path=path)

    # --- usage and cleaning -------------------------------------------------------------------

    async def test_usage_counts_what_is_there(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        (home / "a").mkdir()
        (home / "a" / "one").write_bytes(b"x" * 10_000)
        (home / "two").hardlink_to(home / "a" / "one")
        with (home / "sparse").open("wb") as file:
            file.truncate(50_000_000)
        await self.look(disks, "d1")
        usage = await disks.usage("d1")
        assert (usage.size_bytes, usage.files) == (50_010_000, 2)
        assert 10_000 <= usage.allocated_bytes < 50_000_000

    async def test_clean_up_touches_nothing_that_is_whole(self, disks: DiskBackend) -> None:
        home = await self.new_disk(disks)
        trees.make_odd_tree(home)
        before = trees.describe(home)
        await self.take(disks, "d1", "s1")
        found = await disks.clean_up()
        assert (found.abandoned, found.restored) == (0, 0)
        assert trees.describe(home) == before
        assert [info.id for info in await disks.snapshots("d1")] == ["s1"]
