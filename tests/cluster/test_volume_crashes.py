"""A process is killed (SIGKILL) at every named step of every operation on volumes. What is visible
afterwards is the state before or the state after, and `clean_up` removes the rest."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_service.disks.base import ContentsUnknown
from gpudev_service.disks.claims import State
from gpudev_service.disks.steps import VolumeStep
from gpudev_service.disks.volumes import VolumeDisks
from tests.cluster import volume_child
from tests.cluster.volumes import Folders, Setting, hand_over
from tools.cluster.kubectl import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

#: Every operation with its steps, and whether the operation stands when the process dies there.
CRASHES: dict[str, dict[VolumeStep, bool]] = {
    "create": {VolumeStep.CREATED: True},
    # Who has asked the cluster for a snapshot gets it, whether they live to see it or not.
    "snapshot": {VolumeStep.SNAPSHOT_BEGUN: True, VolumeStep.SNAPSHOT_READY: True},
    "clone": {
        VolumeStep.SOURCE_BEGUN: False,
        VolumeStep.SOURCE_READY: False,
        VolumeStep.CLONE_BEGUN: False,
        VolumeStep.CLONE_FILLED: False,
        VolumeStep.CLONE_PUBLISHED: True,
    },
    "restore": {
        VolumeStep.RESTORE_BEGUN: False,
        VolumeStep.RESTORE_FILLED: False,
        VolumeStep.RESTORE_PUBLISHED: True,
        VolumeStep.RESTORE_OLD_REMOVED: True,
    },
    "delete": {VolumeStep.DELETE_BEGUN: True},
    "purge": {
        VolumeStep.PURGE_MARKED: True,
        VolumeStep.PURGE_SNAPSHOTS_GONE: True,
        VolumeStep.PURGE_CLAIMS_GONE: True,
    },
    "index": {
        VolumeStep.INDEX_BEGUN: False,
        VolumeStep.INDEX_READ: False,
        VolumeStep.INDEX_STORED: True,
    },
}
CASES = [(name, step, stands) for name, steps in CRASHES.items() for step, stands in steps.items()]


def test_every_step_has_a_crash() -> None:
    assert {step for _, step, _ in CASES} == set(VolumeStep)


class World:
    """A disk with a snapshot of its past, and what may be seen after a crash."""

    def __init__(
        self, disks: VolumeDisks, setting: Setting, folders: Folders, kubectl: Kubectl
    ) -> None:
        self.disks = disks
        self.setting = setting
        self.folders = folders
        self.kubectl = kubectl

    async def prepare(self) -> None:
        await self.disks.create("d1")
        home = await self.home("d1")
        (home / "file").write_text("past")
        hand_over(home)
        await self.disks.snapshot("d1", "s1")
        (home / "file").write_text("present")

    async def home(self, disk_id: str) -> Path:
        return await self.folders.home(str(await self.disks.claim(disk_id)))

    async def text(self, disk_id: str) -> str:
        return (await self.home(disk_id) / "file").read_text()

    def crash(self, operation: str, step: VolumeStep) -> None:
        given = (self.setting.kubeconfig, self.setting.namespace, self.setting.database)
        command = [sys.executable, "-m", volume_child.__name__, *map(str, given), operation, step]
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=180, check=False, env=dict(os.environ)
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr

    async def check(self, operation: str) -> bool:
        """Everything visible is whole; returns whether the operation had taken effect."""
        if operation == "purge":
            return not await self.disks.exists("d1")
        live = await self.text("d1")
        assert live in ({"past", "present"} if operation == "restore" else {"present"})
        snapshots = [info.id for info in await self.disks.snapshots("d1")]
        possible = {"snapshot": (["s1"], ["s1", "s2"]), "delete": (["s1"], [])}
        assert snapshots in possible.get(operation, (["s1"],))
        match operation:
            case "restore":
                return live == "past"
            case "snapshot":
                return "s2" in snapshots
            case "delete":
                return "s1" not in snapshots
            case "index":
                return await self.is_listed()
        return await self.has_new(operation)

    async def is_listed(self) -> bool:
        try:
            found = await self.disks.contents("d1", "s1")
        except ContentsUnknown:
            return False
        assert [entry.name for entry in found.entries] == ["file"]
        return True

    async def has_new(self, operation: str) -> bool:
        if not await self.disks.exists("new"):
            return False
        if operation == "clone":
            assert await self.text("new") == "present"
        assert await self.disks.snapshots("new") == []
        return True

    def settle(self) -> None:
        """Waits for what the cluster does by itself with what a dead process has asked for."""
        for found in self.kubectl.get("volumesnapshots")["items"]:
            name = f"volumesnapshot/{found['metadata']['name']}"
            gone = found["metadata"].get("deletionTimestamp")
            self.kubectl.wait(name, "delete" if gone else "jsonpath={.status.readyToUse}=true")
        for found in self.kubectl.get("pvc")["items"]:
            if found["metadata"].get("deletionTimestamp"):
                self.kubectl.wait(f"pvc/{found['metadata']['name']}", "delete")

    def leftovers(self) -> list[str]:
        """What is neither a live state nor a snapshot."""
        self.settle()
        claims = self.kubectl.get("pvc")["items"]
        states = [(each["metadata"]["labels"] or {}).get(LABEL) for each in claims]
        found = [str(state) for state in states if state not in {State.LIVE, State.INDEX}]
        disks = [each["metadata"]["labels"].get("hub.jupyter.org/gpudev-disk") for each in claims]
        found += [f"two of {disk}" for disk in set(disks) if disks.count(disk) > 1]
        for each in self.kubectl.get("volumesnapshots")["items"]:
            if each["metadata"]["labels"].get(LABEL) is not None:
                found.append(each["metadata"]["name"])
        return found


LABEL = "hub.jupyter.org/gpudev-state"


@pytest.fixture
async def world(
    setting: Setting, folders: Folders, namespace: Kubectl, index_image: None
) -> AsyncIterator[World]:
    # Whoever was killed is known to be gone at once.
    impatient = dataclasses.replace(setting, abandoned_after=timedelta(0))
    async with impatient.disks() as disks:
        world = World(disks, impatient, folders, namespace)
        await world.prepare()
        yield world


@pytest.mark.parametrize(("operation", "step", "stands"), CASES)
async def test_a_crash_leaves_the_old_or_the_new(
    world: World, operation: str, step: VolumeStep, stands: bool
) -> None:
    world.crash(operation, step)
    await world.check(operation)
    world.settle()
    await world.disks.clean_up()
    assert world.leftovers() == []
    assert await world.check(operation) == stands
    if not stands:
        await volume_child.operate(world.disks, operation)
        assert await world.check(operation)
        await world.disks.clean_up()
        assert world.leftovers() == []
