"""A reservation of several nodes: the pods beside the server's, and how they find each other.

Pure: manifests and files. Rank 0 is the server's pod; the others run an SSH server and wait for
what somebody starts from rank 0 (`torchrun`, `mpirun`, `ssh rank-1`). One key for the reservation
lies in a Secret that all of its pods mount; it opens nothing else and is gone with them.

Needs of the Kubernetes API, in the servers' namespace: services, secrets and networkpolicies
create and delete, beyond what the server's pod needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gpudev_client import kubernetes as names
from gpudev_client.models import PodLaunch

from . import manifest
from .manifest import Manifest

#: Where all pods of the reservation have its keys, and where programs look for SSH's settings.
FOLDER = "/run/gpudev/ssh"
SYSTEM_CONFIG = "/etc/ssh/ssh_config.d/20-gpudev.conf"
#: The port of the pods' SSH servers, and the one that PyTorch's rendezvous uses by habit.
SSH_PORT, MASTER_PORT = 2222, 29500
#: The worker's main container, and what it runs.
CONTAINER = "worker"
COMMAND = ("python3", "-m", "gpudev_lab.sshd.worker")

_VOLUME = "gpudev-ssh"
#: A worker runs no Jupyter server and needs nothing of the Hub's.
_SERVERS_OWN = ("JUPYTERHUB_", "JPY_")


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair: the private half as OpenSSH keeps it, the public one as a line."""

    private: str
    public: str


def new_key() -> Key:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return Key(private.decode(), public.decode())


def host(rank: int) -> str:
    """A pod's name inside of its reservation."""
    return f"rank-{rank}"


def environment(reservation_id: str, launch: PodLaunch, rank: int) -> dict[str, str]:
    """What launchers of several nodes look for, in PyTorch's meaning of the words: `WORLD_SIZE`
    processes in all, `LOCAL_WORLD_SIZE` of them on each node, one for each GPU, and `RANK` is the
    first one's on this node. `PET_...` are torchrun's own defaults."""
    nodes, local = len(launch.nodes), max(1, launch.count)
    master = f"{host(0)}.{names.service_name(reservation_id)}"
    return {
        "MASTER_ADDR": master,
        "MASTER_PORT": str(MASTER_PORT),
        "NNODES": str(nodes),
        "NODE_RANK": str(rank),
        "RANK": str(rank * local),
        "WORLD_SIZE": str(nodes * local),
        "LOCAL_WORLD_SIZE": str(local),
        "PET_NNODES": str(nodes),
        "PET_NODE_RANK": str(rank),
        "PET_NPROC_PER_NODE": str(local),
        "PET_MASTER_ADDR": master,
        "PET_MASTER_PORT": str(MASTER_PORT),
        "GPUDEV_SSH": FOLDER,
        "GPUDEV_HOSTFILE": f"{FOLDER}/hostfile",
    }


def joined(pod: Manifest, reservation_id: str, launch: PodLaunch, rank: int) -> Manifest:
    """`pod` as one of several: its name for the others, its rank, the reservation's keys."""
    spec = pod["spec"]
    spec["hostname"], spec["subdomain"] = host(rank), names.service_name(reservation_id)
    manifest.set_variables(spec["containers"][0], environment(reservation_id, launch, rank))
    # Readable by the pod's group: the files belong to root, so OpenSSH does not mind.
    secret = {"secretName": names.service_name(reservation_id), "defaultMode": 0o440}
    place = {"name": _VOLUME, "readOnly": True}
    manifest.mount(
        spec,
        {"name": _VOLUME, "secret": secret},
        files={**place, "mountPath": FOLDER},
        config={**place, "mountPath": SYSTEM_CONFIG, "subPath": "ssh_config"},
    )
    return pod


def worker(pod: Manifest) -> Manifest:
    """A placed pod of a rank above 0 as a worker's: no Jupyter server, nothing of the Hub's."""
    main = pod["spec"]["containers"][0]
    main["name"], main["command"] = CONTAINER, list(COMMAND)
    for key in ("args", "ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        main.pop(key, None)
    main["env"] = [one for one in main["env"] if not one["name"].startswith(_SERVERS_OWN)]
    return pod


def owned(document: Manifest, name: str, uid: str) -> Manifest:
    """`document` as one that goes with the server's pod."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    metadata = {**document.get("metadata", {}), "ownerReferences": [owner]}
    return {**document, "metadata": metadata}


def secret(reservation_id: str, launch: PodLaunch, client: Key, server: Key) -> Manifest:
    """The files that all pods of the reservation have. `client` logs in, `server` is every pod's
    host key."""
    ranks = range(len(launch.nodes))
    service = names.service_name(reservation_id)
    return {
        **_object("v1", "Secret", reservation_id),
        "type": "Opaque",
        "stringData": {
            "id_ed25519": client.private,
            "authorized_keys": f"{client.public} {service}\n",
            "host_ed25519": server.private,
            "known_hosts": f"{service} {server.public}\n",
            "ssh_config": ssh_config(service),
            "hostfile": hostfile(ranks, launch.count),
        },
    }


def ssh_config(service: str) -> str:
    """Lets `ssh rank-1` do in every pod of the reservation."""
    lines = [
        "Host rank-*",
        f"  HostName %h.{service}",
        f"  Port {SSH_PORT}",
        f"  IdentityFile {FOLDER}/id_ed25519",
        "  IdentitiesOnly yes",
        f"  HostKeyAlias {service}",
        f"  UserKnownHostsFile {FOLDER}/known_hosts",
        "  StrictHostKeyChecking yes",
        "  BatchMode yes",
        "  ForwardAgent no",
        "  LogLevel ERROR",
    ]
    return "\n".join(lines) + "\n"


def hostfile(ranks: Sequence[int], count: int) -> str:
    """The pods as `mpirun --hostfile` takes them, a process for each GPU."""
    return "".join(f"{host(rank)} slots={max(1, count)}\n" for rank in ranks)


def service(reservation_id: str) -> Manifest:
    """Names for the pods, also while they start: they wait for each other."""
    return {
        **_object("v1", "Service", reservation_id),
        "spec": {
            "clusterIP": "None",
            "selector": {names.LABEL_RESERVATION: reservation_id},
            "publishNotReadyAddresses": True,
            "ports": [{"name": "ssh", "port": SSH_PORT}],
        },
    }


def policy(reservation_id: str) -> Manifest:
    """Lets the pods of one reservation talk to each other, whatever else is forbidden them. Alone
    it would forbid everything else: what else they need must be allowed by other policies."""
    own = {"matchLabels": {names.LABEL_RESERVATION: reservation_id}}
    return {
        **_object("networking.k8s.io/v1", "NetworkPolicy", reservation_id),
        "spec": {
            "podSelector": own,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": own}]}],
            "egress": [{"to": [{"podSelector": own}]}],
        },
    }


def _object(api: str, kind: str, reservation_id: str) -> Manifest:
    labels: Mapping[str, str] = {
        names.LABEL_MANAGED: names.MANAGED_BY,
        names.LABEL_RESERVATION: reservation_id,
    }
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": names.service_name(reservation_id), "labels": dict(labels)},
    }
