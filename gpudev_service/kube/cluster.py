"""The nodes and pods of the cluster as the service sees them, in one view for all its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import quote

from gpudev_service.clock import elapsed
from gpudev_service.settings import Settings

from .objects import HOSTNAME, Node, Pod, node_reader, pod_reader
from .refusals import KubeRefused, Object
from .watch import Timing, Watched

if TYPE_CHECKING:
    from .connection import Kube

_NOT_FOUND = 404
#: Seconds for the look at a node before a start: somebody waits for it.
LOOK = 5.0
#: Seconds that the start of the service waits for the first view; after that it goes on without.
FIRST_VIEW = 10.0
DEFAULT = Timing()
#: Seconds. Every kubelet tells its node's whole state every few minutes, changed or not, and before
#: a start the node itself is asked. Of pods, on which people wait, is heard at once.
NODES_REST = 0.5

#: Hears which node has changed, in itself or by its pods.
Listener = Callable[[str], None]
#: Hears what a pod was and what it is.
PodListener = Callable[[Pod | None, Pod | None], None]


@dataclass(frozen=True, slots=True)
class Sight:
    """Whether the view can be relied upon, and in words why not."""

    fresh: bool = True
    words: str | None = None


class Cluster:
    """Two watches, and indexes over what they show."""

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        timing: Timing = DEFAULT,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        kinds = [t.kubernetes for t in settings.gpu_types.values() if t.kubernetes]
        labels = frozenset(label for kind in kinds for label in kind.node_selector) | {HOSTNAME}
        resources = frozenset(kind.resource for kind in kinds if kind.resource)
        self.kube = kube
        self.namespace = settings.kubernetes.namespace
        # Asked for each label of each node, of which all have much the same.
        offers = lru_cache(4096)(settings.offers_label)
        self._read_node = node_reader(labels, resources, offers)
        self._listeners: list[Listener] = []
        self._pod_listeners: list[PodListener] = []
        self._on_node: dict[str, dict[str, Pod]] = {}
        self._of: dict[str, dict[str, Pod]] = {}
        self._nodes: Watched[Node] = Watched(
            kube,
            "/api/v1/nodes",
            self._read_node,
            changed=lambda name, *_: self._tell(name),
            timing=timing,
            rest=NODES_REST,
            clock=clock,
        )
        self._pods: Watched[Pod] = Watched(
            kube,
            "/api/v1/pods",
            pod_reader(self.namespace, resources),
            changed=self._pod_changed,
            timing=timing,
            clock=clock,
        )

    # --- what is seen -------------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes.items

    def pods_on(self, node: str) -> Iterable[Pod]:
        return self._on_node.get(node, {}).values()

    def pods_of(self, reservation_id: str) -> list[Pod]:
        return list(self._of.get(reservation_id, {}).values())

    def pods_of_all(self) -> Iterator[Pod]:
        """The pods of all reservations."""
        return chain.from_iterable(pods.values() for pods in self._of.values())

    def learn_pod(self, made: Object) -> None:
        """A pod that was just made, before the watch tells of it."""
        metadata = made["metadata"]
        self._pods.learn(f"{metadata['namespace']}/{metadata['name']}", made)

    def placeholders(self) -> list[Pod]:
        return [pod for pod in self._pods.items.values() if pod.placeholder]

    def sight(self) -> Sight:
        for watched, what in ((self._nodes, "nodes"), (self._pods, "pods")):
            if not watched.fresh:
                return Sight(False, _stale(what, watched.age, watched.trouble))
        return Sight()

    async def look(self, name: str) -> Node | None:
        """A node as it is at this moment, asked for itself; None where there is none. The view
        learns of it too.

        Raises:
            KubeAway, KubeRefused: it could not be asked for.
        """
        try:
            found = await self.kube.get(f"/api/v1/nodes/{quote(name, safe='')}", within=LOOK)
        except KubeRefused as refusal:
            if refusal.status != _NOT_FOUND:
                raise
            self._nodes.learn(name, None)
            return None
        self._nodes.learn(name, found)
        return self._read_node(found)

    async def news(self) -> None:
        """Waits until something happens in either watch."""
        waiting = [asyncio.create_task(watched.news()) for watched in (self._nodes, self._pods)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def listen_to_pods(self, listener: PodListener) -> None:
        self._pod_listeners.append(listener)

    # --- its life -----------------------------------------------------------------------------

    async def start(self, patience: float = FIRST_VIEW) -> None:
        """Begins to watch. Waits for the first view, but not for ever: a service that starts while
        the API server is away has leases to end all the same."""
        self._nodes.start()
        self._pods.start()
        try:
            async with asyncio.timeout(patience):
                while not self.sight().fresh:
                    await self.news()
        except TimeoutError:
            return

    async def close(self) -> None:
        await self._nodes.close()
        await self._pods.close()

    def _pod_changed(self, key: str, before: Pod | None, after: Pod | None) -> None:
        touched = set()
        for pod in (before, after):
            if pod is not None and pod.node:
                touched.add(pod.node)
        if before is not None:
            _drop(self._on_node, before.node, key)
            _drop(self._of, before.reservation, key)
        if after is not None:
            if after.node:
                self._on_node.setdefault(after.node, {})[key] = after
            if after.reservation:
                self._of.setdefault(after.reservation, {})[key] = after
        for node in touched:
            self._tell(node)
        for listener in self._pod_listeners:
            listener(before, after)

    def _tell(self, node: str) -> None:
        for listener in self._listeners:
            listener(node)


def _drop(index: dict[str, dict[str, Pod]], name: str | None, key: str) -> None:
    if name and name in index:
        index[name].pop(key, None)
        if not index[name]:
            del index[name]


def _stale(what: str, age: float, trouble: str | None) -> str:
    since = "not once since the start" if age == float("inf") else f"{age:.0f} s ago"
    because = f": {trouble}" if trouble else ""
    return f"The cluster's {what} were last seen {since}{because}."


@asynccontextmanager
async def watched(kube: Kube, settings: Settings) -> AsyncIterator[Cluster]:
    """A view of the cluster for as long as the block lasts."""
    cluster = Cluster(kube, settings)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.close()
