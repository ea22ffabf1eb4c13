"""A full plan with every rule for 10,000 and 50,000 who wait, and how its cost grows.

CPU time of one core, the median of several rounds; `SIZE=small` stops at 10,000.
"""

from __future__ import annotations

import gc
import math
import os
import platform
import statistics
import sys
import time

from benchmarks.planner_queues import NOW, Queue, parameters, queue
from gpudev_service.planner import plan

NODES = 1000
#: Waiting, and how often each size is measured.
FULL = {5_000: 5, 10_000: 7, 20_000: 3, 50_000: 3}
SMALL = {1_000: 5, 2_000: 5, 5_000: 3, 10_000: 3}
GOAL_10K, GOAL_50K, GOAL_EXPONENT = 0.25, 1.5, 1.1


def measure(given: Queue, rounds: int) -> list[float]:
    """CPU seconds of one core for a whole plan, per round."""
    taken = []
    for _ in range(rounds):
        gc.collect()
        begin = time.process_time()
        result = plan(given.nodes, given.holds, given.demands, given.rules, NOW)
        taken.append(time.process_time() - begin)
        if len(result.slots) + len(result.impossible) != len(given.demands):
            raise AssertionError("somebody was neither given a start nor told why not")
    return taken


def exponent(medians: dict[int, float]) -> float:
    """The slope of a line through the sizes, both axes logarithmic."""
    xs = [math.log(size) for size in medians]
    ys = [math.log(taken) for taken in medians.values()]
    return statistics.linear_regression(xs, ys).slope


def main() -> int:
    sizes = SMALL if os.environ.get("SIZE") == "small" else FULL
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one used;"
        f" Python {platform.python_version()}"
    )
    print(parameters(NODES))
    medians: dict[int, float] = {}
    for waiting, rounds in sizes.items():
        given = queue(waiting, NODES)
        taken = measure(given, rounds)
        medians[waiting] = statistics.median(taken)
        print(
            f"{waiting:6} waiting: median {medians[waiting]:.3f} s, best {min(taken):.3f} s,"
            f" {medians[waiting] / waiting * 1e6:.0f} us per promise"
        )
    slope = exponent(medians)
    ten, fifty = medians.get(10_000), medians.get(50_000)
    met = (
        (ten is None or ten <= GOAL_10K)
        and (fifty is None or fifty <= GOAL_50K)
        and slope <= GOAL_EXPONENT
    )
    shown = f"50k={fifty:.2f}s" if fifty is not None else "50k=not measured"
    print(
        f"P1 10k={ten:.3f}s {shown} exponent={slope:.2f} goal {GOAL_10K}s,{GOAL_50K}s,"
        f"{GOAL_EXPONENT} {'met' if met else 'missed'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
