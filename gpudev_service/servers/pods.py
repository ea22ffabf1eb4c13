"""Servers as pods: found by the label that each pod of a reservation has, in the view that the
service keeps of the cluster anyway, and ended by deleting them.

What decides that a server is gone is asked of the API server itself: a lease must not be released
on the word of a view that may be behind. A pod counts as gone when its object is: the kubelet
removes it once its containers have ended. Only where no kubelet is left to do so is the object
taken away without it.

A node that gives no sign of life may be back in a moment, so its pods are waited for. After
`patience` they are given up: their end is asked for, which the node carries out should it come
back, and service and spawner both see by that (`podstatus.is_given_up`) that they serve nobody any
more.

Verbs that this needs, in the namespace of the servers: `pods`: get, list, watch, delete.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from datetime import timedelta
from urllib.parse import quote

from gpudev_client.kubernetes import LABEL_RESERVATION
from gpudev_client.podstatus import vanished
from gpudev_service.clock import Clock
from gpudev_service.kube import Cluster, KubeAway, KubeRefused
from gpudev_service.kube.objects import Pod, pod_reader
from gpudev_service.settings import STOP_BY_FORCE

from .base import Handle, ServersAway

log = logging.getLogger(__name__)

#: Seconds between two looks at whether pods are gone, where the watch has not told.
_ROUND = 0.5
#: How many ends are remembered, for whoever asks why a server is gone.
_ENDS_KEPT = 1000


class PodServers:
    """Pods of this service's namespace that carry a reservation's id.

    Args:
        cluster: where they are seen.
        patience: for how long a silent node's pods are waited for.
        clock: tells how long that is.
    """

    def __init__(self, cluster: Cluster, patience: timedelta, clock: Clock) -> None:
        self._cluster, self._patience, self._clock = cluster, patience, clock
        self._read = pod_reader(cluster.namespace, frozenset())
        self._ends: dict[str, str] = {}
        self._given_up: set[str] = set()
        self._awaited: dict[str, asyncio.Event] = {}
        cluster.listen_to_pods(self._hear)

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        """Also where a pod has ended and is only to be removed: `stop` does that."""
        del handle
        return bool(await self._pods(reservation_id))

    async def told_gone(self, reservation_id: str) -> None:
        """The watch tells, also of each pod of several; the API server is asked then."""
        while True:
            gone = self._awaited.setdefault(reservation_id, asyncio.Event())
            try:
                if self._cluster.pods_of(reservation_id):
                    await gone.wait()
                if not await self._pods(reservation_id):
                    return
            finally:
                self._awaited.pop(reservation_id, None)
            await self._cluster.news()  # the watch has not told of all pods yet

    async def running(self) -> set[str]:
        self._need_view()
        serving = (pod for pod in self._cluster.pods_of_all() if self._serves(pod))
        return {pod.reservation for pod in serving if pod.reservation is not None}

    async def give_up(self) -> None:
        """Where no node at all is heard of it is the API server that is cut off from them, and the
        servers may be well."""
        self._need_view()
        if not any(node.ready for node in self._cluster.nodes.values()):
            return
        for pod in list(self._cluster.pods_of_all()):
            if not pod.running or pod.leaving or not self._is_silent(pod):
                continue
            log.warning("node %s gives no sign of life: %s is given up", pod.node, pod.name)
            # One whose containers did not run anyway would not show by itself that it is given up.
            grace = {} if pod.unheard else {"gracePeriodSeconds": 0}
            options = {**grace, "preconditions": {"uid": pod.uid}}
            try:
                await self._cluster.kube.delete(pod.path, options)
            except KubeRefused as refusal:  # of this one; the others are looked at all the same
                log.warning("the pod %s could not be given up: %s", pod.name, refusal)
            except KubeAway as away:
                raise ServersAway(str(away)) from away

    def _is_silent(self, pod: Pod) -> bool:
        node = self._cluster.nodes.get(pod.node or "")
        since = None if node is None else node.silent_since
        return since is not None and self._clock.now() - since >= self._patience

    async def main_gone(self, reservation_id: str, handle: Handle | None) -> bool:
        if not handle or handle.get("kind") != "pod":
            return False
        self._need_view()
        pods = self._cluster.pods_of(reservation_id)
        return not any(pod.uid == handle.get("uid") and self._serves(pod) for pod in pods)

    def _serves(self, pod: Pod) -> bool:
        """One that was given up does not serve while a node that came back is ending it."""
        return not (pod.over or pod.given_up or pod.uid in self._given_up)

    async def is_idle(self, reservation_id: str, handle: Handle | None) -> bool:
        """What runs in a pod cannot be seen from outside."""
        del reservation_id, handle
        return False

    async def why_gone(self, reservation_id: str) -> str | None:
        for pod in self._cluster.pods_of(reservation_id):
            if pod.rank == 0 and pod.trouble is not None and pod.trouble.over:
                return pod.trouble.words
        return self._ends.get(reservation_id)

    async def tell(self, reservation_id: str, text: str) -> int:
        """The Lab extension in each pod tells its own terminals; from here nothing is reached."""
        del reservation_id, text
        return 0

    async def stop(self, reservation_id: str, handle: Handle | None, grace: float) -> bool:
        del handle
        try:
            return await self._stop(reservation_id, grace)
        except (ServersAway, KubeAway, KubeRefused) as error:
            log.warning("the pods of %s could not be ended: %s", reservation_id, error)
            return False

    async def _stop(self, reservation_id: str, grace: float) -> bool:
        seconds = max(1, math.ceil(grace))
        pods = await self._pods(reservation_id)
        await self._delete(pods, seconds)
        rounds = math.ceil((seconds + STOP_BY_FORCE) / _ROUND)
        for _ in range(rounds):
            pods = await self._pods(reservation_id)
            if all(pod.over for pod in pods):
                return True  # nothing runs any more; the kubelet tidies up
            await self._wait()
        lost = [pod for pod in pods if self._node_is_lost(pod)]
        if lost:
            log.warning("no kubelet ends the pods of %s: taken away", reservation_id)
            await self._delete(lost, 0)
        return all(pod.over for pod in await self._pods(reservation_id))

    async def _delete(self, pods: Iterable[Pod], seconds: int) -> None:
        """Each pod by its uid: another one may have its name by now."""
        for pod in pods:
            options = {"gracePeriodSeconds": seconds, "preconditions": {"uid": pod.uid}}
            await self._cluster.kube.delete(pod.path, options)

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._cluster.news(), _ROUND)
        except TimeoutError:
            return

    def _node_is_lost(self, pod: Pod) -> bool:
        if pod.node is None:
            return True  # nothing was ever started
        node = self._cluster.nodes.get(pod.node)
        return node is None or not node.ready

    async def _pods(self, reservation_id: str) -> list[Pod]:
        """The pods of a reservation as they are at this moment."""
        path = f"/api/v1/namespaces/{quote(self._cluster.namespace, safe='')}/pods"
        query = {"labelSelector": f"{LABEL_RESERVATION}={reservation_id}"}
        try:
            answer = await self._cluster.kube.get(path, query)
        except (KubeAway, KubeRefused) as error:
            raise ServersAway(str(error)) from error
        found = [self._read(item) for item in answer.get("items") or ()]
        return [pod for pod in found if pod is not None]

    def _need_view(self) -> None:
        sight = self._cluster.sight()
        if not sight.fresh:
            raise ServersAway(sight.words or "the cluster cannot be seen")

    def _hear(self, before: Pod | None, after: Pod | None) -> None:
        """Tells who waits for the last pod's end, and keeps which were given up and why a server
        ended: its pod may be gone by the time somebody asks."""
        pod = after or before
        if pod is None or pod.reservation is None:
            return
        if after is None:
            self._given_up.discard(pod.uid)
        elif after.given_up:
            self._given_up.add(pod.uid)
        awaited = self._awaited.get(pod.reservation)
        if awaited is not None and not self._cluster.pods_of(pod.reservation):
            awaited.set()
        if pod.rank == 0:
            self._hear_server(pod.reservation, before, after)

    def _hear_server(self, reservation_id: str, before: Pod | None, after: Pod | None) -> None:
        if after is not None and after.trouble is None:
            if not after.over:
                self._ends.pop(reservation_id, None)
            return
        if after is not None and after.trouble is not None:
            words = after.trouble.words
        elif before is not None and before.trouble is not None and before.trouble.over:
            words = before.trouble.words
        else:
            node = None if before is None else before.node
            words = vanished(None if node is None else node in self._cluster.nodes).words
        self._ends.pop(reservation_id, None)
        self._ends[reservation_id] = words
        while len(self._ends) > _ENDS_KEPT:
            del self._ends[next(iter(self._ends))]
