"""What happens by itself: leases begin and end on time, servers follow, nothing is left behind.

Belongs here: one module per loop, each one idea that can be run once (`run(ctx)`) at any time and
any number of times, the runner that repeats them, and how what they depend on is.
Never here: decisions that a person's call makes too (they are operations).
"""

from .runner import LOOPS, Runner

__all__ = ["LOOPS", "Runner"]
