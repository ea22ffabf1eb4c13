"""What the Job after an uninstall takes away and what it leaves, run as its own account."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml

from gpudev_client.ids import new_id
from gpudev_client.kubernetes import (
    LABEL_DISK,
    LABEL_MANAGED,
    LABEL_RESERVATION,
    LABEL_STATE,
    MANAGED_BY,
    shared_name,
    worker_name,
)
from gpudev_service.kube.connection import connect
from gpudev_service.servers import SharedFolders
from gpudev_service.settings import KubernetesSettings, Settings
from tests.chart.rendering import CHART, LEAST, render
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

from .pods import claim, names, pod

pytestmark = [pytest.mark.cluster, pytest.mark.chart]

ACCOUNT = "gpudev-cleanup"


@pytest.fixture
def cleanup(
    cluster: Cluster, namespace: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The Job's program with what its pod has: the account that the chart makes, and no more."""
    made = render(LEAST).manifests
    inside = str(namespace.namespace)
    for each in made:
        if each["metadata"]["name"] == ACCOUNT and each["kind"] not in ("Job", "ConfigMap"):
            each["metadata"].pop("annotations")
            each["metadata"]["namespace"] = inside
            for subject in each.get("subjects", ()):
                subject["namespace"] = inside
            namespace.apply(each)
    config = yaml.safe_load(cluster.place.kubeconfig.read_text())
    address = httpx.URL(config["clusters"][0]["cluster"]["server"])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", address.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    (tmp_path / "token").write_text(namespace("create", "token", ACCOUNT))
    (tmp_path / "namespace").write_text(inside)
    (tmp_path / "ca.crt").write_bytes((cluster.place.pki / "ca.crt").read_bytes())
    spec = importlib.util.spec_from_file_location("cleanup", CHART / "files" / "cleanup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ACCOUNT", tmp_path)
    return module


def labelled(name: str, **labels: str) -> dict[str, Any]:
    made = claim(name)
    return {**made, "metadata": {"name": name, "labels": labels}}


async def test_folders_of_leases_go_and_disks_stay(
    cluster: Cluster, namespace: Kubectl, tmp_path: Path, cleanup: ModuleType
) -> None:
    lease, inside = new_id(), str(namespace.namespace)
    options = KubernetesSettings(kubeconfig=cluster.place.kubeconfig, namespace=inside)
    settings = Settings(data_dir=tmp_path, gpu_types={}, kubernetes=options)
    async with connect(settings) as kube:
        await SharedFolders(kube, inside, "folders", 1).ensure(lease)
    ours, disk, reservation = {LABEL_MANAGED: MANAGED_BY}, {LABEL_DISK: "d" * 16}, LABEL_RESERVATION
    namespace.apply(
        labelled("a-disk", **ours, **disk),
        labelled("a-copy-of-a-disk", **ours, **disk, **{LABEL_STATE: "index"}),
        labelled("a-disk-in-a-lease", **ours, **disk, **{reservation: lease}),
        labelled("of-somebody-else", **{reservation: lease}),
        labelled("without-labels"),
    )
    server = pod(worker_name(lease, 0), "sleep 600", volumes={"/shared": shared_name(lease)})
    server["metadata"]["labels"] |= {reservation: lease}
    namespace.apply(server)
    namespace.wait(f"pod/{worker_name(lease, 0)}", "Ready")
    assert shared_name(lease) in names(namespace.get("pvc")["items"])

    assert cleanup.main() == 0

    assert namespace.get("pods")["items"] == []
    assert names(namespace.get("pvc")["items"]) == {
        "a-disk", "a-copy-of-a-disk", "a-disk-in-a-lease", "of-somebody-else", "without-labels",
    }  # fmt: skip
    left = namespace.get("pvc")["items"]
    assert [one for one in left if "deletionTimestamp" in one["metadata"]] == []
