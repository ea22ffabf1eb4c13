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
import yaml

from gpudev_hub_config import roles
from tests.chart.rendering import EXAMPLES, LEAST, NAMESPACE, example, render
from tests.docs.pages import blocks

pytestmark = pytest.mark.chart

#: Where the chart's code looks, which only a pod has.
_PLACE = "/usr/local/etc/jupyterhub"
_READ = """
import json, sys
from traitlets.config import PyFileConfigLoader
config = PyFileConfigLoader("jupyterhub_config.py", path=sys.argv[1]).load_config()
{then}
print("\\n" + json.dumps(found, default=repr))
"""
#: What the Hub's authenticator makes of what a provider says of people.
_LOGIN = """
import asyncio
from jupyterhub.app import JupyterHub
from jupyterhub.utils import maybe_future

kind = JupyterHub(config=config).authenticator_class
authenticator = kind(config=config)

async def login(said):
    state = {"oauth_user": said, "teams": said.get("teams"), "token_response": {}}
    name = said["name"]
    if hasattr(authenticator, "user_info_to_username"):
        name = authenticator.user_info_to_username(said)
        groups = await authenticator.get_user_groups(state)
    else:
        groups = set()
    admin = name in authenticator.admin_users
    model = {"name": name, "groups": sorted(groups), "admin": admin, "auth_state": state}
    allowed = await maybe_future(authenticator.check_allowed(name, model))
    return {"groups": model["groups"], "in": bool(allowed)}

async def logins():
    return [await login(said) for said in json.loads(sys.argv[2])]

found = {
    "class": kind.__name__,
    "admins": sorted(authenticator.admin_users),
    "secret": getattr(authenticator, "client_secret", ""),
    "callback": getattr(authenticator, "oauth_callback_url", ""),
    "addresses": [
        getattr(authenticator, f"{name}_url", "") for name in ("authorize", "token", "userdata")
    ],
    "people": asyncio.run(logins()),
}
"""
#: What is in the Secret that the examples name in `hub.existingSecret`, in its key `values.yaml`.
_SECRET = "a secret of the hub"
_CLIENT = {"client_id": "gpudev", "client_secret": _SECRET}
_SECRET_VALUES: dict[str, Any] = {"hub": {"config": {"OAuthenticator": _CLIENT}}}


def hub(tmp_path: Path, *values: dict[str, Any]) -> dict[str, Any]:
    """What the Hub is configured with."""
    return read(tmp_path, "found = config", [], *values)


def read(tmp_path: Path, then: str, said: list[Any], *values: dict[str, Any]) -> dict[str, Any]:
    """Reads the Hub's configuration, and what `then` finds of it and of `said`."""
    rendered = render(*values)
    files = rendered.one("ConfigMap", "hub")["data"]
    place = tmp_path / "jupyterhub"
    for folder in ("config", "secret", "existing-secret"):
        (place / folder).mkdir(parents=True)
    if rendered.values()["hub"]["existingSecret"]:
        (place / "existing-secret" / "values.yaml").write_text(json.dumps(_SECRET_VALUES))
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
        [sys.executable, "-c", _READ.replace("{then}", then), str(place), json.dumps(said)],
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


# --- who comes in -----------------------------------------------------------------------------

#: For each example: its class, what a provider says of people, and the groups in which they come in
#: (None: they do not).
LOGINS: dict[str, tuple[str, list[tuple[dict[str, Any], list[str] | None]]]] = {
    "trial": ("DummyAuthenticator", [({"name": "anybody"}, [])]),
    "managed": (
        "GenericOAuthenticator",
        [
            ({"preferred_username": "eva", "groups": ["gpu-research", "x"]}, ["research"]),
            ({"preferred_username": "tom", "groups": ["gpu-students"]}, ["students"]),
            # Groups of the provider's that are called like those with a policy.
            ({"preferred_username": "eve", "groups": ["research", "students"]}, None),
            ({"preferred_username": "bob"}, None),
            ({"preferred_username": "ada"}, []),
        ],
    ),
    "bare-metal": (
        "GenericOAuthenticator",
        [
            ({"nickname": "eva", "groups": ["lab", "lab/gpu"]}, ["lab", "research"]),
            ({"nickname": "tom", "groups": ["lab"]}, ["lab"]),
            ({"nickname": "eve", "groups": ["research", "evil/gpu"]}, None),
            ({"nickname": "bob", "groups": []}, None),
            ({"nickname": "ada", "groups": []}, []),
        ],
    ),
}


