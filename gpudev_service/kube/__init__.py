"""The Kubernetes API as the service uses it: one connection, and views kept up to date by watches.

Belongs here: reaching the API server, its refusals, watching lists of objects.
Never here: what nodes, pods or volumes mean to a reservation (`fleet`, `servers`, `disks` know).
"""

from .connection import Kube, KubeAway, KubeRefused, connect
from .watch import Timing, Watched

__all__ = ["Kube", "KubeAway", "KubeRefused", "Timing", "Watched", "connect"]
