"""All pods of one reservation: the workers beside the server's pod, and the end of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jupyterhub.utils import maybe_future

from gpudev_client import kubernetes as names
from gpudev_client import podstatus
from gpudev_client.models import PodLaunch, Reservation

from . import workers
from .manifest import Manifest

if TYPE_CHECKING:
    from .kube import GpuDevKubeSpawner

#: Seconds between two looks at what others do; the cluster is not asked for them.
_ROUND = 0.2


class Gang:
    """The pods of the reservation that a spawner runs."""

    def __init__(self, spawner: GpuDevKubeSpawner) -> None:
        self._spawner = spawner
        self._told: dict[str, Any] = {}

    async def start(self, key: str, plan: PodLaunch) -> None:
        """Makes everything beside the server's pod, which somebody else makes; returns when all of
        it runs. It belongs to that pod, so that the cluster removes it with it."""
        if not plan.workers:
            return
        owner = await self._owner(names.worker_name(key, 0))
        await self._around(key, plan, owner)
        ranks = range(1, len(plan.nodes))
        for rank in ranks:
            await self._worker(key, rank, owner)
        while not all(self._runs(key, rank) for rank in ranks):  # noqa: ASYNC110 - see _ROUND
            await asyncio.sleep(_ROUND)

    async def end(self, key: str, ranks: int, grace: int) -> bool:
        """Ends all pods of the reservation and what belongs to them; False where some are still
        there after the spawner's `stop_timeout`."""
        spawner = self._spawner
        if ranks > 1:
            service = names.service_name(key)
            await spawner.delete_object("service", service)
            await spawner.delete_object("secret", service)
            await spawner.delete_object("network_policy", service)
        pods = [names.worker_name(key, rank) for rank in range(ranks)]
        return await spawner.delete_pods(pods, grace)

    # --- while it runs ------------------------------------------------------------------------

    def news(self, reservation: Reservation) -> list[str]:
        """What has happened to the pods and was not told yet, a sentence for each."""
        nodes = [place.node for place in reservation.placement]
        found = []
        for rank in range(reservation.nodes):
            pod = self._spawner.pod_named(names.worker_name(reservation.id, rank))
            who = "The server" if rank == 0 else f"The worker on {nodes[rank]}"
            found += self._news_of(f"{rank}", who, pod)
        return found

    def _news_of(self, rank: str, who: str, pod: Mapping[str, Any] | None) -> list[str]:
        told = self._told.setdefault(rank, {"restarts": 0, "lost": False})
        if pod is None or podstatus.ended(pod) is not None:
            if told["lost"]:
                return []
            told["lost"] = True
            return [podstatus.lost(pod).about(who)]
        if told["lost"] and podstatus.is_leaving(pod):
            return []  # its node came back, and only ends it
        told["lost"] = False
        count = podstatus.restarts(pod)
        if count <= told["restarts"]:
            told["restarts"] = count
            return []
        told["restarts"] = count
        why = podstatus.last_end(pod)
        # With their number: what is said twice in a row counts as a repeated report.
        times = f", {count} times so far" if count > 1 else ""
        again = f"It was started again in its place{times}."
        return [f"{why.about(who) if why else ''} {again}".strip()]

    def told(self) -> dict[str, Any]:
        """What was told, for the next Hub."""
        return self._told

    def remember(self, told: Mapping[str, Any]) -> None:
        self._told = {key: dict(value) for key, value in told.items()}

    # --- making -------------------------------------------------------------------------------

    async def _owner(self, name: str) -> str:
        """The id of the server's pod, as soon as there is one."""
        while (pod := self._spawner.pod_named(name)) is None:  # noqa: ASYNC110
            await asyncio.sleep(_ROUND)
        return str(pod["metadata"]["uid"])

    async def _around(self, key: str, plan: PodLaunch, owner: str) -> None:
        spawner, first = self._spawner, names.worker_name(key, 0)
        keys = workers.new_key(), workers.new_key()
        around = [
            ("secret", workers.secret(key, plan, *keys)),
            ("service", workers.service(key)),
        ]
        if plan.network_policy:
            around.append(("network_policy", workers.policy(key)))
        for kind, made in around:
            await spawner.create_object(kind, workers.owned(made, first, owner))

    async def _worker(self, key: str, rank: int, owner: str) -> None:
        spawner = self._spawner
        pod = await spawner.rank_pod(rank)
        if spawner.modify_pod_hook:
            pod = await maybe_future(spawner.modify_pod_hook(spawner, pod))
        document = spawner.plain(pod)
        await spawner.create_object(
            "pod", workers.owned(document, names.worker_name(key, 0), owner)
        )

    def _runs(self, key: str, rank: int) -> bool:
        pod = self._spawner.pod_named(names.worker_name(key, rank))
        return pod is not None and podstatus.is_ready(pod)


def joined(pod: Manifest, key: str, plan: PodLaunch, rank: int) -> Manifest:
    """`pod` as one of its reservation's pods; one that is alone stays as it is."""
    if plan.workers:
        pod = workers.joined(pod, key, plan, rank)
    return workers.worker(pod) if rank else pod
