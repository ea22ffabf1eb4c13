"""Labels and names of gpudev's objects on Kubernetes; strings only.

Service, spawner and chart meet in the cluster by them, as they meet at the REST API by its models.
A name is made of an id that gpudev made (sixteen letters and digits), so that it is a DNS label and
two names are alike only where kind and ids are.
"""

from __future__ import annotations

from gpudev_client.limits import is_reservation_id

#: The reservation that a pod belongs to; its value is the id.
LABEL_RESERVATION = "hub.jupyter.org/gpudev-reservation"
#: Which of a reservation's pods it is: "0" is the server, "1" and so on are workers.
LABEL_RANK = "hub.jupyter.org/gpudev-rank"
#: The disk that a PersistentVolumeClaim or VolumeSnapshot belongs to.
LABEL_DISK = "hub.jupyter.org/gpudev-disk"
#: The snapshot that a VolumeSnapshot is.
LABEL_SNAPSHOT = "hub.jupyter.org/gpudev-snapshot"
#: On a pod that only asks for a node to be added: its value is the GPU type.
LABEL_PLACEHOLDER = "hub.jupyter.org/gpudev-placeholder"
#: What a claim, a VolumeSnapshot or a pod of the service's own is for, where that is not plain.
LABEL_STATE = "hub.jupyter.org/gpudev-state"
#: The state of pods that list what is in a snapshot: they need no network.
STATE_INDEX = "index"
#: On every object that gpudev makes.
LABEL_MANAGED = "app.kubernetes.io/managed-by"
MANAGED_BY = "gpudev"

#: Where a server's home is mounted in its pod, unless the operator says otherwise.
POD_HOME = "/home/jovyan"

#: The highest rank that a name has room for.
RANK_MAX = 9999


def service_name(reservation_id: str) -> str:
    """The headless Service that names the pods of a reservation of several nodes."""
    return f"gpudev-{_checked(reservation_id)}"


def shared_name(reservation_id: str) -> str:
    """The claim of the folder that all pods of a reservation of several nodes see."""
    return f"gpudev-{_checked(reservation_id)}-shared"


def worker_name(reservation_id: str, rank: int) -> str:
    """The pod of `rank` in a reservation; rank 0 is the server's pod."""
    if not 0 <= rank <= RANK_MAX:
        raise ValueError(f"a rank lies between 0 and {RANK_MAX}, not {rank}")
    return f"gpudev-{_checked(reservation_id)}-{rank}"


def _checked(key: str) -> str:
    if not is_reservation_id(key):
        raise ValueError(f"{key!r} is no id that gpudev made")
    return key
