"""gpudev installed by its chart in the cluster of the tests, and people who use it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gpudev_client import Client
from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.chart import rendering
from tools.cluster import node, storage
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

from . import recipes

IMAGES = ("gpudev-service", "gpudev-singleuser", "gpudev-hub", "proxy", "postgres")
ADMIN = "root-admin"
RELEASE = "gpudev"
PATIENCE = 600.0
_TOKEN = "a" * 64
#: Other tests add nodes that only seem to run pods.
_NODE = {"kubernetes.io/hostname": node.NAME}
_SCOPES = ["admin:users", "admin:servers", "tokens", "access:servers", "shares", "list:services"]


def _image(image: str) -> dict[str, str]:
    return {"name": recipes.name(image), "tag": recipes.TAG, "pullPolicy": "Never"}


def values(more: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
    """The example for trials, with the images of the tests and what these ask for besides."""
    base = {
        "gpuTypes": {
            "gpu": {"label": "A GPU", "kubernetes": {"node_selector": _NODE}},
            "cpu": {
                "gpus_per_node": 0,
                "shares_per_node": 4,
                "kubernetes": {"resource": "", "node_selector": _NODE},
            },
        },
        "policy": {"min_hours": 0.005, "default": {"max_hours": 24, "disk_retention_days": 0}},
        "times": {"warnings": [], "retention": 2},
        # Volumes that wait for their first user ask the most of the service.
        "disks": {"sizeGb": 1, "storageClass": storage.LATE},
        "service": {"image": _image("gpudev-service")},
        "database": {"trial": {"enabled": True, "image": _image("postgres")}},
        "jupyterhub": {
            "custom": {"gpudev": {"admins": [ADMIN]}},
            "hub": {
                "image": _image("gpudev-hub"),
                "config": {
                    "JupyterHub": {"authenticator_class": "dummy"},
                    "DummyAuthenticator": {"password": "password"},
                    "Authenticator": {"allow_all": True, "admin_users": [ADMIN]},
                },
                "services": {"tests": {"apiToken": _TOKEN}},
                "loadRoles": {"tests": {"services": ["tests"], "scopes": _SCOPES}},
            },
            "proxy": {"chp": {"image": _image("proxy")}, "service": {"type": "ClusterIP"}},
            "singleuser": {"image": _image("gpudev-singleuser")},
            "prePuller": {"continuous": {"enabled": False}},
        },
    }
    return [rendering.example("trial"), base, *([more] if more else [])]


@contextmanager
def restricted_namespace(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace that takes only pods of the restricted profile; it goes with the block."""
    name = f"lab-{secrets.token_hex(4)}"
    profile = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": profile}
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    inside = cluster.kubectl.within(name)
    inside.wait("serviceaccount/default", "create")
    try:
        yield inside
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


