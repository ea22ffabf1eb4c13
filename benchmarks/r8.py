"""Stale views of a cluster: how long one goes unnoticed, and what is placed meanwhile (R8).

A proxy between the service and a real API server breaks in each of its ways while one node is
cordoned and another deleted; requests go on. Noticed is when the view knows of both or says that it
is not current. A placement is a launch on one of the two. `SIZE=small`: each fault once, else five
times. Needs root; `GPUDEV_CLUSTER` names a cluster that runs already.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.campaign import verdict
from benchmarks.p9 import GPU, cluster
from gpudev_service.errors import Refusal
from gpudev_service.loops import fleet as fleet_loop
from gpudev_service.operations import servers
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from tests.cluster.proxy import FAULTS
from tests.cluster.service import Service, group_type, service
from tests.fixtures.world import World
from tools.cluster import fleet as crowd
from tools.cluster.cluster import Cluster

FULL = 5
ROUNDS = 1 if os.environ.get("SIZE") == "small" else FULL
GOAL = 20.0
NODES = 4
#: Between two requests while nothing has been noticed.
PACE = 0.5


@dataclass
class Found:
    noticed: float
    back: float
    launches: int
    wrong: int


def known(there: Service, bad: set[str]) -> bool:
    return not {node.name for node in there.fleet.nodes() if node.ready} & bad


async def launch(world: World, key: str) -> list[str]:
    try:
        made = await servers.launch(world.ctx, key)
    except Refusal:
        return []
    return made.pods.nodes if made.pods else []


async def ask(world: World, waiting: list[str], bad: set[str]) -> tuple[int, int]:
    """Reserves and launches until it is cancelled; how many launches, and how many were wrong."""
    launches = wrong = 0
    try:
        while True:
            waiting.append((await world.reserve(f"q{launches}", "h100", gpus=1)).id)
            nodes = await launch(world, waiting[launches % len(waiting)])
            launches, wrong = launches + 1, wrong + len(set(nodes) & bad)
            await asyncio.sleep(PACE)
    except asyncio.CancelledError:
        return launches, wrong


async def once(place: Cluster, folder: Path, group: str, fault: str) -> Found:
    types = {"h100": group_type("h100", group)}
    store = Store(f"sqlite:///{folder / 'gpudev.sqlite'}")
    await migrate.upgrade(store)
    bad = {f"{group}-0", f"{group}-1"}
    try:
        async with service(place.place.kubeconfig, folder, types) as there:
            await there.until(lambda: sum(n.ready for n in there.fleet.nodes()) == NODES)
            world = there.world(store, folder)
            waiting = [(await world.reserve(f"p{n}", "h100", gpus=4)).id for n in range(NODES)]
            there.proxy.become(fault)
            await there.direct.patch(f"/api/v1/nodes/{group}-0", {"spec": {"unschedulable": True}})
            await there.direct.delete(f"/api/v1/nodes/{group}-1")
            begun = time.monotonic()
            goes_on = asyncio.create_task(ask(world, waiting, bad))
            while there.fleet.view().fresh and not known(there, bad):  # noqa: ASYNC110 - by the clock
                await asyncio.sleep(PACE / 10)
            noticed = time.monotonic() - begun
            goes_on.cancel()
            launches, wrong = await goes_on
            there.proxy.become(None)
            begun = time.monotonic()
            await there.until(lambda: there.fleet.view().fresh and known(there, bad))
            back = time.monotonic() - begun
            await fleet_loop.run(world.ctx)
            for key in waiting:
                nodes = await launch(world, key)
                launches, wrong = launches + 1, wrong + len(set(nodes) & bad)
            return Found(noticed, back, launches, wrong)
    finally:
        await store.close()


def main() -> int:
    logging.getLogger().setLevel(logging.ERROR)
    worst, wrong = 0.0, 0
    with cluster() as place:
        for fault in FAULTS * ROUNDS:
            group = f"stale-{secrets.token_hex(3)}"
            place.add_nodes(NODES, group, resources={GPU: "8"})
            try:
                place.kubectl.wait("node", "Ready", selector=f"{crowd.GROUP}={group}")
                with tempfile.TemporaryDirectory() as folder:
                    found = asyncio.run(once(place, Path(folder), group, fault))
            finally:
                place.remove_nodes(group)
            worst, wrong = max(worst, found.noticed), wrong + found.wrong
            print(
                f"{fault:<18} noticed after {found.noticed:5.1f} s, current again after "
                f"{found.back:4.1f} s, {found.launches} launches, {found.wrong} of them wrong",
                flush=True,
            )
    told = verdict(good=worst <= GOAL and wrong == 0, full=ROUNDS >= FULL)
    print(f"R8 noticed={worst:.1f}s placements={wrong} of {ROUNDS} each goal 20s,0 {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
