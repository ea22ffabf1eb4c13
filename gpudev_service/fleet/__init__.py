"""Where capacity comes from: nodes written down, GPUs of this machine, nodes of a cluster.

Belongs here: sources of nodes behind the one `Fleet` seam.
Never here: who holds what (the store knows) and who gets what (the planner decides).
"""

from .base import Fleet, FleetAway, Share, View
from .kubernetes import KubernetesFleet
from .nvml import NvmlFleet
from .planner_nodes import PlannerNodes
from .scaling import Coming, free_from, is_coming
from .static import StaticFleet

__all__ = [
    "Coming",
    "Fleet",
    "FleetAway",
    "KubernetesFleet",
    "NvmlFleet",
    "PlannerNodes",
    "Share",
    "StaticFleet",
    "View",
    "free_from",
    "is_coming",
]
