"""What the values say is what the service does: its configuration is loaded as its pod does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpudev_service.app import GpuDevApp
from gpudev_service.config import ConfigurationError, GpuDev
from tests.chart.rendering import EXAMPLES, LEAST, NAMESPACE, Rendered, example, render

pytestmark = pytest.mark.chart


def loaded(rendered: Rendered, folder: Path) -> GpuDevApp:
    """The service's application with the files of its ConfigMap."""
    for name, text in rendered.one("ConfigMap", "gpudev")["data"].items():
        (folder / name).write_text(text)
    app = GpuDevApp()
    app.initialize([f"--config={folder / 'gpudev_config.py'}"])
    return app


def settings(tmp_path: Path, *values: dict[str, Any]) -> Any:
    return GpuDev(parent=loaded(render(*values), tmp_path)).settings()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_configure_the_service(name: str, tmp_path: Path) -> None:
    said = example(name)
    found = settings(tmp_path, said)
    assert found.gpu_types.keys() == said["gpuTypes"].keys()
    assert found.kubernetes.namespace == NAMESPACE
    assert found.public_url == said.get("publicUrl", found.public_url)
    assert found.url_for_servers == "http://gpudev:10101/services/gpudev"


def test_a_pod_may_take_its_image_before_the_start_counts_as_failed(tmp_path: Path) -> None:
    rendered = render(LEAST)
    found = GpuDev(parent=loaded(rendered, tmp_path)).settings()
    hub = rendered.values()["singleuser"]["startTimeout"]
    assert found.times.start_limit > hub


def test_values_reach_the_traits(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        LEAST,
        {
            "disks": {
                "storageClass": "ssd",
                "snapshotClass": "snap",
                "sizeGb": 50,
                "sharedStorageClass": "nfs",
            },
            "policy": {"groups": {"lab": {"max_gpus": 32}}},
            "times": {"sweep": 2},
            "config": {"GpuDev": {"history_days": 90}},
            "extraConfig": {"b": "c.GpuDev.disk_limit_gb = 7", "a": "c.GpuDev.disk_limit_gb = 8"},
        },
    )
    assert found.kubernetes.storage_class == "ssd"
    assert found.kubernetes.snapshot_class == "snap"
    assert found.kubernetes.shared_storage_class == "nfs"
    assert found.kubernetes.disk_size_gb == 50
    assert found.policy.groups["lab"].max_gpus == 32
    assert (found.times.sweep, found.times.start_limit) == (2, 960)
    assert found.history_days == 90
    assert found.disk_limit_gb == 7, "the last in the order of names"


@pytest.mark.parametrize("enabled", [True, False])
def test_pods_of_several_nodes_have_a_policy_where_there_are_others(
    enabled: bool, tmp_path: Path
) -> None:
    found = settings(tmp_path, LEAST, {"networkPolicy": {"enabled": enabled}})
    assert found.kubernetes.network_policies is enabled


def test_classes_that_are_not_named_are_the_clusters_own(tmp_path: Path) -> None:
    found = settings(tmp_path, LEAST)
    assert found.kubernetes.storage_class is None
    assert found.kubernetes.snapshot_class is None


def test_what_a_snapshot_has_is_listed_by_the_services_own_image(tmp_path: Path) -> None:
    rendered = render(LEAST)
    (container,) = rendered.pods()["Deployment/gpudev"]["spec"]["containers"]
    found = GpuDev(parent=loaded(rendered, tmp_path)).settings()
    assert found.kubernetes.index_image == container["image"]


def test_config_goes_before_the_other_values(tmp_path: Path) -> None:
    more = {"publicUrl": "https://a", "config": {"GpuDev": {"public_url": "https://b"}}}
    assert settings(tmp_path, LEAST, more).public_url == "https://b"


def test_a_misspelt_trait_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"GpuDev\.histori_days is not known"):
        loaded(render(LEAST, {"config": {"GpuDev": {"histori_days": 1}}}), tmp_path)


def test_the_pod_says_where_the_configuration_and_the_data_are(tmp_path: Path) -> None:
    rendered = render(LEAST)
    spec = rendered.pods()["Deployment/gpudev"]["spec"]
    mounts = {m["mountPath"]: m["name"] for m in spec["containers"][0]["volumeMounts"]}
    found = GpuDev(parent=loaded(rendered, tmp_path)).settings()
    assert mounts[str(found.data_dir)] == "data"
    assert mounts[f"{found.data_dir}/cookie_secret"] == "secret"
    (argument,) = spec["containers"][0]["args"]
    assert argument == "--config=/etc/gpudev/gpudev_config.py"
    assert mounts["/etc/gpudev"] == "config"
