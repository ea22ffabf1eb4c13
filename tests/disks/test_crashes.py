"""A process is killed (SIGKILL) at every named step of every operation. What is visible afterwards
is the state before or the state after, never something between, and `clean_up` removes the rest.
"""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.disks.steps import Step
from tests.disks import crash_child, trees

_COPYING = ((Step.FILE_STARTED, 3), (Step.FILE_COPIED, 3))

#: Every operation with the steps at which it is killed, and how often each passes before.
CRASHES = {
    "create": ((Step.CREATE_STAGED, 0), (Step.CREATE_PUBLISHED, 0)),
    "snapshot": (
        (Step.SNAPSHOT_STAGED, 0),
        *_COPYING,
        (Step.SNAPSHOT_COPIED, 0),
        (Step.SNAPSHOT_DESCRIBED, 0),
        (Step.SNAPSHOT_SYNCED, 0),
        (Step.SNAPSHOT_PUBLISHED, 0),
    ),
    "clone": (
        (Step.CLONE_STAGED, 0),
        *_COPYING,
        (Step.CLONE_COPIED, 0),
        (Step.CLONE_PUBLISHED, 0),
    ),
    "restore": (
        (Step.RESTORE_STAGED, 0),
        *_COPYING,
        (Step.RESTORE_COPIED, 0),
        (Step.RESTORE_INCOMING, 0),
        (Step.RESTORE_SET_ASIDE, 0),
        (Step.RESTORE_PUBLISHED, 0),
        (Step.DIRECTORY_REMOVED, 1),
    ),
    "delete": ((Step.DELETE_SET_ASIDE, 0), (Step.DIRECTORY_REMOVED, 1)),
    "purge": ((Step.PURGE_SET_ASIDE, 0), (Step.DIRECTORY_REMOVED, 3)),
}
CASES = [(name, step, passes) for name, steps in CRASHES.items() for step, passes in steps]


def test_every_step_has_a_crash() -> None:
    assert {step for _, step, _ in CASES} == set(Step)


def crash(root: Path, operation: str, step: Step, passes: int) -> None:
    child = [sys.executable, crash_child.__file__, str(root), operation, step, str(passes)]
    ended = subprocess.run(child, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


class World:
    """A disk with a snapshot of its past, and what may be seen after a crash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disks = DirectoryDisks(root)
        self.home = self.disks.path("d1")

    async def prepare(self) -> None:
        await self.disks.create("d1")
        for number in range(4):
            (self.home / f"directory-{number}").mkdir()
            (self.home / f"directory-{number}" / "file").write_bytes(bytes(9000 + number))
            (self.home / f"file-{number}").write_text(f"old {number}")
        self.past = trees.describe(self.home)
        await self.disks.snapshot("d1", "s1")
        (self.home / "file-1").write_text("changed")
        (self.home / "file-2").unlink()
        self.present = trees.describe(self.home)

    def tree(self, disk_id: str, snapshot_id: str) -> dict[bytes, tuple[object, ...]]:
        return trees.describe(self.root / "disks" / disk_id / "snapshots" / snapshot_id / "tree")

    async def check(self, operation: str) -> bool:
        """Everything visible is whole; returns whether the operation had taken effect."""
        if operation == "purge":
            return not await self.disks.exists("d1")
        snapshots = [info.id for info in await self.disks.snapshots("d1")]
        for snapshot_id in snapshots:
            expected = self.past if snapshot_id == "s1" else self.present
            assert self.tree("d1", snapshot_id) == expected
        live = trees.describe(self.home)
        assert live in ([self.past, self.present] if operation == "restore" else [self.present])
        possible = {"snapshot": (["s1"], ["s1", "s2"]), "delete": (["s1"], [])}
        assert snapshots in possible.get(operation, (["s1"],))
        effects = {
            "restore": live == self.past,
            "snapshot": "s2" in snapshots,
            "delete": "s1" not in snapshots,
        }
        return effects[operation] if operation in effects else await self.has_new(operation)

    async def has_new(self, operation: str) -> bool:
        """Whether `create` or `clone` made the disk, which then is whole."""
        if not await self.disks.exists("new"):
            return False
        new = trees.describe(self.disks.path("new"))
        if operation == "clone":
            assert new == self.past
        else:
            assert list(new) == [b""]
        assert await self.disks.snapshots("new") == []
        return True


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "root")
    await world.prepare()
    yield world
    world.disks.close()


def leftovers(root: Path) -> list[Path]:
    found = [*(root / "staging").iterdir(), *(root / "trash").iterdir()]
    return found + list((root / "disks").glob("*/incoming"))


@pytest.mark.parametrize(("operation", "step", "passes"), CASES)
async def test_a_crash_leaves_the_old_or_the_new(
    world: World, operation: str, step: Step, passes: int
) -> None:
    crash(world.root, operation, step, passes)
    if step is not Step.RESTORE_SET_ASIDE:
        # The one moment at which a disk has no live state; `clean_up` runs before anything else.
        await world.check(operation)

    await world.disks.clean_up()
    assert leftovers(world.root) == []
    took_effect = await world.check(operation)
    assert took_effect == (step in AFTER_EFFECT)

    if not took_effect:
        await crash_child.operate(world.disks, operation)
        assert await world.check(operation)
        assert leftovers(world.root) == []


#: The steps after which the operation stands, whatever happens to the process.
AFTER_EFFECT = {
    Step.CREATE_PUBLISHED,
    Step.SNAPSHOT_PUBLISHED,
    Step.CLONE_PUBLISHED,
    Step.RESTORE_SET_ASIDE,
    Step.RESTORE_PUBLISHED,
    Step.DELETE_SET_ASIDE,
    Step.PURGE_SET_ASIDE,
    Step.DIRECTORY_REMOVED,
}


async def test_a_crash_while_cleaning_up(world: World) -> None:
    crash(world.root, "purge", Step.PURGE_SET_ASIDE, 0)
    crash(world.root, "clean-up", Step.DIRECTORY_REMOVED, 2)
    assert leftovers(world.root)
    await world.disks.clean_up()
    assert leftovers(world.root) == []


async def test_the_next_snapshot_after_a_crash_still_shares(world: World) -> None:
    crash(world.root, "snapshot", Step.SNAPSHOT_SYNCED, 0)
    await world.disks.clean_up()
    info = await world.disks.snapshot("d1", "s3")
    assert info.new_bytes == len("changed")
    assert world.tree("d1", "s3") == world.present
