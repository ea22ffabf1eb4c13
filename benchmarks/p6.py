"""Handover: from a stopped lease's pod that is gone to the next pod that is bound to its GPUs.

A real Hub with our spawner, the service, a real control plane, kwok's nodes. All GPUs are leased,
others wait on the Hub's page, and leases are cancelled one after the other. What is timed is seen
by a watch of its own: the old pod's deletion, the new pod's node. The idle share counts from the
moment in which a lease is cancelled, for leases of `LEASE_HOURS` (4). `SIZE=small`: 20 handovers,
else 300. Needs root; `GPUDEV_CLUSTER` names a cluster that runs already.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.campaign import machine, percentile, size, verdict
from benchmarks.p9 import cluster
from benchmarks.pod_hub import GPUS_PER_NODE, OURS, PodHub, nodes, opened, stand_in, until
from benchmarks.ssh_peers import here
from gpudev_client.kubernetes import LABEL_RESERVATION
from gpudev_service.kube.connection import connect
from gpudev_service.settings import KubernetesSettings, Settings
from tests.fixtures.hub import ADMIN

FULL = 300
HANDOVERS, NODES = size("HANDOVERS", FULL, 20), 4
LEASE_HOURS = size("LEASE_HOURS", 4, 4)
GOAL_P50, GOAL_P99, GOAL_IDLE = 0.2, 0.5, 0.001


@dataclass
class Pods:
    """When pods were bound and when they were gone, by reservation, as a watch tells it."""

    kubeconfig: Path
    namespace: str
    bound: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)

    def follow(self) -> None:
        """From now on, in a thread that ends with the process."""
        threading.Thread(target=lambda: asyncio.run(self._follow()), daemon=True).start()

    async def _follow(self) -> None:
        where = KubernetesSettings(kubeconfig=self.kubeconfig, namespace=self.namespace)
        settings = Settings(gpu_types={}, data_dir=Path(), kubernetes=where)
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        async with connect(settings) as kube, kube.lines(path, {"watch": 1}) as lines:
            async for line in lines:
                self._take(json.loads(line), time.monotonic())

    def _take(self, event: dict[str, Any], now: float) -> None:
        pod = event["object"]
        key = pod["metadata"].get("labels", {}).get(LABEL_RESERVATION)
        if key and event["type"] == "DELETED":
            self.gone.setdefault(key, now)
        elif key and pod["spec"].get("nodeName"):
            self.bound.setdefault(key, now)


@dataclass(frozen=True)
class Handover:
    """Seconds: to the old pod's end, from there to the next one's node."""

    ending: float
    handover: float


def full(hub: PodHub) -> None:
    """All GPUs leased, everybody else in the queue."""
    leased = NODES * GPUS_PER_NODE
    names = hub.people(leased + HANDOVERS)
    for name in names[:leased]:
        hub.start(name).raise_for_status()
    until(lambda: len(hub.routed()) >= leased, "all GPUs are used", 300)
    for name in names[leased:]:
        hub.start(name).raise_for_status()
    token = hub.hub.token(ADMIN)
    until(lambda: queued(hub, token) == HANDOVERS, "all others wait", 300, 1)


def queued(hub: PodHub, token: str) -> int:
    answer = hub.hub.call("GET", "/availability?gpu_type=h100", token).raise_for_status()
    return int(answer.json()["items"][0]["queue_length"])


def hand_over(hub: PodHub, pods: Pods, token: str) -> Handover:
    old = next(key for key in pods.bound if key not in pods.gone)
    known, ready, begun = set(pods.bound), len(hub.routed()), time.monotonic()
    hub.hub.call("DELETE", f"/reservations/{old}", token).raise_for_status()
    until(lambda: set(pods.bound) - known, "the next pod is bound", 60, 0.01)
    [new] = set(pods.bound) - known
    until(lambda: old in pods.gone, "the pod is gone", 10, 0.01)
    until(lambda: len(hub.routed()) >= ready, "the next server is up", 60, 0.05)
    return Handover(pods.gone[old] - begun, pods.bound[new] - pods.gone[old])


def measure() -> list[Handover]:
    with (
        cluster() as there,
        nodes(there, NODES) as selector,
        stand_in() as lines,
        opened(there, OURS, selector, hub=lines) as hub,
    ):
        pods = Pods(there.place.kubeconfig, str(hub.kubectl.namespace))
        pods.follow()
        full(hub)
        token = hub.hub.token(ADMIN)
        return [hand_over(hub, pods, token) for _ in range(HANDOVERS)]


def main() -> int:
    here()
    print(machine())
    print(
        f"{HANDOVERS} handovers, {NODES} kwok nodes of {GPUS_PER_NODE} GPUs, real Hub and service"
    )
    found = measure()
    handovers = [one.handover for one in found]
    p50, p99 = statistics.median(handovers), percentile(handovers, 0.99)
    idle = statistics.mean(one.ending + one.handover for one in found)
    share = idle / (LEASE_HOURS * 3600 + idle)
    ending = statistics.median(one.ending for one in found)
    print(
        f"the old pod is gone {ending * 1000:.0f} ms (median) after its lease was cancelled;"
        f" {idle:.2f} s idle (mean) from the cancellation to the next pod's node, which is 0.1% of"
        f" leases of {idle / GOAL_IDLE / 60:.0f} min"
    )
    good = p50 <= GOAL_P50 and p99 <= GOAL_P99 and share <= GOAL_IDLE
    print(
        f"P6 handovers={len(found)} p50={p50 * 1000:.0f}ms p99={p99 * 1000:.0f}ms"
        f" idle={share:.3%} of {LEASE_HOURS}h load={os.getloadavg()[0]:.1f}"
        f" goal 200ms,500ms,0.1% {verdict(good=good, full=HANDOVERS >= FULL)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
