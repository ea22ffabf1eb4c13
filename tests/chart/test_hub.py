"""The Hub's configuration, read as the jupyterhub chart's own code reads it in its pod."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpudev_hub_config import roles
from tests.chart.rendering import LEAST, NAMESPACE, example, render

pytestmark = pytest.mark.chart

#: Where the chart's code looks, which only a pod has.
_PLACE = "/usr/local/etc/jupyterhub"
_READ = """
import json, sys
from traitlets.config import PyFileConfigLoader
config = PyFileConfigLoader("jupyterhub_config.py", path=sys.argv[1]).load_config()
print("\\n" + json.dumps(config, default=repr))
"""


def hub(tmp_path: Path, *values: dict[str, Any]) -> dict[str, Any]:
    """What the Hub is configured with."""
    rendered = render(*values)
    files = rendered.one("ConfigMap", "hub")["data"]
    place = tmp_path / "jupyterhub"
    for folder in ("config", "secret"):
        (place / folder).mkdir(parents=True)
    for name, text in files.items():
        (place / "config" / name).write_text(text)
    for name, value in rendered.one("Secret", "hub")["data"].items():
        (place / "secret" / name).write_bytes(base64.b64decode(value))
    for name in ("jupyterhub_config.py", "z2jh.py"):
        text = files[name].replace(_PLACE, str(place))
        # pycurl makes the Hub quicker and is in its image only.
        (place / name).write_text(text.replace("AsyncHTTPClient.configure(", "(lambda _: None)("))
    environment = {
        "PATH": os.environ["PATH"],
        "POD_NAMESPACE": NAMESPACE,
        "PROXY_API_SERVICE_PORT": "8001",
        "HUB_SERVICE_PORT": "8081",
    }
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(place)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return hub(tmp_path_factory.mktemp("hub"), example("managed"))


def test_servers_are_started_by_gpudev(config: dict[str, Any]) -> None:
    assert config["JupyterHub"]["spawner_class"] == "gpudev_spawner.kube.GpuDevKubeSpawner"
    assert config["GpuDevMixin"]["service_url"] == "http://gpudev:10101/services/gpudev"
    assert config["KubeSpawner"]["namespace"] == NAMESPACE


def test_the_service_and_the_spawner_have_the_tokens_of_the_charts_secret(
    config: dict[str, Any],
) -> None:
    services = {each["name"]: each for each in config["JupyterHub"]["services"]}
    assert services["gpudev"]["url"] == "http://gpudev:10101"
    assert services["gpudev"]["oauth_client_allowed_scopes"] == list(roles.LOGIN_SCOPES)
    assert len(services["gpudev"]["api_token"]) == 64
    spawner = services[roles.SPAWNER_SERVICE]["api_token"]
    assert config["GpuDevMixin"]["service_token"] == spawner
    tokens = {each["api_token"] for each in services.values()}
    assert len(tokens) == len(services)


def test_roles_are_those_of_the_documentation(config: dict[str, Any]) -> None:
    made = {each["name"]: each for each in config["JupyterHub"]["load_roles"]}
    assert made["gpudev-service"]["scopes"] == roles.names(roles.SERVICE_SCOPES)
    assert made["gpudev-admin"]["users"] == ["ada"]
    assert made["gpudev-admin-of-research"]["users"] == ["lea"]
    assert made["gpudev-metrics"]["services"] == ["gpudev-metrics"]
    # No culler and its role beside the leases.
    assert "jupyterhub-idle-culler" not in made


def test_a_server_has_no_right_in_the_cluster_and_no_volume_of_the_hubs(
    config: dict[str, Any],
) -> None:
    kube = config["KubeSpawner"]
    assert kube["automount_service_account_token"] is False
    assert kube["allow_privilege_escalation"] is False
    assert kube["storage_pvc_ensure"] is False
    assert not kube.get("init_containers")
    assert kube["uid"] == 1000


def test_the_limits_of_the_hub_do_not_stand_in_the_queues_way(config: dict[str, Any]) -> None:
    hub = config["JupyterHub"]
    assert (hub["concurrent_spawn_limit"], hub["active_server_limit"]) == (0, 0)
    assert hub["allow_named_servers"] is True
    assert config["Spawner"]["consecutive_failure_limit"] == 0
    assert hub["cleanup_servers"] is False


def test_a_base_url_and_entries_of_ones_own(tmp_path: Path) -> None:
    own = {"20-mine": "c.GpuDevMixin.pages_url = c.GpuDevMixin.pages_url + 'mine'"}
    values = {"jupyterhub": {"hub": {"baseUrl": "/jupyter", "extraConfig": own}}}
    config = hub(tmp_path, LEAST, values)
    assert config["JupyterHub"]["base_url"] == "/jupyter"
    assert config["GpuDevMixin"]["service_url"] == ("http://gpudev:10101/jupyter/services/gpudev")
    assert config["GpuDevMixin"]["pages_url"] == "/jupyter/services/gpudev/mine"


def test_a_role_of_the_operators_stays_beside_ours(tmp_path: Path) -> None:
    mine = {"mine": {"scopes": ["list:users"], "users": ["eve"]}}
    config = hub(tmp_path, LEAST, {"jupyterhub": {"hub": {"loadRoles": mine}}})
    names = [each["name"] for each in config["JupyterHub"]["load_roles"]]
    assert "mine" in names
    assert len(names) == len(set(names))