def test_every_example_says_who_comes_in() -> None:
    assert sorted(LOGINS) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_logins_of_an_example(name: str, tmp_path: Path) -> None:
    kind, people = LOGINS[name]
    said = [{"name": "", "email_verified": True, **claims} for claims, _ in people]
    found = read(tmp_path, _LOGIN, said, example(name))
    assert found["class"] == kind
    came = [one["groups"] if one["in"] else None for one in found["people"]]
    assert came == [groups for _, groups in people]
    assert set(found["admins"]) == set(example(name)["jupyterhub"]["custom"]["gpudev"]["admins"])
    if kind != "DummyAuthenticator":
        assert found["secret"] == _SECRET
        assert found["callback"] == f"{example(name)['publicUrl']}/hub/oauth_callback"
        assert all(url.startswith("https://") for url in found["addresses"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_groups_of_an_example_are_those_of_its_policy(name: str) -> None:
    """A policy for a group that nobody can be in is a mistake."""
    mapped = {group for _, groups in LOGINS[name][1] for group in groups or ()}
    values = example(name)
    assert set(values.get("policy", {}).get("groups", {})) <= mapped
    assert set(values["jupyterhub"]["custom"]["gpudev"].get("groupAdmins", {})) <= mapped


def test_the_logins_of_the_documentation(tmp_path: Path) -> None:
    [block] = [each for each in blocks("yaml") if "20-login" in each.body]
    [inside] = [each for each in blocks("yaml") if "client_secret: SECRET" in each.body]
    # What the Secret has there is what the Hub finds in these tests.
    assert yaml.safe_load(inside.body)["hub"]["config"]["OAuthenticator"].keys() == _CLIENT.keys()

    def person(login: str, *teams: tuple[str, str]) -> dict[str, Any]:
        in_them = [{"slug": slug, "organization": {"login": of}} for of, slug in teams]
        return {"name": "", "login": login, "teams": in_them}

    said = [
        person("eva", ("my-org", "gpu-users")),
        person("tom", ("my-org", "web")),
        person("eve", ("evil", "gpu-users")),
        person("octocat"),
    ]
    found = read(tmp_path, _LOGIN, said, LEAST, yaml.safe_load(block.body))
    assert found["class"] == "GitHubOAuthenticator"
    assert found["secret"] == _SECRET
    came = [one["groups"] if one["in"] else None for one in found["people"]]
    assert came == [["guests", "research"], ["guests"], None, []]


@pytest.mark.parametrize("name", ["managed", "bare-metal"])
def test_the_hubs_pod_has_the_secret_of_the_logins(name: str) -> None:
    pod = render(example(name)).pods()["Deployment/hub"]["spec"]
    volumes = [one for one in pod["volumes"] if "secret" in one]
    secrets = {one["name"]: one["secret"]["secretName"] for one in volumes}
    places = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    [volume] = [name for name, secret in secrets.items() if secret == "gpudev-login"]
    assert places[volume].rstrip("/") == f"{_PLACE}/existing-secret"


def test_no_secret_of_the_logins_stands_in_an_example() -> None:
    for name in EXAMPLES:
        assert "client_secret" not in json.dumps(example(name)["jupyterhub"]["hub"]["config"])


def test_a_hub_whose_secret_has_no_client_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_SECRET_VALUES, "hub", {"config": {}})
    with pytest.raises(AssertionError, match="the id and the secret"):
        hub(tmp_path, example("managed"))
