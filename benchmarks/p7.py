"""One start, from the click to a server that answers: ours against plain KubeSpawner.

Two Hubs of the same configuration but for the spawner, the same image, real pods on the cluster's
one kubelet; they take turns, medians are compared, and so is the Hub's processor time. The click
is the call of the Hub's API that its form makes; ready is when the stream that the waiting page
follows says so and the server answers through the proxy. Servers are JupyterHub's own without
JupyterLab, in the single-user image. `STARTS` changes the number on each side (20;
`SIZE=small`: 3). Needs root; `GPUDEV_CLUSTER` names a cluster that runs already.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass

from benchmarks.campaign import machine, size, verdict
from benchmarks.p9 import cluster
from benchmarks.pod_hub import OURS, PLAIN, PodHub, opened, until
from benchmarks.ssh_peers import here
from tests.cluster.kills import HUB
from tests.cluster.site import IMAGE, built
from tools.cluster import node
from tools.cluster.cluster import Cluster

FULL = 20
STARTS = size("STARTS", FULL, 3)
GOAL_RATIO, GOAL_CPU = 1.03, 0.040
LINES = f"c.KubeSpawner.image = {IMAGE!r}\n{HUB}"
#: With which no figure is kept: the first start of each Hub loads what the others find.
WARM_UP = 1


@dataclass(frozen=True)
class Start:
    seconds: float
    cpu: float


def start(hub: PodHub, name: str, token: str) -> Start:
    used, begun = hub.cpu(), time.monotonic()
    hub.start(name).raise_for_status()
    _until_ready(hub, name)
    path, own = f"/user/{name}/api/status", {"Authorization": f"token {token}"}
    until(lambda: hub.http.get(path, headers=own).is_success, "the server answers", 30, 0.02)
    return Start(time.monotonic() - begun, hub.cpu() - used)


def _until_ready(hub: PodHub, name: str) -> None:
    """Follows what the waiting page follows."""
    with hub.http.stream("GET", f"/hub/api/users/{name}/server/progress") as answer:
        for line in answer.iter_lines():
            event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if event.get("ready"):
                return
            if event.get("failed"):
                raise RuntimeError(f"{name}: {event}")
    raise RuntimeError(f"{name}: the stream has ended")


def end(hub: PodHub, name: str) -> None:
    hub.stop(name)
    until(lambda: not hub.kubectl.get("pods")["items"], "the pod is gone", 90, 0.5)
    until(lambda: hub.at_rest(name), "the server is stopped", 90, 0.5)


def measure(there: Cluster) -> dict[str, list[Start]]:
    selector = {"kubernetes.io/hostname": node.NAME}
    found: dict[str, list[Start]] = {OURS: [], PLAIN: []}
    with (
        opened(there, OURS, selector, hub=LINES) as ours,
        opened(there, PLAIN, selector, hub=LINES) as plain,
    ):
        people = {hub.spawner: (hub, hub.hub.user("ada")) for hub in (ours, plain)}
        for number in range(WARM_UP + STARTS):
            for spawner in (OURS, PLAIN) if number % 2 else (PLAIN, OURS):
                hub, token = people[spawner]
                one = start(hub, "ada", token)
                end(hub, "ada")
                if number >= WARM_UP:
                    found[spawner].append(one)
    return found


def main() -> int:
    here()
    print(machine())
    print(f"{STARTS} starts on each side, in turns; peer: plain KubeSpawner, same image and node")
    with cluster() as there:
        built(there)
        found = measure(there)
    for spawner, starts in found.items():
        told = " ".join(f"{one.seconds:.2f}" for one in starts)
        print(f"{spawner.rpartition('.')[2]}: {told} s")
    ours, plain = (statistics.median(one.seconds for one in side) for side in found.values())
    cpu, own = (statistics.median(one.cpu for one in side) for side in found.values())
    good = ours <= GOAL_RATIO * plain and cpu - own <= GOAL_CPU
    print(
        f"P7 starts={STARTS} ours={ours:.2f}s peer={plain:.2f}s ratio={ours / plain:.3f}x"
        f" hub-cpu={cpu * 1000:.0f}ms peer={own * 1000:.0f}ms more={(cpu - own) * 1000:+.0f}ms"
        f" load={os.getloadavg()[0]:.1f} goal {GOAL_RATIO}x,{GOAL_CPU * 1000:.0f}ms"
        f" {verdict(good=good, full=STARTS >= FULL)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
