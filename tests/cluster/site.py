"""A Hub on this machine whose servers are pods of the cluster, in a namespace that holds pods to
Kubernetes' restricted profile."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpudev_client import Client
from gpudev_client.kubernetes import LABEL_RESERVATION
from gpudev_client.models import HistoryEntry, Reservation
from gpudev_client.states import State
from tests.fixtures.hub import RunningHub
from tests.tiers import ROOT
from tools.cluster import images, node
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

#: This machine, as pods reach it.
ADDRESS = "10.214.0.1"
IMAGE = "gpudev.test/singleuser:1"

_HUB = """
c.JupyterHub.spawner_class = "gpudev_spawner.kube.GpuDevKubeSpawner"
c.KubeSpawner.namespace = {namespace!r}
c.KubeSpawner.image = {image!r}
# What was loaded is there, and the name of nothing else leads anywhere.
c.KubeSpawner.image_pull_policy = "IfNotPresent"
c.KubeSpawner.environment = {{}}
c.KubeSpawner.cmd = ["jupyterhub-singleuser"]
c.GpuDevKubeSpawner.service_url_in_pods = c.GpuDevMixin.service_url
c.Spawner.poll_interval = 2

def small(spawner, pod):
    # The node has few CPUs, and other tests run on it.
    pod.spec.containers[0].resources.requests["cpu"] = "50m"
    memory = {{"too small": "24Mi", "little memory": "768Mi"}}.get(spawner.waiting_view()["name"])
    if memory:
        pod.spec.containers[0].resources.limits["memory"] = memory
        pod.spec.containers[0].resources.requests["memory"] = memory
    return pod

c.KubeSpawner.modify_pod_hook = small
"""
_SERVICE = """
c.GpuDev.disks = "volumes"
c.GpuDev.namespace = {namespace!r}
c.GpuDev.kubeconfig = {kubeconfig!r}
c.GpuDev.policy = {{"default": {{"images": ["*"]}}}}
"""
#: The cluster's real node as the fleet.
FLEET = f"""
c.GpuDev.fleet = "kubernetes"
c.GpuDev.nodes = []
c.GpuDev.gpu_types = {{
    "h100": {{"kubernetes": {{"node_selector": {{"kubernetes.io/hostname": {node.NAME!r}}}}}}},
}}
"""


class Site:
    """One Hub with service, and a person at it."""

    def __init__(
        self, cluster: Cluster, kubectl: Kubectl, service: str = FLEET, hub: str = ""
    ) -> None:
        self.cluster, self.kubectl = cluster, kubectl
        namespace = kubectl.namespace
        self.hub = RunningHub(
            address=ADDRESS,
            hub_config=_HUB.format(namespace=namespace, image=IMAGE) + hub,
            service_config=_SERVICE.format(namespace=namespace, kubeconfig=str(kubectl.kubeconfig))
            + service,
        )
        try:
            self.hub.start()
            self.token = self.hub.user("ada")
        except BaseException:
            self.hub.remove()
            raise
        self.client = Client(self.hub.service, self.token)

    def reserve(self, **asked: Any) -> Reservation:
        given = {"gpu_type": "h100", "gpus": 1, "hours": 1, **asked}
        answer = self.hub.call("POST", "/reservations", self.token, given)
        assert answer.is_success, f"{answer.text}\n{self.hub.logs()[-6000:]}"
        return Reservation.model_validate_json(answer.text)

    def until(self, reservation: Reservation, *states: State) -> Reservation:
        """The reservation once it is in one of `states`."""
        for event in self.client.events(reservation.id):
            if event.reservation.state in states:
                return event.reservation
        raise AssertionError(
            f"never {states}:\n{self.told(reservation)}\n{self.hub.logs()[-6000:]}"
        )

    def runs(self, **asked: Any) -> Reservation:
        """A new reservation whose server runs."""
        made = self.until(self.reserve(**asked), State.ACTIVE, State.FAILED)
        assert made.state is State.ACTIVE, f"{made.reason}\n{self.hub.logs()[-6000:]}"
        return made

    def end(self, reservation: Reservation) -> None:
        self.client.cancel(reservation.id)
        self.until(reservation, State.CANCELLED)

    def history(self, reservation: Reservation) -> list[HistoryEntry]:
        return sorted(self.client.history(reservation.id).all(), key=lambda entry: entry.at)

    def told(self, reservation: Reservation) -> str:
        return "\n".join(entry.reason for entry in self.history(reservation))

    def until_told(self, reservation: Reservation, words: str) -> str:
        """The sentence of the history with `words` in it, as soon as there is one."""
        for event in self.client.events(reservation.id):
            if words in event.message:
                return event.message
            found = [line for line in self.told(reservation).split("\n") if words in line]
            if found:
                return found[0]
        raise AssertionError(f"nobody said {words!r}:\n{self.told(reservation)}")

    def pods(self, reservation: Reservation) -> list[dict[str, Any]]:
        """Its pods, by rank."""
        selector = f"{LABEL_RESERVATION}={reservation.id}"
        found = self.kubectl.get("pods", "-l", selector)["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def gone(self, reservation: Reservation) -> None:
        """Returns when the cluster has no pod of it any more; the node takes a moment for that."""
        selector = f"{LABEL_RESERVATION}={reservation.id}"
        self.kubectl.wait("pods", "delete", selector=selector)

    def lab(self, reservation: Reservation, path: str) -> httpx.Response:
        """A call of the server behind the Hub's proxy."""
        where = f"{self.hub.url}/user/ada/{reservation.server_name}/{path}"
        headers = {"Authorization": f"token {self.token}"}
        return httpx.get(where, headers=headers, trust_env=False, timeout=60)

    def inside(self, reservation: Reservation, script: str, rank: int = 0) -> str:
        """What a shell in one of its pods prints."""
        name = f"gpudev-{reservation.id}-{rank}"
        return self.kubectl("exec", name, "--", "sh", "-c", script)

    def close(self) -> None:
        self.client.close()
        self.hub.remove()


def built(cluster: Cluster) -> str:
    """The single-user image of this tree, loaded into the cluster; its tag."""
    with tempfile.TemporaryDirectory() as name:
        context = Path(name)
        uv = shutil.which("uv", path=str(Path(sys.executable).parent))
        assert uv is not None
        subprocess.run(
            [uv, "build", "--wheel", f"--out-dir={context / 'dist'}", str(ROOT)],
            check=True,
            capture_output=True,
        )
        (context / "dist" / ".gitignore").unlink(missing_ok=True)
        for folder in ("images", "requirements"):
            shutil.copytree(ROOT / folder, context / folder)
        archive = images.build(
            cluster.place, ROOT / "images" / "singleuser", IMAGE, context=context
        )
    cluster.load(archive)
    return IMAGE


@contextmanager
def opened(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, service: str = FLEET, hub: str = ""
) -> Iterator[Site]:
    """A site in a namespace of its own; `service` and `hub` are more lines of configuration."""
    namespace = f"hub-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl(
        "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
    )
    inside = cluster.kubectl.within(namespace)
    inside.wait("serviceaccount/default", "create")
    monkeypatch.setenv("KUBECONFIG", str(inside.kubeconfig))
    site = Site(cluster, inside, service, hub)
    try:
        yield site
    finally:
        site.close()
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def environment_of(pod: Mapping[str, Any]) -> dict[str, str]:
    return {
        one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0].get("env", [])
    }
