"""What a snapshot takes over from the one before: all that is unchanged, nothing that is not."""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudev_service.disks import files
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.disks.steps import Step
from tests.disks.test_directories import snapshot_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def disks(root: Path) -> Iterator[DirectoryDisks]:
    backend = DirectoryDisks(root)
    yield backend
    backend.close()


def let_the_clock_tick(path: Path) -> None:
    """Return when the file system stamps new files later than `path`, so that it gets a mark."""
    probe = path.parent.parent / "probe"
    for _ in range(1_000_000):
        probe.touch()
        stamp = probe.stat().st_ctime_ns
        probe.unlink()
        if stamp > path.stat().st_ctime_ns:
            return
    raise AssertionError("the clock of the file system stands still")


def has_marks(directory: Path) -> bool:
    probe = directory / "marked"
    probe.touch()
    try:
        os.setxattr(probe, files.MARK, b"")
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


def bytes_read() -> int:
    """Bytes that this process has read, by any call."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


async def test_an_unchanged_file_is_not_even_read(disks: DirectoryDisks, root: Path) -> None:
    if not has_marks(root):
        pytest.skip("this file system keeps no user attributes: bytes are compared")
    await disks.create("d1")
    path = disks.path("d1") / "big"
    path.write_bytes(os.urandom(20_000_000))
    let_the_clock_tick(path)
    await disks.snapshot("d1", "s1")
    before = bytes_read()
    info = await disks.snapshot("d1", "s2")
    assert (info.files, info.new_bytes) == (1, 0)
    assert bytes_read() - before < 1_000_000


@pytest.mark.parametrize("is_marked", [True, False])
async def test_a_change_that_hides_its_time_is_seen(disks: DirectoryDisks, is_marked: bool) -> None:
    """Same size, same modification time, same name: only the change time tells."""
    await disks.create("d1")
    file = disks.path("d1") / "data"
    contents = (b"one", b"two", b"six", b"ten")
    file.write_bytes(b"---")
    for content in contents:
        before = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        if is_marked:
            let_the_clock_tick(file)
        await disks.snapshot("d1", content.decode())
    for content in contents:
        await disks.restore("d1", content.decode())
        assert file.read_bytes() == content


async def test_a_file_replaced_by_a_twin_is_seen(disks: DirectoryDisks) -> None:
    await disks.create("d1")
    file = disks.path("d1") / "data"
    twin = disks.path("d1") / "twin"
    file.write_bytes(b"one")
    twin.write_bytes(b"two")
    for path in (file, twin):
        os.utime(path, ns=(5, 5))
    let_the_clock_tick(twin)
    await disks.snapshot("d1", "s1")
    twin.rename(file)
    await disks.snapshot("d1", "s2")
    await disks.restore("d1", "s2")
    assert file.read_bytes() == b"two"


async def test_a_new_mode_or_time_alone_is_kept(disks: DirectoryDisks, root: Path) -> None:
    await disks.create("d1")
    file = disks.path("d1") / "data"
    file.write_bytes(b"same")
    file.chmod(0o600)
    os.utime(file, ns=(1, 1))
    await disks.snapshot("d1", "s1")
    file.chmod(0o640)
    await disks.snapshot("d1", "s2")
    os.utime(file, ns=(2, 2))
    await disks.snapshot("d1", "s3")
    kept = [(snapshot_tree(root, "d1", s) / "data").stat() for s in ("s1", "s2", "s3")]
    assert [(status.st_mode & 0o777, status.st_mtime_ns) for status in kept] == [
        (0o600, 1),
        (0o640, 1),
        (0o640, 2),
    ]


async def test_a_store_into_a_dirty_page_is_seen(root: Path) -> None:
    """A page that is dirty takes further stores without a stamp. Here one comes right after the
    file was copied; the next snapshot must not take the file for unchanged."""
    second_store: list[mmap.mmap] = []

    def on_step(step: Step) -> None:
        if step is Step.FILE_COPIED and second_store:
            second_store.pop()[0] = 2

    disks = DirectoryDisks(root, on_step=on_step)
    await disks.create("d1")
    path = disks.path("d1") / "mapped"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = 1
        let_the_clock_tick(path)
        second_store.append(mapped)
        await disks.snapshot("d1", "s1")
        await disks.snapshot("d1", "s2")
        assert mapped[0] == 2
    assert (snapshot_tree(root, "d1", "s1") / "mapped").read_bytes()[0] == 1
    assert (snapshot_tree(root, "d1", "s2") / "mapped").read_bytes()[0] == 2
    disks.close()


def test_only_a_time_that_is_past_becomes_a_mark(tmp_path: Path) -> None:
    """A file changed within the present tick may change again without a new change time."""
    if not has_marks(tmp_path):
        pytest.skip("this file system keeps no user attributes")
    live, copy = tmp_path / "live", tmp_path / "copy"
    live.touch()
    status = live.stat()
    with copy.open("w+b") as file:
        for clock_ns, expected in (
            (status.st_ctime_ns - 1, False),
            (status.st_ctime_ns, False),
            (status.st_ctime_ns + 1, True),
        ):
            files.mark(file.fileno(), status, clock_ns)
            assert files.is_marked(file.fileno(), status) == expected
        live.chmod(0o600)
        assert not files.is_marked(file.fileno(), live.stat()) or (
            live.stat().st_ctime_ns == status.st_ctime_ns
        )
