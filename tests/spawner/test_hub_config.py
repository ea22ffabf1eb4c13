"""The part of a Hub's configuration for Kubernetes: completes what a chart has set, replaces
nothing."""

from __future__ import annotations

from typing import Any

import pytest
from jupyterhub.app import JupyterHub
from traitlets.config import Config

from gpudev_hub_config import kubernetes, roles
from gpudev_spawner.kube import GpuDevKubeSpawner

ADDRESS = "http://gpudev:10101/services/gpudev"


def chart() -> Any:
    """As zero-to-jupyterhub leaves it."""
    c = Config()
    c.JupyterHub.services = [
        {"name": "gpudev", "api_token": "service-token", "url": "http://gpudev:10101"},
        {"name": "gpudev-spawner", "api_token": "spawner-token"},
        {"name": "culler", "api_token": "culler-token"},
    ]
    c.JupyterHub.load_roles = [
        {"name": "culler", "services": ["culler"], "scopes": ["list:users"]},
        {"name": "user", "scopes": ["self", "access:services!service=wiki"]},
    ]
    c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
    c.JupyterHub.template_paths.append("/own/templates")
    c.KubeSpawner.start_timeout = 300
    c.KubeSpawner.args = ["--debug"]
    c.KubeSpawner.common_labels = {"app": "jupyterhub"}
    return c


def test_what_a_chart_has_set_is_completed() -> None:
    c = chart()
    kubernetes.configure(c, service_url=f"{ADDRESS}/", admins=["root"])
    services = {one["name"]: one for one in c.JupyterHub.services}
    assert set(services) == {"gpudev", "gpudev-spawner", "culler"}
    assert services["gpudev"]["api_token"] == "service-token"
    assert services["gpudev"]["oauth_no_confirm"] is True
    assert c.GpuDevMixin.service_token == "spawner-token"
    assert c.GpuDevMixin.service_url == ADDRESS
    found = {one["name"]: one for one in c.JupyterHub.load_roles}
    assert found["culler"]["scopes"] == ["list:users"]
    assert found["user"]["scopes"][:2] == ["self", "access:services!service=wiki"]
    assert set(roles.names(roles.USER)) <= set(found["user"]["scopes"])
    assert found["gpudev-admin"]["users"] == ["root"]
    assert c.KubeSpawner.start_timeout == 300
    assert c.KubeSpawner.args == ["--debug", "--HubOAuth.cache_max_age=3"]
    assert c.JupyterHub.template_paths[0] == "/own/templates"
    assert len(c.JupyterHub.template_paths) == 2


def test_the_hub_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    c = chart()
    kubernetes.configure(c, service_url=ADDRESS)
    hub = JupyterHub(config=c)
    assert hub.spawner_class is GpuDevKubeSpawner
    assert hub.cleanup_servers is False
    assert any("gpudev" in str(one) for one in hub.extra_handlers)
    for section, made in (("KubeSpawner", GpuDevKubeSpawner), ("GpuDevMixin", GpuDevKubeSpawner)):
        known = set(made.class_traits(config=True))
        assert set(c[section]) <= known, section


def test_address_and_tokens_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUDEV_SERVICE_URL", ADDRESS)
    monkeypatch.setenv("GPUDEV_SERVICE_TOKEN", "one")
    monkeypatch.setenv("GPUDEV_SPAWNER_TOKEN", "two")
    c = Config()
    kubernetes.configure(c, base_url="/hub1/")
    services = {one["name"]: one for one in c.JupyterHub.services}
    assert services["gpudev"]["url"] == "http://gpudev:10101"
    assert services["gpudev"]["api_token"] == "one"
    assert c.GpuDevMixin.service_token == "two"
    assert c.GpuDevMixin.pages_url == "/hub1/services/gpudev/"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPUDEV_SERVICE_URL", "GPUDEV_SERVICE_TOKEN", "GPUDEV_SPAWNER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="GPUDEV_SERVICE_URL"):
        kubernetes.configure(Config())
    with pytest.raises(ValueError, match="GPUDEV_SERVICE_TOKEN"):
        kubernetes.configure(Config(), service_url=ADDRESS)


def test_configuring_twice_adds_nothing() -> None:
    c = chart()
    kubernetes.configure(c, service_url=ADDRESS)
    names = [one["name"] for one in c.JupyterHub.load_roles]
    kubernetes.configure(c, service_url=ADDRESS)
    assert [one["name"] for one in c.JupyterHub.load_roles] == names
    assert len(c.JupyterHub.services) == 3
    assert c.KubeSpawner.args.count("--HubOAuth.cache_max_age=3") == 1
