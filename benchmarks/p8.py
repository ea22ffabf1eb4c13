"""A start storm: 300 servers at once on one real Hub, ours against plain KubeSpawner.

The pods are kwok's; what answers in the servers' place is one program for both. Each round has a
new Hub of the same configuration but for the spawner; ours and plain take turns, medians are
compared. Ready is a server that the proxy routes to. The gaps of the Hub's event loop are
sampled in the Hub, every 10 ms. `SIZE=small`: 30 servers. Needs root; `GPUDEV_CLUSTER` names a
cluster that runs already.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks import loop_gaps
from benchmarks.campaign import machine, percentile, size, verdict
from benchmarks.cores import Cores
from benchmarks.p9 import cluster
from benchmarks.pod_hub import GPUS_PER_NODE, OURS, PLAIN, PodHub, nodes, opened, stand_in, until
from benchmarks.ssh_peers import here
from tools.cluster.cluster import Cluster

FULL_STARTS, FULL_ROUNDS = 300, 2
STARTS, ROUNDS = size("STARTS", FULL_STARTS, 30), size("ROUNDS", FULL_ROUNDS, 1)
GOAL_RATE, GOAL_GAP = 0.95, 1.1
#: Clients that ask side by side; a storm's requests are all under way within a moment.
CLIENTS = 16
#: Seconds after which what has not come up has failed.
PATIENCE = 600.0


@dataclass(frozen=True)
class Storm:
    failures: int
    rate: float
    gap: float
    busy: float


def storm(hub: PodHub) -> Storm:
    names = hub.people(STARTS)
    cores, used, at, begun = Cores(), hub.cpu(), time.time(), time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        refused = sum(not answer.is_success for answer in pool.map(hub.start, names))
    last, ready = time.monotonic(), 0

    def over() -> bool:
        nonlocal last, ready
        found = len(hub.routed() & set(names))
        if found > ready:
            last, ready = time.monotonic(), found
        return ready == STARTS - refused or (time.monotonic() - last > 30 and not hub.pending())

    until(over, "all starts are over", PATIENCE)
    ended, used = time.time(), hub.cpu() - used
    parts = cores.since().items()
    each = ", ".join(f"{name} {1000 * spent / max(1, ready):.0f}" for name, spent in parts)
    print(f"  ms of a core for each start: {each}")
    gaps = loop_gaps.between(hub.gaps, at, ended)
    if ready < STARTS:
        print(hub.hub.logs()[-3000:])
    return Storm(
        STARTS - ready, ready / (last - begun), percentile(gaps, 0.99), used / max(1, ready)
    )


def measure(there: Cluster) -> dict[str, list[Storm]]:
    found: dict[str, list[Storm]] = {OURS: [], PLAIN: []}
    with nodes(there, math.ceil(STARTS / GPUS_PER_NODE)) as selector, stand_in() as lines:
        for number in range(2 * ROUNDS):
            spawner = PLAIN if number % 2 else OURS
            with opened(there, spawner, selector, hub=lines) as hub:
                one = storm(hub)
            found[spawner].append(one)
            print(
                f"{spawner.rpartition('.')[2]}: {one.failures} failures, {one.rate:.2f} starts/s,"
                f" gap p99 {one.gap * 1000:.0f} ms, {one.busy * 1000:.0f} ms of the Hub each,"
                f" load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    return found


def main() -> int:
    here()
    print(machine())
    print(f"{STARTS} starts at once, kwok pods, one Hub each time; peer: plain KubeSpawner")
    with cluster() as there:
        found = measure(there)
    ours, plain = found[OURS], found[PLAIN]
    failures = sum(one.failures for one in ours)
    rate, peer = (statistics.median(one.rate for one in side) for side in (ours, plain))
    gap, own = (statistics.median(one.gap for one in side) for side in (ours, plain))
    full = STARTS >= FULL_STARTS and ROUNDS >= FULL_ROUNDS
    good = failures == 0 and rate >= GOAL_RATE * peer and gap <= GOAL_GAP * own
    print(
        f"P8 starts={STARTS} failures={failures} rate={rate:.2f}/s peer={peer:.2f}/s"
        f" ratio={rate / peer:.2f}x gap-p99={gap * 1000:.0f}ms peer={own * 1000:.0f}ms"
        f" ratio={gap / own:.2f}x load={os.getloadavg()[0]:.1f} goal 0,{GOAL_RATE}x,{GOAL_GAP}x"
        f" {verdict(good=good, full=full)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
