"""Directories as disks: the contract, and what is particular to files of this machine."""

import asyncio
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gpudev_service.disks import trees as walking
from gpudev_service.disks.base import CleanUp, DiskBusy
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.disks.steps import Step
from tests.disks import trees
from tests.disks.contract import DiskContract


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def disks(root: Path) -> Iterator[DirectoryDisks]:
    backend = DirectoryDisks(root, progress_seconds=0)
    yield backend
    backend.close()


class TestDirectoryDisks(DiskContract):
    """The contract, on whatever file system the temporary directory has."""


def snapshot_tree(root: Path, disk_id: str, snapshot_id: str) -> Path:
    return root / "disks" / disk_id / "snapshots" / snapshot_id / "tree"


def is_tidy(root: Path) -> bool:
    return not list((root / "staging").iterdir()) and not list((root / "trash").iterdir())


async def test_an_unchanged_file_costs_no_space(disks: DirectoryDisks, root: Path) -> None:
    await disks.create("d1")
    trees.make_odd_tree(disks.path("d1"))
    first = await disks.snapshot("d1", "s1")
    assert first.new_bytes == first.size_bytes
    alone = trees.allocated(snapshot_tree(root, "d1", "s1"))
    for snapshot_id in ("s2", "s3"):
        info = await disks.snapshot("d1", snapshot_id)
        assert info.new_bytes == 0
    together = [snapshot_tree(root, "d1", s) for s in ("s1", "s2", "s3")]
    assert trees.allocated(*together) == alone
    # The live files are nobody's second name.
    for path in disks.path("d1").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.stat().st_nlink == 1


async def test_a_restored_disk_shares_again(disks: DirectoryDisks, root: Path) -> None:
    """New inodes carry no proof; their bytes are compared, and the space is still shared."""
    await disks.create("d1")
    trees.make_odd_tree(disks.path("d1"))
    await disks.snapshot("d1", "s1")
    await disks.restore("d1", "s1")
    assert (await disks.snapshot("d1", "s2")).new_bytes == 0


async def test_holes_stay_holes(disks: DirectoryDisks, root: Path) -> None:
    await disks.create("d1")
    with (disks.path("d1") / "sparse").open("wb") as file:
        file.truncate(200_000_000)
        file.seek(100_000_000)
        file.write(b"x")
    await disks.snapshot("d1", "s1")
    assert trees.allocated(snapshot_tree(root, "d1", "s1")) < 1_000_000


async def test_attributes_follow_and_a_forged_mark_does_not(
    disks: DirectoryDisks, root: Path
) -> None:
    await disks.create("d1")
    path = disks.path("d1") / "file"
    path.write_text("content")
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    os.setxattr(path, "user.gpudev.source", b"forged")
    path.chmod(0o444)
    await disks.snapshot("d1", "s1")
    copy = snapshot_tree(root, "d1", "s1") / "file"
    assert os.getxattr(copy, "user.note") == b"kept"
    assert b"forged" not in [os.getxattr(copy, name) for name in os.listxattr(copy)]
    await disks.restore("d1", "s1")
    assert os.listxattr(path) == ["user.note"]

    path.chmod(0o644)
    os.setxattr(path, "user.note", b"other")
    path.chmod(0o444)
    assert (await disks.snapshot("d1", "s2")).new_bytes == 7
    assert os.getxattr(copy, "user.note") == b"kept"


async def test_special_files_are_left_out_and_counted(disks: DirectoryDisks, root: Path) -> None:
    await disks.create("d1")
    (disks.path("d1") / "file").touch()
    left_out = trees.make_special_files(disks.path("d1"))
    info = await disks.snapshot("d1", "s1")
    assert (info.files, info.skipped) == (1, left_out)
    assert [path.name for path in snapshot_tree(root, "d1", "s1").iterdir()] == ["file"]
    entries, _, _ = await disks.contents("d1")
    assert [entry.kind for entry in entries] == ["other", "file", "other"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_what_cannot_be_read_is_counted(disks: DirectoryDisks) -> None:
    await disks.create("d1")
    home = disks.path("d1")
    (home / "secret").touch(0o000)
    (home / "closed").mkdir(0o000)
    (home / "listed").mkdir()
    (home / "listed" / "file").touch()
    (home / "listed").chmod(0o400)
    (home / "open").touch()
    info = await disks.snapshot("d1", "s1")
    assert (info.files, info.unreadable) == (1, 3)
    home.chmod(0o500)
    await disks.restore("d1", "s1")
    await disks.purge("d1")
    assert await disks.clean_up() == CleanUp(abandoned=0, restored=0)


async def test_a_deep_tree_needs_few_open_files(disks: DirectoryDisks) -> None:
    """Deeper than a path may be long, and than this process may open files."""
    await disks.create("d1")
    depth = 700
    walk = walking.Descent(disks.path("d1"))
    for _ in range(depth):
        os.mkdir("directory", dir_fd=walk.fd)
        walk.descend("directory")
    os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=walk.fd))
    walk.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Beside those that this process, in which other tests have run, has open.
    few = psutil.Process().num_fds() + 200
    assert few < depth
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        assert (await disks.snapshot("d1", "s1")).files == 1
        assert (await disks.snapshot("d1", "s2")).files == 1
        await disks.restore("d1", "s2")
        assert (await disks.usage("d1")).files == 1
        deepest = "/".join(["directory"] * depth)
        entries, _, _ = await disks.contents("d1", "s2", deepest)
        assert [entry.name for entry in entries] == ["bottom"]
        await disks.purge("d1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_two_processes_keep_out_of_each_others_way(root: Path) -> None:
    """A second backend on the same root, as another process has it, while work is under way."""
    other = DirectoryDisks(root)
    busy: list[str] = []

    async def meddle() -> None:
        for name, call in (
            ("snapshot", other.snapshot("d1", "s9")),
            ("restore", other.restore("d1", "s1")),
            ("purge", other.purge("d1")),
            ("delete the base", other.delete_snapshot("d1", "s1")),
        ):
            try:
                await call
            except DiskBusy:
                busy.append(name)
        found = await other.clean_up()
        busy.append(f"cleaned {found.abandoned}")

    meddle_at: set[Step] = set()

    def on_step(step: Step) -> None:
        if step in meddle_at:
            meddle_at.clear()
            asyncio.run(meddle())

    disks = DirectoryDisks(root, on_step=on_step)
    await disks.create("d1")
    (disks.path("d1") / "file").write_text("content")
    await disks.snapshot("d1", "s1")
    meddle_at.add(Step.SNAPSHOT_COPIED)
    await disks.snapshot("d1", "s2")
    assert busy == ["snapshot", "restore", "purge", "delete the base", "cleaned 0"]
    assert [info.id for info in await disks.snapshots("d1")] == ["s1", "s2"]
    disks.close()
    other.close()


async def test_cancelled_work_ends_and_leaves_nothing(root: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def on_step(step: Step) -> None:
        if step is Step.FILE_COPIED:
            begun.set()
            assert go_on.wait(60)

    disks = DirectoryDisks(root, on_step=on_step)
    await disks.create("d1")
    for number in range(5):
        (disks.path("d1") / f"file-{number}").touch()
    work = asyncio.create_task(disks.snapshot("d1", "s1"))
    assert await asyncio.to_thread(begun.wait, 60)
    # The loop is free while a thread copies.
    entries, _, _ = await disks.contents("d1")
    assert len(entries) == 5
    work.cancel()
    await asyncio.sleep(0)
    assert not work.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await disks.snapshots("d1") == []
    assert is_tidy(root)
    assert (await disks.snapshot("d1", "s1")).files == 5
    disks.close()