class Installation:
    """One release in a namespace of its own, which enforces the restricted profile."""

    def __init__(self, cluster: Cluster, kubectl: Kubectl) -> None:
        assert kubectl.namespace is not None
        self.cluster, self.kubectl, self.namespace = cluster, kubectl, kubectl.namespace
        self._http = httpx.Client(trust_env=False, timeout=60.0, follow_redirects=True)
        self.url = self.said = ""

    def install(self, more: Mapping[str, Any] | None = None) -> None:
        """Installs; returns when everything is ready. What Helm said is in `said`."""
        where = (RELEASE, str(rendering.prepared()))
        self.said = self._helm("install", *where, "--wait", f"--timeout={PATIENCE:g}s", more=more)
        address = self.kubectl.get("service", "proxy-public")["spec"]["clusterIP"]
        self.url = f"http://{address}"
        self.ready()

    def upgrade(self, more: Mapping[str, Any] | None = None, chart: Path = rendering.CHART) -> str:
        """Upgrades with other values, or to another state of the chart."""
        where = (RELEASE, str(rendering.prepared(chart)))
        said = self._helm("upgrade", *where, "--wait", f"--timeout={PATIENCE:g}s", more=more)
        self.ready()
        return said

    def uninstall(self) -> str:
        """Uninstalls, hooks included."""
        return self._helm("uninstall", RELEASE, "--wait", f"--timeout={PATIENCE:g}s", values=False)

    def ready(self) -> None:
        """Returns when the service answers through the proxy that all is well."""

        def answers() -> bool:
            try:
                answer = self.call("GET", "/health")
            except httpx.TransportError:
                return False
            return answer.is_success and bool(answer.json()["status"] == "ok")

        until(answers, "the service answers that it is well")

    def hub(self, method: str, path: str, content: Any = None) -> Any:
        """A call of the Hub's API as an administrator."""
        answer = self._http.request(
            method,
            f"{self.url}/hub/api/{path}",
            json=content,
            headers={"Authorization": f"token {_TOKEN}"},
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def call(self, method: str, path: str, token: str | None = None) -> httpx.Response:
        """A call of gpudev's API through the proxy; `path` begins below `/api/v1`."""
        headers = {} if token is None else {"Authorization": f"token {token}"}
        return self._http.request(
            method, f"{self.url}/services/gpudev/api/v1{path}", headers=headers
        )

    def person(self, name: str) -> Client:
        """A user with a token of theirs that may do all they may."""
        self.hub("POST", f"users/{name}")
        token = self.hub("POST", f"users/{name}/tokens", {"note": "tests"})["token"]
        return Client(f"{self.url}/services/gpudev", token)

    def page(self, path: str, token: str) -> httpx.Response:
        """What somebody with this token gets at an address of the Hub."""
        return self._http.get(f"{self.url}{path}", headers={"Authorization": f"token {token}"})

    def pods(self, reservation_id: str | None = None) -> list[dict[str, Any]]:
        """The pods of leases, or of one."""
        label = "hub.jupyter.org/gpudev-reservation"
        selector = f"{label}={reservation_id}" if reservation_id else label
        found: list[dict[str, Any]] = self.kubectl.get("pods", f"--selector={selector}")["items"]
        return found

    def close(self) -> None:
        self._http.close()

    def logs(self) -> str:
        """The last lines of each part."""
        parts = ("deployment/gpudev", "deployment/hub", "deployment/proxy")
        texts = []
        for part in parts:
            done = self._kubectl_anyway("logs", part, "--tail=40")
            texts.append(f"--- {part}\n{done}")
        events = self._kubectl_anyway("get", "events", "--sort-by=.lastTimestamp")
        return "\n".join([*texts, "--- events", *events.splitlines()[-30:]])

    def _kubectl_anyway(self, *arguments: str) -> str:
        command = [str(self.kubectl.program), f"--kubeconfig={self.kubectl.kubeconfig}"]
        done = subprocess.run(
            [*command, f"--namespace={self.namespace}", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def _helm(
        self, *arguments: str, more: Mapping[str, Any] | None = None, values: bool = True
    ) -> str:
        with tempfile.TemporaryDirectory(prefix="gpudev-values-") as folder:
            files = []
            for index, each in enumerate(_values(more) if values else ()):
                file = Path(folder) / f"{index}.json"
                file.write_text(json.dumps(each))
                files.append(f"--values={file}")
            done = subprocess.run(
                [
                    str(self.cluster.program("helm")),
                    *arguments,
                    *files,
                    f"--namespace={self.namespace}",
                    f"--kubeconfig={self.kubectl.kubeconfig}",
                ],
                env={**os.environ, "HELM_CACHE_HOME": folder, "HELM_CONFIG_HOME": folder},
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout


_values = values


def until(holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Returns when it holds; fails when it does not in time."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"did not come to hold: {what}"
        time.sleep(0.5)


def reach(client: Client, reservation_id: str, *states: State) -> Reservation:
    """The reservation once it is in one of the states."""
    for event in client.events(reservation_id):
        view = event.reservation
        if view.state in states:
            return view
        assert view.state not in {State.FAILED, State.CANCELLED, State.EXPIRED}, view
    raise AssertionError("the stream of events ended")
