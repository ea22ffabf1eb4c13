"""A big fleet at rest: CPU, memory and API requests of the service with 5,000 nodes of Kubernetes.

The nodes and the servers' pods are kwok's, in the cluster of the tests: they send what real ones
send at rest, but for the nodes' leases, which the service does not watch: they are renewed more
rarely, since those of 5,000 would fill this machine. One GPU of each node is leased; whoever waits
wants a whole node. The service's loops run without its HTTP side and without a Hub. `SIZE=small`:
200 nodes for a minute, else 5,000 for half an hour or `REST_SECONDS`: each tells its state anew
every ten minutes. Needs root; `GPUDEV_CLUSTER` names a cluster that runs already.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.campaign import verdict
from gpudev_client.kubernetes import LABEL_RANK, LABEL_RESERVATION, worker_name
from gpudev_service.kube.connection import connect
from gpudev_service.settings import KubernetesSettings, Settings
from tools.cluster.cluster import Cluster
from tools.cluster.place import Place, default_place

SMALL = os.environ.get("SIZE") == "small"
NODES = 200 if SMALL else 5_000
FULL_SECONDS = 1_800
SECONDS = int(os.environ.get("REST_SECONDS", "60" if SMALL else f"{FULL_SECONDS}"))
#: Share of a core, MB, requests a second.
GOALS = (0.02, 350.0, 0.2)
#: After everything is planned, before anything is measured.
SETTLE = 5 if SMALL else 60
#: Seconds without a sign of life (a renewed lease) after which a node counts as lost: where one
#: machine renews those of 5,000 nodes beside everything else, some come late, and a fleet that
#: flaps is not at rest.
NODE_PATIENCE = 600
#: How many pods are made at the same time.
AT_ONCE = 8
GPU = "nvidia.com/gpu"


def found(node_patience: int | None = None) -> Cluster:
    """The cluster that `GPUDEV_CLUSTER` names, or this tree's."""
    elsewhere = os.environ.get("GPUDEV_CLUSTER")
    place = Place(Path(elsewhere)) if elsewhere else default_place()
    if node_patience is not None:
        place = replace(place, node_patience=node_patience)
    return Cluster(place)


@contextmanager
def cluster(node_patience: int | None = None) -> Iterator[Cluster]:
    """The cluster that runs, or one for this benchmark, with `node_patience` if it is said."""
    there = found(node_patience)
    was_up = there.is_up
    if was_up and node_patience is not None:
        print("the cluster is up: it keeps its own patience with nodes that are late")
    there.up()
    try:
        yield there
    finally:
        if not was_up:
            there.down()


def server(key: str, node: str) -> dict[str, Any]:
    """A server's pod on a node that only seems to run it."""
    labels = {LABEL_RESERVATION: key, LABEL_RANK: "0"}
    container = {"name": "notebook", "image": "no.such/image:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": worker_name(key, 0), "labels": labels},
        "spec": {
            "nodeName": node,
            "containers": [{**container, "resources": {"limits": {GPU: "1"}}}],
            "tolerations": [{"operator": "Exists"}],
        },
    }


async def start(there: Cluster, folder: Path, namespace: str, ids: list[str]) -> None:
    """A pod for each lease, as its spawner would make it; kubectl would take minutes."""
    where = KubernetesSettings(kubeconfig=there.place.kubeconfig, namespace=namespace)
    settings = Settings(gpu_types={}, data_dir=folder, kubernetes=where)
    path = f"/api/v1/namespaces/{namespace}/pods"
    turns = asyncio.Semaphore(AT_ONCE)
    async with connect(settings) as kube:

        async def one(number: int, key: str) -> None:
            async with turns:
                await kube.create(path, server(key, f"{namespace}-{number}"))

        await asyncio.gather(*(one(number, key) for number, key in enumerate(ids)))


def requests(audit: Path, begun: float, process: int) -> dict[str, int]:
    """What a process of gpudev has asked since then, by verb and resource, from the server's audit
    log."""
    found: dict[str, int] = {}
    with audit.open() as lines:
        for line in lines:
            entry = json.loads(line)
            began = entry.get("requestReceivedTimestamp", "")
            # A watch is told at its start, everything else at its end.
            stage = "ResponseStarted" if entry["verb"] == "watch" else "ResponseComplete"
            if entry.get("userAgent") != f"gpudev (process {process})" or entry["stage"] != stage:
                continue
            if seconds(began) >= begun:
                what = f"{entry['verb']} {entry.get('objectRef', {}).get('resource', '?')}"
                found[what] = found.get(what, 0) + 1
    return found


def seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


def expect(stream: IO[str] | None, word: str) -> None:
    line = stream.readline().strip() if stream else ""
    if line != word:
        raise RuntimeError(f"the service said {line!r} instead of {word!r}")


def measure(there: Cluster, folder: Path, *, stays: bool) -> tuple[float, float, float]:
    group = f"rest-{secrets.token_hex(3)}"
    command = [sys.executable, "-m", "benchmarks.fleet_at_rest", str(there.place.kubeconfig)]
    command += [str(folder), group, group, str(NODES), str(NODES)]
    inside = there.kubectl.within(group)
    there.kubectl("create", "namespace", group)
    try:
        there.add_nodes(NODES, group, resources={GPU: "8"})
        inside.wait("serviceaccount/default", "create")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as service:
            assert service.stdin is not None
            try:
                expect(service.stdout, "filled")
                ids = (folder / "leases").read_text().split()
                asyncio.run(start(there, folder, group, ids))
                service.stdin.write("\n")
                service.stdin.flush()
                expect(service.stdout, "planned")
                return watch(there, psutil.Process(service.pid))
            finally:
                service.kill()
    finally:
        if stays:
            there.kubectl("delete", "namespace", group, "--wait=false")
            there.remove_nodes(group)


def watch(there: Cluster, process: psutil.Process) -> tuple[float, float, float]:
    time.sleep(SETTLE)
    begun, before, highest = time.time(), sum(process.cpu_times()[:2]), 0.0
    while time.time() - begun < SECONDS:
        time.sleep(1)
        highest = max(highest, process.memory_info().rss / 2**20)
    took = time.time() - begun
    share = (sum(process.cpu_times()[:2]) - before) / took
    asked = requests(there.place.audit_log, begun, process.pid)
    told = ", ".join(f"{count} {what}" for what, count in sorted(asked.items()))
    print(f"{took:.0f} s at rest: {told}")
    return share, highest, sum(asked.values()) / took


def main() -> int:
    stays = found().is_up
    with cluster(NODE_PATIENCE) as there, tempfile.TemporaryDirectory() as folder:
        share, memory, rate = measure(there, Path(folder), stays=stays)
    good = all(got <= goal for got, goal in zip((share, memory, rate), GOALS, strict=True))
    full = not SMALL and SECONDS >= FULL_SECONDS
    short = "" if SECONDS >= FULL_SECONDS else f" ({SECONDS} s of {FULL_SECONDS})"
    print(
        f"P9 nodes={NODES} live={NODES} waiting={NODES} cpu={share:.1%} rss={memory:.0f}MB "
        f"requests={rate:.3f}/s goal 2%,350MB,0.2/s {verdict(good=good, full=full)}{short}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
