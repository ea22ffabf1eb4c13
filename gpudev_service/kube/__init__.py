"""The Kubernetes API as the service uses it: one connection, and views kept up to date by watches.

Belongs here: reaching the API server, its refusals, watching lists of objects, reading nodes and
pods as they are.
Never here: what these mean to a reservation (`fleet`, `servers` and `disks` know).
"""

from .cluster import Cluster, Sight, watched
from .connection import Kube, KubeAway, KubeRefused, NoCredentials, connect
from .watch import Timing, Watched

__all__ = [
    "Cluster",
    "Kube",
    "KubeAway",
    "KubeRefused",
    "NoCredentials",
    "Sight",
    "Timing",
    "Watched",
    "connect",
    "watched",
]
