"""A real Hub on the tests' cluster whose servers are pods, ours or those of plain KubeSpawner.

Both have the same configuration, the same service beside the Hub and the same resources per pod.
On kwok's nodes nothing runs in a pod; a small program on this machine answers in every server's
place, so that the Hub finds what it asks for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks.p9 import GPU
from gpudev_hub_config.secrets import secret
from tests.cluster.site import ADDRESS
from tests.fixtures.hub import ADMIN, RunningHub
from tools.cluster import fleet as crowd
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

OURS, PLAIN = "gpudev_spawner.kube.GpuDevKubeSpawner", "kubespawner.KubeSpawner"
#: What one start asks for; plain KubeSpawner has it in its configuration.
ASKED = {"gpu_type": "h100", "gpus": 1, "hours": 1}
GPUS_PER_NODE = 8

_HUB = """
c.JupyterHub.spawner_class = {spawner!r}
c.KubeSpawner.namespace = {namespace!r}
c.KubeSpawner.image_pull_policy = "IfNotPresent"
c.KubeSpawner.environment = {{}}
c.KubeSpawner.cmd = ["jupyterhub-singleuser"]
c.KubeSpawner.storage_pvc_ensure = False
c.GpuDevKubeSpawner.service_url_in_pods = c.GpuDevMixin.service_url
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
c.JupyterHub.log_level = "WARN"
from benchmarks import loop_gaps
loop_gaps.begin({gaps!r})
"""
_PLAIN = f"""
c.KubeSpawner.extra_resource_limits = {{{GPU!r}: "1"}}
c.KubeSpawner.extra_resource_guarantees = {{{GPU!r}: "1"}}
"""
_SERVICE = """
c.GpuDev.disks = "volumes"
c.GpuDev.namespace = {namespace!r}
c.GpuDev.kubeconfig = {kubeconfig!r}
c.GpuDev.fleet = "kubernetes"
c.GpuDev.nodes = []
c.GpuDev.gpu_types = {{
    "h100": {{"kubernetes": {{"node_selector": {selector!r}, "tolerations": {tolerations!r}}}}},
}}
"""
_TOLERATIONS = [{"key": crowd.TAINT["key"], "operator": "Exists"}]


class PodHub:
    """One Hub in a namespace of its own.

    Args:
        selector: the labels of the nodes where servers run.
        hub: more lines of the Hub's configuration.
        service: more lines of the service's.
    """

    def __init__(
        self,
        cluster: Cluster,
        spawner: str,
        selector: dict[str, str],
        *,
        hub: str = "",
        service: str = "",
    ) -> None:
        self.cluster, self.spawner = cluster, spawner
        self.kubectl = _namespace(cluster)
        os.environ["KUBECONFIG"] = str(self.kubectl.kubeconfig)
        namespace = str(self.kubectl.namespace)
        kubeconfig = str(self.kubectl.kubeconfig)
        self.gaps = Path(f"/tmp/{namespace}.gaps")  # noqa: S108 - the Hub's folder is not known yet
        own = _HUB.format(spawner=spawner, namespace=namespace, gaps=str(self.gaps))
        if spawner == PLAIN:
            own += _PLAIN
            own += f"c.KubeSpawner.node_selector = {selector!r}\n"
            own += f"c.KubeSpawner.tolerations = {_TOLERATIONS!r}\n"
        self.hub = RunningHub(
            address=ADDRESS,
            hub_config=own + hub,
            service_config=_SERVICE.format(
                namespace=namespace,
                kubeconfig=kubeconfig,
                selector=selector,
                tolerations=_TOLERATIONS,
            )
            + service,
        )
        try:
            self.hub.start()
            self._token = self.hub.token(ADMIN)
        except BaseException:
            self.hub.remove()
            raise
        #: An administrator, at the proxy.
        self.http = httpx.Client(
            base_url=self.hub.url,
            headers={"Authorization": f"token {self._token}"},
            trust_env=False,
            timeout=120,
        )
        self._proxy = httpx.Client(
            base_url=self.hub.ports.url(self.hub.ports.proxy_api),
            headers={"Authorization": f"token {secret(self.hub.home / 'secrets', 'proxy_token')}"},
            trust_env=False,
            timeout=30,
        )

    def people(self, count: int, prefix: str = "p") -> list[str]:
        """New users; the Hub answers nobody else while it makes them."""
        names = [f"{prefix}-{number}" for number in range(count)]
        for first in range(0, count, 50):
            self.hub.api("POST", "users", {"usernames": names[first : first + 50]})
        return names

    def start(self, name: str) -> httpx.Response:
        """Asks for somebody's server, as their click does; the Hub answers at once."""
        return self.http.post(
            f"/hub/api/users/{name}/server", json=ASKED if self.spawner == OURS else {}
        )

    def stop(self, name: str) -> None:
        self.hub.api("DELETE", f"users/{name}/server")

    def at_rest(self, name: str) -> bool:
        """Whether nothing of somebody's server starts, runs or stops."""
        servers = self.hub.api("GET", f"users/{name}")["servers"]
        live = self.hub.call("GET", f"/reservations?user={name}&state=stopping", self._token)
        return not servers and not live.raise_for_status().json()["items"]

    def routed(self) -> set[str]:
        """Whose servers can be reached; asked of the proxy, which costs the Hub nothing."""
        routes = self._proxy.get("/api/routes").raise_for_status().json()
        return {path.split("/")[2] for path in routes if path.startswith("/user/")}

    def pending(self) -> int:
        """How many starts the Hub holds."""
        found, offset = 0, 0
        while users := self.hub.api("GET", f"users?state=active&limit=200&offset={offset}"):
            found += sum(row["pending"] == "spawn" for u in users for row in u["servers"].values())
            offset += len(users)
        return found

    def cpu(self) -> float:
        """Seconds of processor that the Hub has used."""
        return float(sum(self.hub.process("hub").cpu_times()[:2]))

    def remove(self) -> None:
        self._proxy.close()
        self.http.close()
        self.hub.remove()
        self.gaps.unlink(missing_ok=True)
        self.cluster.kubectl("delete", "namespace", str(self.kubectl.namespace), "--wait=false")


