"""The chart's release whose service is killed where it runs: its container, and its whole pod.

Its database is a PostgreSQL outside of the cluster, which it is told by a Secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import httpx

from gpudev_client.models import Reservation, ReservationRequest
from tests.e2e.database import Database
from tests.e2e.waiting import until
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.processes import kill_all
from tools.cluster import node
from tools.cluster.cluster import Cluster

from . import recipes
from .installation import IMAGES, Installation, restricted_namespace
from .kills import PATIENCE, Lives
from .site import ADDRESS

#: Its processes end without a word and the kubelet starts others in the same pod; the pod is taken
#: away without grace, so that the next one may begin while its processes still run.
CONTAINER, POD = VICTIMS = ("service-container", "service-pod")

_SECRET, _KEY = "database-outside", "address"
#: The node has few CPUs, and others need them.
SMALL = """
def small(spawner, pod):
    pod.spec.containers[0].resources.requests["cpu"] = "50m"
    return pod

c.KubeSpawner.modify_pod_hook = small
"""
_NOWHERE = {"kubernetes": {"node_selector": {"gpudev.test/nowhere": "true"}}}
_VALUES: Mapping[str, Any] = {
    "gpuTypes": {
        # One at a time, so that whoever comes next waits; small, and no other type wants a part of
        # the node, so that there is room beside other tests' pods.
        "single": {
            "gpus_per_node": 0,
            "shares_per_node": 1,
            "cpus": 1,
            "memory_gb": 1,
            "kubernetes": {
                "resource": "",
                "node_selector": {"kubernetes.io/hostname": node.NAME},
            },
        },
        "gpu": _NOWHERE,
        "cpu": _NOWHERE,
    },
    "policy": {"min_hours": 0.0005},
    "times": {"turnover": 6, "reconcile": 2, "crash_grace": 60},
    "database": {
        "trial": {"enabled": False},
        "existingSecret": {"name": _SECRET, "key": _KEY},
    },
    "jupyterhub": {
        "hub": {"extraConfig": {"20-small": SMALL}},
        # Without JupyterLab it takes a third of the time to start.
        "singleuser": {
            "extraEnv": {"JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp"}
        },
    },
}


class _Hub:
    """The Hub of a release and the service behind it, through the proxy."""

    def __init__(self, installed: Installation) -> None:
        self._installed = installed

    def api(self, method: str, path: str) -> Any:
        return self._installed.hub(method, path)

    def call(self, method: str, path: str, token: str | None = None) -> httpx.Response:
        return self._installed.call(method, path, token)

    def logs(self) -> str:
        return self._installed.logs()


class Release:
    """One release, and a person at it."""

    def __init__(self, installed: Installation) -> None:
        self.installed, self.kubectl, self.hub = installed, installed.kubectl, _Hub(installed)
        self.client = installed.person("ada")
        self.token = self.client.environment["GPUDEV_TOKEN"]

    def reserve(self, **asked: Any) -> Reservation:
        given = {"gpu_type": "single", "gpus": 0, "hours": 1, **asked}
        return self.client.reserve(ReservationRequest.model_validate(given))

    def pods(self, reservation: Reservation) -> list[dict[str, Any]]:
        return self.installed.pods(reservation.id)

    def close(self) -> None:
        self.client.close()
        self.installed.close()


class KilledRelease(Lives):
    """A release whose service is killed."""

    def __init__(self, release: Release, database: Database) -> None:
        super().__init__(release, database)
        self.release = release

    def kill(self, victim: str) -> None:
        """Kills the service in its pod; returns when another one works."""
        (pod,) = self._pods()
        name, was = pod["metadata"]["name"], _container(pod)
        if victim == CONTAINER:
            kill_all("HOSTNAME", name)
        else:
            self.release.kubectl(
                "delete", "pod", name, "--grace-period=0", "--force", "--wait=false"
            )

        def another() -> bool:
            return any(_container(one) not in ("", was) for one in self._pods())

        until(another, "another container runs", patience=PATIENCE, pause=0.2)
        until(self.answers, "the service is back", patience=PATIENCE, pause=0.2)

    def _pods(self) -> list[dict[str, Any]]:
        selector = "--selector=app.kubernetes.io/component=service"
        found: list[dict[str, Any]] = self.release.kubectl.get("pods", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def _container(pod: Mapping[str, Any]) -> str:
    """The container that runs in a pod; an empty text where none does."""
    (status,) = pod["status"].get("containerStatuses") or [{}]
    return str(status["containerID"]) if "running" in status.get("state", {}) else ""


@contextmanager
def killed_release(cluster: Cluster) -> Iterator[KilledRelease]:
    """A release as long as the block lasts."""
    server = PostgresServer(durable=True, address=ADDRESS)
    try:
        server.start()
        url = server.url(server.create_database())
        with restricted_namespace(cluster) as kubectl:
            recipes.load(cluster, [image for image in IMAGES if image != "postgres"])
            # As the operators' guide has it.
            told = url.replace("+psycopg", "")
            kubectl("create", "secret", "generic", _SECRET, f"--from-literal={_KEY}={told}")
            installed = Installation(cluster, kubectl)
            installed.install(_VALUES)
            with closing(Release(installed)) as release, closing(Database(None, url)) as database:
                yield KilledRelease(release, database)
    finally:
        server.remove()
