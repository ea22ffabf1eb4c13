"""Disks as volumes: the contract of every backend, and what is particular to a cluster."""

from __future__ import annotations

import dataclasses
from itertools import count
from pathlib import Path

import pytest

from gpudev_service.disks.base import (
    ContentsUnknown,
    DiskBackend,
    DiskBusy,
    DiskFailure,
    DiskFull,
    DiskNotFound,
    NothingToKeep,
    Progress,
    SnapshotInfo,
)
from gpudev_service.disks.claims import claim_name, quantity, snapshot_name
from gpudev_service.disks.reach import Reach
from gpudev_service.disks.volumes import GB, VolumeDisks
from tests.cluster.pods import pod, run
from tests.cluster.volumes import Folders, Setting, hand_over
from tests.disks import trees
from tests.disks.contract import DiskContract
from tools.cluster import node, storage
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster


@pytest.mark.slow
class TestVolumeDisks(DiskContract):
    """The contract, on real claims and snapshots behind the real provisioner and snapshotter."""

    mode = None
    tells_new_bytes = False
    tells_progress = False
    _looks = count(1)

    @pytest.fixture(autouse=True)
    def _folders(self, folders: Folders) -> None:
        self.folders = folders

    async def home(self, disks: DiskBackend, disk_id: str) -> Path:
        claim = await disks.claim(disk_id)
        assert claim is not None
        return await self.folders.home(claim)

    async def take(
        self, disks: DiskBackend, disk_id: str, snapshot_id: str, progress: Progress | None = None
    ) -> SnapshotInfo:
        hand_over(await self.home(disks, disk_id))
        await disks.snapshot(disk_id, snapshot_id, progress)
        info = await disks.index(disk_id, snapshot_id)
        assert info is not None
        return info

    async def look(self, disks: DiskBackend, disk_id: str) -> None:
        await self.take(disks, disk_id, f"look-{next(self._looks)}")


class Late:
    """Disks whose volumes are made when somebody uses them."""

    @pytest.fixture
    def setting(self, setting: Setting) -> Setting:
        return dataclasses.replace(setting, storage_class=storage.LATE)


class TestLateVolumes(Late):
    async def test_a_disk_that_nobody_has_used_has_nothing_to_keep(
        self, disks: VolumeDisks, namespace: Kubectl
    ) -> None:
        await disks.create("d1", 3)
        assert await disks.exists("d1")
        assert await disks.reach("d1") is None
        with pytest.raises(NothingToKeep):
            await disks.snapshot("d1", "s1")
        with pytest.raises(ContentsUnknown):
            await disks.contents("d1")
        await disks.clone("d1", "d2")
        assert _asked(namespace, claim_name("d2", 1)) == 3 * GB
        await disks.resize("d1", 4)
        assert await disks.claim("d1") == claim_name("d1", 2)
        assert _asked(namespace, claim_name("d1", 2)) == 4 * GB
        await disks.purge("d1")
        assert not await disks.exists("d1")

    async def test_a_used_disk_says_where_it_is_and_stays_there(
        self, disks: VolumeDisks, namespace: Kubectl
    ) -> None:
        await disks.create("d1")
        await _write(namespace, "writes", claim_name("d1", 1), "before")
        assert await disks.reach("d1") == Reach(zones=(node.ZONE,))
        await disks.snapshot("d1", "s1")
        await _write(namespace, "changes", claim_name("d1", 1), "after")
        await disks.restore("d1", "s1")
        claim = await disks.claim("d1")
        assert claim == claim_name("d1", 2)
        # It has its bytes before anybody uses it, in the zone where it was.
        assert namespace.get("pvc", claim)["status"]["phase"] == "Bound"
        assert await disks.reach("d1") == Reach(zones=(node.ZONE,))
        assert _read(namespace, "reads", claim) == "before\n"

    async def test_a_clone_keeps_what_it_will_be_made_from(
        self, disks: VolumeDisks, namespace: Kubectl, folders: Folders
    ) -> None:
        await disks.create("d1")
        await _write(namespace, "writes", claim_name("d1", 1), "kept")
        await disks.snapshot("d1", "s1")
        await disks.clone("d1", "d2", "s1")
        assert await disks.exists("d2")
        assert namespace.get("pvc", claim_name("d2", 1))["status"]["phase"] == "Pending"
        with pytest.raises(DiskBusy):
            await disks.delete_snapshot("d1", "s1")
        with pytest.raises(DiskBusy):
            await disks.purge("d1")
        assert await disks.exists("d1")
        assert _read(namespace, "reads", claim_name("d2", 1)) == "kept\n"
        await disks.purge("d1")
        assert not await disks.exists("d1")

    async def test_a_clone_of_the_present_has_a_source_of_its_own(
        self, disks: VolumeDisks, namespace: Kubectl
    ) -> None:
        await disks.create("d1")
        await _write(namespace, "writes", claim_name("d1", 1), "now")
        await disks.clone("d1", "d2")
        assert await disks.snapshots("d1") == []
        assert await disks.snapshots("d2") == []
        await disks.purge("d1")
        await disks.clean_up()  # what the clone will be made from stays
        assert _read(namespace, "reads", claim_name("d2", 1)) == "now\n"
        await disks.clean_up()
        namespace.wait(f"volumesnapshot/{snapshot_name('d2-source')}", "delete")


