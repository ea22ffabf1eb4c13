"""Where capacity comes from: nodes written down, GPUs found on this machine.

Belongs here: sources of nodes behind the one `Fleet` seam.
Never here: who holds what (the store knows) and who gets what (the planner decides).
"""

from .base import Fleet
from .nvml import NvmlFleet
from .static import StaticFleet

__all__ = ["Fleet", "NvmlFleet", "StaticFleet"]
