"""Trees that change while they are copied, measured or removed."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpudev_service.disks.copying import Tally, TreeCopy
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.disks.steps import Step, nothing_listens
from gpudev_service.disks.work import Watch


class Meddling:
    """Does something to the live tree at the moment when the copy looks at its nth name."""

    def __init__(self, nth: int, deed: Callable[[], None]) -> None:
        self.left = nth
        self.deed = deed

    def __call__(self, step: Step) -> None:
        if step is Step.FILE_STARTED:
            if self.left == 0:
                self.deed()
            self.left -= 1


def copy(source: Path, to: Path, meddling: Callable[[Step], None] = nothing_listens) -> Tally:
    return TreeCopy(source, to, watch=Watch(), on_step=meddling).run()


@pytest.fixture
def live(tmp_path: Path) -> Path:
    live = tmp_path / "live"
    live.mkdir()
    return live


def test_files_that_vanish_are_counted(live: Path, tmp_path: Path) -> None:
    for number in range(10):
        (live / f"file-{number}").touch()

    def remove_all() -> None:
        for path in live.iterdir():
            path.unlink()

    tally = copy(live, tmp_path / "to", Meddling(4, remove_all))
    assert (tally.files, tally.vanished) == (4, 6)


def test_a_directory_that_vanishes_is_counted(live: Path, tmp_path: Path) -> None:
    (live / "directory").mkdir()
    (live / "file").touch()

    def replace() -> None:
        (live / "directory").rmdir()
        (live / "directory").touch()

    # Both names have been read when the second is looked at; the directory is entered last.
    is_listed_first = next(live.iterdir()).name == "directory"
    tally = copy(live, tmp_path / "to", Meddling(1, replace))
    assert (tally.files, tally.vanished) == ((1, 1) if is_listed_first else (2, 0))


def test_a_directory_swapped_for_a_link_leads_nowhere(live: Path, tmp_path: Path) -> None:
    """The classical attack: what was a directory when it was listed is a way out when entered."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("not yours")
    for number in range(3):
        (live / f"directory-{number}").mkdir()
        (live / f"directory-{number}" / "key").write_text("mine")

    def swap(step: Step) -> None:
        if step is not Step.FILE_COPIED:
            return
        for number in range(3):
            path = live / f"directory-{number}"
            if path.is_symlink() or not path.exists():
                continue
            path.rename(tmp_path / f"moved-{number}")
            path.symlink_to(secret)

    tally = copy(live, tmp_path / "to", swap)
    assert (tally.files, tally.vanished) == (1, 2)
    assert {path.read_text() for path in (tmp_path / "to").rglob("key")} == {"mine"}


def test_a_file_swapped_for_a_link_or_a_fifo(live: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    for number in range(2):
        (live / f"file-{number}").write_text("mine")

    class Swapping(TreeCopy):
        """Replaces each file between the look at its status and its opening."""

        def _copy_file(self, name: str, status: os.stat_result) -> None:
            (live / name).unlink()
            if name == "file-0":
                (live / name).symlink_to(secret)
            else:
                os.mkfifo(live / name)
            super()._copy_file(name, status)

    tally = Swapping(live, tmp_path / "to", watch=Watch(), on_step=nothing_listens).run()
    assert (tally.files, tally.vanished) == (0, 2)
    assert list((tmp_path / "to").iterdir()) == []


class Writing(Watch):
    """Stands for a program that writes to the file whenever a piece of it has been copied."""

    def __init__(self, path: Path, times: int) -> None:
        super().__init__()
        self.path = path
        self.times = times

    def report(self, files: int, size_bytes: int, *, last: bool = False) -> None:
        if self.times > 0 and not last:
            self.times -= 1
            with self.path.open("ab") as file:
                file.write(b"more")
        super().report(files, size_bytes, last=last)


def shares_blocks(directory: Path) -> bool:
    with (directory / "one").open("wb") as one, (directory / "two").open("wb") as two:
        one.write(bytes(4096))
        one.flush()
        try:
            fcntl.ioctl(two.fileno(), 0x40049409, one.fileno())
        except OSError:
            return False
    return True


@pytest.mark.parametrize(("times", "changed"), [(1, 0), (1000, 1)])
def test_a_file_that_is_written_meanwhile(
    live: Path, tmp_path: Path, times: int, changed: int
) -> None:
    if shares_blocks(tmp_path):
        pytest.skip("a file is copied in one instant here (reflink)")
    path = live / "log"
    path.write_bytes(b"x" * 6_000_000)
    tally = TreeCopy(
        live, tmp_path / "to", watch=Writing(path, times), on_step=nothing_listens
    ).run()
    assert (tally.files, tally.changed) == (1, changed)
    copied = (tmp_path / "to" / "log").read_bytes()
    assert copied == path.read_bytes()[: len(copied)]
    assert len(copied) == tally.size_bytes >= 6_000_000


async def test_a_torn_copy_is_never_shared(tmp_path: Path) -> None:
    """What was written during a snapshot is in the next, even if time and size look the same."""
    root = tmp_path / "root"
    path = DirectoryDisks(root).path("d1") / "data"

    def write(step: Step) -> None:
        if step is Step.FILE_COPIED and path.exists() and path.read_bytes() == b"one":
            before = path.stat()
            path.write_bytes(b"two")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    disks = DirectoryDisks(root, on_step=write)
    await disks.create("d1")
    path.write_bytes(b"one")
    await disks.snapshot("d1", "s1")
    await disks.snapshot("d1", "s2")
    path.unlink()
    await disks.restore("d1", "s2")
    assert path.read_bytes() == b"two"
    disks.close()