async def test_room_is_made_and_not_taken_back(disks: VolumeDisks, namespace: Kubectl) -> None:
    await disks.create("d1", 1)
    namespace.wait(f"pvc/{claim_name('d1', 1)}", "jsonpath={.status.phase}=Bound")
    await disks.resize("d1", 2)
    # 2 GB, as the resizer writes it.
    namespace.wait(f"pvc/{claim_name('d1', 1)}", "jsonpath={.status.capacity.storage}=1953125Ki")
    with pytest.raises(DiskFailure):
        await disks.resize("d1", 1)
    await disks.snapshot("d1", "s1")
    await disks.resize("d1", 3)
    await disks.restore("d1", "s1")
    assert _asked(namespace, claim_name("d1", 2)) == 3 * GB


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("no space left on device /srv/secret", DiskFull),
        ("vol-0815: account 42 is not known", DiskFailure),
    ],
)
async def test_a_snapshot_that_storage_refuses_is_told_and_leaves_nothing(
    disks: VolumeDisks, cluster: Cluster, namespace: Kubectl, said: str, kind: type[Exception]
) -> None:
    await disks.create("d1")
    namespace.wait(f"pvc/{claim_name('d1', 1)}", "jsonpath={.status.phase}=Bound")
    with cluster.driver_fault("CreateSnapshot", said), pytest.raises(kind) as refused:
        await disks.snapshot("d1", "s1")
    assert not {"secret", "vol-0815", "account"} & set(str(refused.value).split())
    assert await disks.snapshots("d1") == []
    namespace.wait(f"volumesnapshot/{snapshot_name('s1')}", "delete")
    await disks.snapshot("d1", "s1")
    assert [info.id for info in await disks.snapshots("d1")] == ["s1"]


async def test_a_restoration_that_storage_refuses_leaves_the_disk_as_it_was(
    disks: VolumeDisks, cluster: Cluster, namespace: Kubectl
) -> None:
    await disks.create("d1")
    await _write(namespace, "writes", claim_name("d1", 1), "old")
    await disks.snapshot("d1", "s1")
    await _write(namespace, "changes", claim_name("d1", 1), "new")
    with cluster.driver_fault("CreateVolume", "on fire"), pytest.raises(DiskFailure):
        await disks.restore("d1", "s1")
    assert await disks.claim("d1") == claim_name("d1", 1)
    assert _read(namespace, "reads", claim_name("d1", 1)) == "new\n"
    await disks.restore("d1", "s1")
    assert _read(namespace, "reads-again", str(await disks.claim("d1"))) == "old\n"


