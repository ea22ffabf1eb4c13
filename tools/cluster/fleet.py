"""Nodes that are not there: kwok plays the kubelets of as many as a test wants."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx

from . import control
from .kubectl import Manifest
from .pki import Authority
from .place import ClusterError, Place, State
from .processes import Part

#: On each of these nodes; pods with a toleration for it are meant for them.
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
_ANNOTATION = "kwok.x-k8s.io/node"
#: Which nodes were made together.
GROUP = "gpudev.test/group"
# What these nodes and their pods go through: ready at once, and complete where they are jobs.
_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
_ADDRESSES = "10.216.0.1/16"
_AT_ONCE = 8
#: Seconds for which a node's sign of life is good, as kubelets have it, and at most.
_LEASE, _LONGEST_LEASE = 40, 200
_SIZE = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "110"}


def certificates(authority: Authority) -> None:
    """Issues kwok's certificate; it may do everything."""
    authority.issue("kwok", user="gpudev:kwok", groups=["system:masters"])


def kubeconfigs(place: Place, state: State, authority: Authority) -> None:
    """Writes kwok's kubeconfig."""
    authority.kubeconfig("kwok", control.address(state), place.pki / "kwok.kubeconfig")


def part(place: Place, state: State) -> Part:
    """kwok itself; it looks after nodes with its annotation and leaves the real one alone."""
    port = state.port("kwok")
    # Renewed four times within it; a cluster that is patient need not be told so often, but for a
    # node that is new: its first sign of life is waited for a minute.
    lease = max(_LEASE, min(_LONGEST_LEASE, place.node_patience))
    command = [
        str(place.bin / "kwok"),
        *(f"--kubeconfig={place.pki}/kwok.kubeconfig", "--manage-all-nodes=false"),
        *(f"--config={place.bin / 'fleet-files' / stage}" for stage in _STAGES),
        f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake",
        *(f"--cidr={_ADDRESSES}", "--node-ip=10.216.0.1"),
        *(f"--server-address=127.0.0.1:{port}", f"--node-lease-duration-seconds={lease}"),
    ]
    ready = control.answers(f"http://127.0.0.1:{port}/healthz")
    return Part("kwok", command, ready, {"KWOK_WORKDIR": str(place.run / "kwok")})


def manifest(
    name: str, group: str, resources: Mapping[str, str], labels: Mapping[str, str], *, taint: bool
) -> Manifest:
    """One such node."""
    size = {**_SIZE, **resources}
    own = {GROUP: group, "kubernetes.io/hostname": name, "type": "kwok"}
    standard = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {_ANNOTATION: "fake"},
            "labels": {**standard, **own, **labels},
        },
        "spec": {"taints": [TAINT]} if taint else {},
        "status": {"allocatable": size, "capacity": size},
    }


def add(place: Place, state: State, nodes: Iterable[Manifest]) -> None:
    """Creates the nodes, several at a time: kubectl would take minutes for thousands."""
    with _client(place, state) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
        for answer in pool.map(lambda node: client.post("/api/v1/nodes", json=node), nodes):
            _check(answer)


def remove(place: Place, state: State, group: str) -> None:
    """Deletes the nodes of a group."""
    with _client(place, state) as client:
        _check(client.delete("/api/v1/nodes", params={"labelSelector": f"{GROUP}={group}"}))


def _client(place: Place, state: State) -> httpx.Client:
    context = ssl.create_default_context(cafile=place.pki / "ca.crt")
    context.load_cert_chain(place.pki / f"{control.ADMIN}.crt", place.pki / f"{control.ADMIN}.key")
    return httpx.Client(
        base_url=control.address(state), verify=context, timeout=120, trust_env=False
    )


def _check(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise ClusterError(f"The API server answered {answer.status_code}: {answer.text[:500]}")
