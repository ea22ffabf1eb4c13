"""The Kubernetes API as the service uses it: one connection, and views kept up to date by watches.

Belongs here: reaching the API server, its refusals, watching lists of objects, reading nodes and
pods as they are. What needs the libraries of Kubernetes is in `connection`, which is imported by
itself: a service on one machine does without.
Never here: what these mean to a reservation (`fleet`, `servers` and `disks` know).
"""

from .cluster import Cluster, Sight, watched
from .refusals import KubeAway, KubeRefused, NoCredentials
from .watch import Timing, Watched

__all__ = [
    "Cluster",
    "KubeAway",
    "KubeRefused",
    "NoCredentials",
    "Sight",
    "Timing",
    "Watched",
    "watched",
]
