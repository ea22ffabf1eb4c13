"""Who starts when and where: the scheduling decisions, as pure functions of plain values.

Belongs here: conservative backfill with promises, what-if answers, how far a lease may be extended.
Never here: I/O, a clock (callers pass `now_ms`), anything of gpudev but this package, anything
outside the standard library.

Layers, each importing only those above it:

- `model`: the values, `profiles`: free units over time, `quota`: use of quotas over time
- `holes`, `windows`: where to look first; `calendar`: where there is room
- `gains`: who might start earlier now; `seats`: who sits where
- `losses`: who gives way when room is lost
- `pool`: in which order, and the argument why promises hold
- `extension`: how far a lease may be extended; `live`: a pool that hears of events
- `world`: all pools
"""

from .model import (
    Changes,
    Demand,
    Extension,
    Hold,
    Node,
    Order,
    Plan,
    Quota,
    Reason,
    Rules,
    Slot,
    keys,
)
from .world import World, plan

__all__ = [
    "Changes",
    "Demand",
    "Extension",
    "Hold",
    "Node",
    "Order",
    "Plan",
    "Quota",
    "Reason",
    "Rules",
    "Slot",
    "World",
    "keys",
    "plan",
]