def _namespace(cluster: Cluster) -> Kubectl:
    name = f"hub-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    inside = cluster.kubectl.within(name)
    inside.wait("serviceaccount/default", "create")
    return inside


@contextlib.contextmanager
def opened(
    cluster: Cluster, spawner: str, selector: dict[str, str], **more: Any
) -> Iterator[PodHub]:
    hub = PodHub(cluster, spawner, selector, **more)
    try:
        yield hub
    finally:
        hub.remove()


@contextlib.contextmanager
def nodes(cluster: Cluster, count: int) -> Iterator[dict[str, str]]:
    """Nodes of eight GPUs that only seem to run pods; the labels by which they are known."""
    group = f"bench-{secrets.token_hex(3)}"
    cluster.add_nodes(count, group, resources={GPU: str(GPUS_PER_NODE)})
    try:
        cluster.kubectl.wait("node", "Ready", selector=f"{crowd.GROUP}={group}")
        yield {crowd.GROUP: group}
    finally:
        cluster.remove_nodes(group)


@contextlib.contextmanager
def stand_in() -> Iterator[str]:
    """Answers for the servers that are not there; the Hub's configuration that leads to it."""
    command = [sys.executable, "-m", "benchmarks.stand_in", ADDRESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as answering:
        assert answering.stdout is not None
        port = int(answering.stdout.readline())
        try:
            yield f"c.KubeSpawner.pod_connect_ip = {ADDRESS!r}\nc.KubeSpawner.port = {port}\n"
        finally:
            answering.kill()


def until(condition: Any, what: str, patience: float, pause: float = 0.1) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience:g} s: {what}")
        time.sleep(pause)
