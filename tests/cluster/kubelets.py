"""Nodes whose kubelet a test plays, so that it can fall silent and come back as it does when a
machine loses its power or its network.

The rest is the real cluster: it notices the silence, marks node and pods, and schedules. Pods only
seem to run; a server among them is whatever answers at the port of this machine that is given.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tools.cluster import fleet as crowd
from tools.cluster.kubectl import Kubectl, KubectlError, Manifest

#: Seconds between two signs of life; the cluster waits for four of them.
_EVERY = 3.0
_SIZE = {"cpu": "16", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": "8"}


class Kubelets:
    """Plays the kubelets of its nodes, but for those that are silent."""

    def __init__(self, kubectl: Kubectl, names: tuple[str, ...], address: str) -> None:
        self._kubectl, self.names, self._address = kubectl, names, address
        self._silent: frozenset[str] = frozenset()
        self._slow: frozenset[str] = frozenset()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="kubelets")
        self.trouble: Exception | None = None

    def start(self, group: str) -> None:
        self._kubectl.apply(*(self._node(name, group) for name in self.names))
        for name in self.names:
            self._sign(name)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        for name in self.names:
            self._kubectl("delete", "node", name, "--ignore-not-found", "--wait=false")

    def fall_silent(self, *names: str) -> None:
        """Returns when the cluster has noticed."""
        self._silent |= set(names)
        for name in names:
            unknown = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}=Unknown'
            self._kubectl.wait(f"node/{name}", unknown)

    def take_their_time(self, *names: str) -> None:
        """From now on these bring up no pod that they are given."""
        self._slow |= set(names)

    def hurry(self) -> None:
        """All bring up what they are given again."""
        self._slow = frozenset()

    def come_back(self) -> None:
        """Returns when the cluster knows."""
        self._silent = frozenset()
        for name in self.names:
            self._kubectl.wait(f"node/{name}", "Ready")

    def _live(self) -> None:
        try:
            while not self._over.wait(_EVERY / 4):
                living = [name for name in self.names if name not in self._silent]
                for name in living:
                    self._sign(name)
                for name in living:
                    self._tend(name)
        except Exception as error:
            self.trouble = error
            raise

    def _node(self, name: str, group: str) -> Manifest:
        labels = {crowd.GROUP: group, "kubernetes.io/hostname": name}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": [crowd.TAINT]},
        }

    def _sign(self, name: str) -> None:
        now = _now()
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
        times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
        status = {
            "capacity": _SIZE,
            "allocatable": _SIZE,
            "conditions": [{**ready, **times}],
        }
        self._patch("node", name, {"status": status}, {})

    def _tend(self, name: str) -> None:
        found = self._kubectl.get("pods", "-A", f"--field-selector=spec.nodeName={name}")
        for pod in found["items"]:
            metadata = pod["metadata"]
            where = {"namespace": metadata["namespace"]}
            if "deletionTimestamp" in metadata:
                space = f"--namespace={metadata['namespace']}"
                given = ("--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
                self._kubectl("delete", "pod", metadata["name"], space, *given)
            elif name not in self._slow and not _is_ready(pod):
                self._patch("pod", metadata["name"], {"status": self._runs(pod)}, where)

    def _runs(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        now = _now()
        states = [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": "none",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for one in pod["spec"]["containers"]
        ]
        kinds = ("Initialized", "Ready", "ContainersReady")
        conditions = [{"type": k, "status": "True", "lastTransitionTime": now} for k in kinds]
        return {
            "phase": "Running",
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "startTime": now,
            "conditions": conditions,
            "containerStatuses": states,
        }

    def _patch(self, kind: str, name: str, change: Any, where: Mapping[str, str]) -> None:
        space = [f"--namespace={namespace}" for namespace in where.values()]
        text = json.dumps(change)
        try:
            self._kubectl("patch", kind, name, *space, "--subresource=status", "-p", text)
        except KubectlError as error:
            if "NotFound" not in str(error):  # a pod that has just gone
                raise


@contextmanager
def kubelets(
    kubectl: Kubectl, group: str, names: tuple[str, ...], address: str
) -> Iterator[tuple[Kubelets, int]]:
    """Nodes as long as the block lasts, and the port at which servers on them have to be."""
    answering = ThreadingHTTPServer((address, 0), _Answers)
    serving = threading.Thread(target=answering.serve_forever)
    serving.start()
    nodes = Kubelets(kubectl, names, address)
    nodes.start(group)
    try:
        yield nodes, answering.server_address[1]
    finally:
        nodes.end()
        answering.shutdown()
        serving.join()
        answering.server_close()
    if nodes.trouble is not None:
        raise nodes.trouble


class _Answers(BaseHTTPRequestHandler):
    """Says that all is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Not into the tests' output."""


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
