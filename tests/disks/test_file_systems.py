"""The contract on file systems that share blocks (XFS, btrfs), and on one that is full.

They are made in files and mounted, which takes root and the tools to make them.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudev_service.disks.base import DiskFull
from gpudev_service.disks.directories import DirectoryDisks
from tests.disks import trees
from tests.disks.contract import DiskContract
from tests.disks.test_directories import snapshot_tree

_MAKE = {
    "xfs": (["mkfs.xfs", "-q", "-m", "reflink=1"], 320),
    "btrfs": (["mkfs.btrfs", "-q"], 256),
    "ext4": (["mkfs.ext4", "-q"], 64),
}


def command(*arguments: str | Path) -> None:
    """Run a system command; what it cannot do here skips the test with its words."""
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        pytest.skip(f"{arguments[0]}: {ended.stderr.strip()}")


def unmount(top: Path) -> None:
    subprocess.run(["umount", top], check=True)


def mounted(kind: str, directory: Path) -> Iterator[Path]:
    """A fresh file system of a kind, mounted for the length of a test."""
    make, mebibytes = _MAKE[kind]
    if shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} is not installed")
    image, top = directory / f"{kind}.img", directory / kind
    with image.open("wb") as file:
        file.truncate(mebibytes * 1024 * 1024)
    top.mkdir()
    command(*make, image)
    command("mount", "-o", "loop", image, top)
    try:
        yield top
    finally:
        unmount(top)


@pytest.fixture(params=["xfs", "btrfs"])
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield from mounted(request.param, tmp_path)


class TestOnSharingFileSystems(DiskContract):
    @pytest.fixture
    def disks(self, sharing: Path) -> Iterator[DirectoryDisks]:
        backend = DirectoryDisks(sharing / "root", progress_seconds=0)
        yield backend
        backend.close()

    async def test_even_the_first_copy_shares_its_blocks(
        self, disks: DirectoryDisks, sharing: Path
    ) -> None:
        await disks.create("d1")
        size = 40 * 1024 * 1024
        (disks.path("d1") / "big").write_bytes(os.urandom(size))
        os.sync()
        before = shutil.disk_usage(sharing).used
        await disks.snapshot("d1", "s1")
        await disks.clone("d1", "d2")
        await disks.restore("d1", "s1")
        os.sync()
        assert shutil.disk_usage(sharing).used - before < size // 4
        with (disks.path("d2") / "big").open("r+b") as file:
            file.write(b"written to the clone")
        live = (disks.path("d1") / "big").read_bytes()
        assert (snapshot_tree(sharing / "root", "d1", "s1") / "big").read_bytes() == live


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    yield from mounted("ext4", tmp_path)


async def test_a_full_file_system_is_said_and_leaves_nothing(small: Path) -> None:
    root = small / "root"
    disks = DirectoryDisks(root)
    await disks.create("d1")
    (disks.path("d1") / "big").write_bytes(os.urandom(30 * 1024 * 1024))
    before = trees.describe(disks.path("d1"))
    for call in (disks.snapshot("d1", "s1"), disks.clone("d1", "d2")):
        with pytest.raises(DiskFull) as caught:
            await call
        assert str(small) not in str(caught.value)
    assert await disks.snapshots("d1") == []
    assert not await disks.exists("d2")
    assert trees.describe(disks.path("d1")) == before
    assert not list((root / "staging").iterdir())
    disks.close()


@pytest.mark.mount
async def test_what_is_mounted_inside_a_disk_is_not_copied(tmp_path: Path) -> None:
    disks = DirectoryDisks(tmp_path / "root")
    await disks.create("d1")
    inside = disks.path("d1") / "mounted"
    inside.mkdir()
    command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", inside)
    try:
        (inside / "foreign").write_bytes(b"x" * 1000)
        (disks.path("d1") / "own").write_bytes(b"y")
        info = await disks.snapshot("d1", "s1")
        usage = await disks.usage("d1")
    finally:
        unmount(inside)
    assert (info.files, info.skipped) == (1, 1)
    assert (usage.files, usage.size_bytes) == (1, 1)
    disks.close()