async def test_what_somebody_is_working_on_is_not_cleaned_up(
    disks: VolumeDisks, setting: Setting, namespace: Kubectl
) -> None:
    """Another process cleans up while a restoration waits for its storage."""
    await disks.create("d1")
    namespace.wait(f"pvc/{claim_name('d1', 1)}", "jsonpath={.status.phase}=Bound")
    await disks.snapshot("d1", "s1")
    seen = []
    async with setting.disks() as other:
        found = await other.clean_up()
        seen.append((found.abandoned, found.restored))
        await disks.restore("d1", "s1")
        assert await other.exists("d1")
        assert await other.claim("d1") == claim_name("d1", 2)
    assert seen == [(0, 0)]


async def test_the_files_of_a_snapshot_are_listed_without_a_server(
    disks: VolumeDisks, folders: Folders, namespace: Kubectl
) -> None:
    await disks.create("d1")
    home = await folders.home(claim_name("d1", 1))
    trees.make_odd_tree(home)
    hand_over(home)
    await disks.snapshot("d1", "s1")
    with pytest.raises(ContentsUnknown):
        await disks.contents("d1", "s1")
    info = await disks.index("d1", "s1")
    assert info is not None
    (home / "later").touch()
    listed = await disks.contents("d1")
    assert listed.as_of == info.taken_at
    assert "later" not in [entry.name for entry in listed.entries]
    assert [e.name for e in (await disks.contents("d1", "s1", "a/b/c", limit=3)).entries] != []
    assert namespace.get("pods")["items"] == []


async def test_a_purged_disk_is_gone_with_all_that_it_had(
    disks: VolumeDisks, namespace: Kubectl, cluster: Cluster
) -> None:
    await disks.create("d1")
    namespace.wait(f"pvc/{claim_name('d1', 1)}", "jsonpath={.status.phase}=Bound")
    volume = namespace.get("pvc", claim_name("d1", 1))["spec"]["volumeName"]
    await disks.snapshot("d1", "s1")
    content = namespace.get("volumesnapshot", snapshot_name("s1"))["status"]
    await disks.purge("d1")
    with pytest.raises(DiskNotFound):
        await disks.snapshots("d1")
    cluster.kubectl.wait(f"pv/{volume}", "delete")
    name = content["boundVolumeSnapshotContentName"]
    cluster.kubectl.wait(f"volumesnapshotcontent/{name}", "delete")


async def test_a_disk_in_use_is_not_waited_for_without_end(
    setting: Setting, namespace: Kubectl
) -> None:
    async with dataclasses.replace(setting, gone_patience=2).disks() as disks:
        await disks.create("d1")
        namespace.apply(pod("holds", "sleep 600", volumes={"/home": claim_name("d1", 1)}))
        namespace.wait("pod/holds", "Ready")
        with pytest.raises(DiskBusy):
            await disks.purge("d1")
        assert not await disks.exists("d1")
    namespace("delete", "pod/holds", "--force", "--grace-period=0")
    async with setting.disks() as disks:
        await disks.clean_up()
        assert namespace.get("pvc")["items"] == []


def _asked(namespace: Kubectl, claim: str) -> int:
    return quantity(namespace.get("pvc", claim)["spec"]["resources"]["requests"]["storage"])


async def _write(namespace: Kubectl, name: str, claim: str, text: str) -> None:
    _use(namespace, name, claim, f"echo {text} > /home/file")


def _read(namespace: Kubectl, name: str, claim: str) -> str:
    return _use(namespace, name, claim, "cat /home/file")


def _use(namespace: Kubectl, name: str, claim: str, script: str) -> str:
    """Runs a script on a claim; the pod goes, since one that has ended holds its claim too."""
    said = run(namespace, pod(name, script, volumes={"/home": claim}))
    namespace("delete", f"pod/{name}", "--force", "--grace-period=0")
    return said
