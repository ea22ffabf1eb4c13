"""Volumes, snapshots, copies and growth, through the real sidecars and the tests' own driver."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.pods import claim, pod, run
from tools.cluster import storage
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl, Manifest

pytestmark = pytest.mark.cluster

WRITE = "echo data > /home/file && chmod 600 /home/file"
READ = "cat /home/file"


@pytest.fixture
def written(namespace: Kubectl) -> Kubectl:
    """A namespace with a claim `disk` that has a file."""
    namespace.apply(claim("disk"))
    run(namespace, pod("writes", WRITE, volumes={"/home": "disk"}))
    return namespace


def test_data_outlives_the_pod(written: Kubectl) -> None:
    assert run(written, pod("reads", READ, volumes={"/home": "disk"})) == "data\n"


def test_a_snapshot_has_what_the_disk_had(written: Kubectl) -> None:
    written.apply(snapshot("before", "disk"))
    written.wait("volumesnapshot/before", "jsonpath={.status.readyToUse}=true")
    run(written, pod("changes", "echo changed > /home/file", volumes={"/home": "disk"}))
    source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "before"}
    written.apply(claim("restored", source=source))
    assert run(written, pod("reads", READ, volumes={"/home": "restored"})) == "data\n"
    assert run(written, pod("reads-disk", READ, volumes={"/home": "disk"})) == "changed\n"


def test_a_clone_has_what_the_disk_has(written: Kubectl) -> None:
    written.apply(claim("copy", source={"kind": "PersistentVolumeClaim", "name": "disk"}))
    assert run(written, pod("reads", READ, volumes={"/home": "copy"})) == "data\n"


def test_a_disk_grows(written: Kubectl) -> None:
    written(
        "patch", "pvc/disk", "--patch", '{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}'
    )
    written.wait("pvc/disk", "jsonpath={.status.capacity.storage}=2Gi")


def test_a_volume_that_waits_goes_where_its_pod_goes(namespace: Kubectl) -> None:
    namespace.apply(claim("late", storageClassName=storage.LATE))
    assert namespace.get("pvc", "late")["status"]["phase"] == "Pending"
    run(namespace, pod("writes", WRITE, volumes={"/home": "late"}))
    volume = namespace.get("pvc", "late")["spec"]["volumeName"]
    [term] = namespace.get("pv", volume)["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["zone-a"]


def test_a_call_of_the_driver_can_be_made_to_fail(cluster: Cluster, namespace: Kubectl) -> None:
    with cluster.driver_fault("CreateVolume", "the disks are on fire"):
        namespace.apply(claim("hapless"))
        assert "the disks are on fire" in namespace.event("hapless", "ProvisioningFailed")
    namespace.wait("pvc/hapless", "jsonpath={.status.phase}=Bound")


@pytest.mark.slow
def test_the_driver_passes_the_conformance_suite(cluster: Cluster, tmp_path: Path) -> None:
    driver = tmp_path / "csi.sock"
    process = subprocess.Popen(
        [
            *("unshare", "--mount"),  # what it mounts goes with it, also when a test fails
            *(cluster.program("driver"), "-root", tmp_path / "folders", "-socket", driver),
            *("-node", "here", "-zone", "zone-a"),
        ]
    )
    try:
        done = subprocess.run(
            [
                *(cluster.program("csi-sanity"), f"--csi.endpoint={driver}"),
                *(f"--csi.mountdir={tmp_path / 'mount'}", f"--csi.stagingdir={tmp_path / 'stage'}"),
                "--ginkgo.no-color",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        process.terminate()
        process.wait(10)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "0 Failed" in done.stdout


def snapshot(name: str, of: str) -> Manifest:
    """A snapshot of a claim's volume."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {"source": {"persistentVolumeClaimName": of}},
    }
