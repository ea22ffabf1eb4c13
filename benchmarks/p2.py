"""Promised starts per second of processor time, against Slurm's backfill over the same queue.

Slurm looks at its whole queue; its jobs, nodes and leases are those of the planner's queue, as far
as Slurm can say them. Left out on both sides: quotas and bookings, which need its accounting
database, and starts not before a time, which its backfill passes over until then. Slurm gets the
better of two figures: what its process used, and what `sdiag` says that the cycle took.
`SIZE=small` is a tenth.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import platform
import statistics
import sys
import time

from benchmarks import slurm
from benchmarks.planner_queues import MINUTE, NOW, TURNOVER, Queue, queue
from gpudev_service.planner import Hold, Rules, plan

FULL, SMALL = (1000, 2_600), (100, 400)
GOAL = 50
ROUNDS = 5
#: Cycles after which Slurm must have looked at its whole queue.
CYCLES = 10


def plain(given: Queue) -> Queue:
    """Without what Slurm cannot be told, and with nodes that all take part."""
    demands = [
        dataclasses.replace(demand, booked_start_ms=None, not_before_ms=None, quotas=())
        for demand in given.demands
    ]
    nodes = [dataclasses.replace(node, available=True) for node in given.nodes]
    return Queue(nodes, given.holds, demands, Rules(overstay_ms=TURNOVER))


def our_cost(given: Queue) -> tuple[float, int]:
    """(Processor seconds of a whole plan, promised starts in it); the median of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        gc.collect()
        begin = time.process_time()
        made = plan(given.nodes, given.holds, given.demands, given.rules, NOW)
        taken.append(time.process_time() - begin)
    return statistics.median(taken), len(made.slots)


def leases(given: Queue) -> list[slurm.Job]:
    return [_lease(hold) for hold in given.holds]


def _lease(hold: Hold) -> slurm.Job:
    (units,) = hold.units.values()
    minutes = max(1, round((hold.until_ms - NOW) / MINUTE))
    return slurm.Job(1, units, minutes, priority=1_000)


def waiting(given: Queue) -> list[slurm.Job]:
    return [
        slurm.Job(
            nodes=demand.nodes,
            gpus_per_node=demand.units_per_node,
            minutes=max(1, round(demand.duration_ms / MINUTE)),
            priority=1 + demand.priority,
        )
        for demand in given.demands
    ]


def their_cost(given: Queue) -> tuple[float, int]:
    """(Seconds of one backfill cycle over the whole queue, waiting jobs with a start time)."""
    with slurm.Slurm(len(given.nodes)) as controller:
        controller.submit(leases(given))
        controller.wait_until_all_run()
        controller.submit(waiting(given))
        for _ in range(CYCLES):
            cycle, processor = controller.next_cycle()
            if cycle.depth >= controller.states().get("PD", 0) * 0.99:
                return min(cycle.seconds, processor), controller.promised()
        raise RuntimeError(f"Slurm looked at {cycle.depth} jobs only")


def main() -> int:
    lacking = slurm.missing()
    nodes, count = SMALL if os.environ.get("SIZE") == "small" else FULL
    given = plain(queue(count, nodes))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores; {nodes} nodes of 8 GPUs, all busy; "
        f"{count} waiting, all from now on, without quotas"
    )
    ours, promises = our_cost(given)
    share = promises / count
    print(f"planner: {ours:.3f} s for {promises} promised starts of {count}")
    if lacking:
        print(f"P2 not measured: not installed: {lacking} goal {GOAL}x,100% missed")
        return 0
    theirs, promised = their_cost(given)
    print(f"slurmctld: {theirs:.3f} s for {promised} start times of {count}")
    ratio = (promises / ours) / (promised / theirs) if promised else float("inf")
    met = ratio >= GOAL and share == 1
    print(
        f"P2 ratio={ratio:.0f}x eta={share:.0%} slurm_eta={promised / count:.0%} goal {GOAL}x,100% "
        f"{'met' if met else 'missed'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
