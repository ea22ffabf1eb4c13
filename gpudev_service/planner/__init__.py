"""Who starts when and where: the scheduling decisions, as pure functions of plain values.

Belongs here: conservative backfill with promises, what-if answers, how far a lease may be extended.
Never here: I/O, a clock (callers pass `now_ms`), anything of gpudev but this package, anything
outside the standard library.

Layers, each importing only those above it: `model` (the values), `windows` and `quota` (indexes),
`calendar` (what is free when), `seats` (who sits where), `pool` (in which order; the argument why
promises hold), `extension` (how far a lease may be
extended), `live` (a pool over time), `world` (all pools), `plans` (the functions for stateless callers).
"""

from .model import (
    Changes,
    Demand,
    Extension,
    Hold,
    Node,
    Order,
    Plan,
    Reason,
    Rules,
    Slot,
)
from .plans import earliest, extendable_until, max_extension, plan, what_if
from .world import World

__all__ = [
    "Changes",
    "Demand",
    "Extension",
    "Hold",
    "Node",
    "Order",
    "Plan",
    "Reason",
    "Rules",
    "Slot",
    "World",
    "earliest",
    "extendable_until",
    "max_extension",
    "plan",
    "what_if",
]
