"""The nodes of a Kubernetes cluster, as its watches show them.

Verbs that this needs, for the whole cluster: `nodes` and `pods`: get, list, watch. Where a type can
scale up: `pods`: create and delete in the namespace of the servers, for placeholders.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager

from gpudev_client import words
from gpudev_service.kube import Cluster, KubeAway, KubeRefused
from gpudev_service.kube.objects import CPU, MEMORY, Amounts, Node
from gpudev_service.settings import GpuTypeSpec, NodeSpec, Settings

from . import scaling
from .base import FleetAway, Share, View
from .parts import LEAST_CPUS, LEAST_MEMORY, Kind, overhead, parts, resolved, usual
from .scaling import Coming

log = logging.getLogger(__name__)

#: Nodes asked for at the same time before a start.
_AT_ONCE = 16


class KubernetesFleet:
    """Nodes by GPU type. What changes is taken in when somebody looks, once for all that changed.

    `news` is called when the capacity of a type has become another one.
    """

    def __init__(
        self, settings: Settings, cluster: Cluster, news: Callable[[], None] = lambda: None
    ) -> None:
        self._cluster, self._news = cluster, news
        self._image = settings.kubernetes.placeholder_image
        self._kinds = [Kind(t, t.kubernetes) for t in settings.gpu_types.values() if t.kubernetes]
        self._resources = frozenset(kind.resource for kind in self._kinds if kind.resource)
        self._types = {kind.spec.name: kind.spec for kind in self._kinds}
        self._found: dict[str, list[NodeSpec]] = {}
        self._of_kind: dict[str, dict[str, Node]] = {kind.spec.name: {} for kind in self._kinds}
        self._nodes: tuple[NodeSpec, ...] = ()
        self._by_name: dict[str, NodeSpec] = {}
        self._daemons: dict[str, float] = {}
        self._overheads: dict[str, dict[str, float]] = {}
        self._taken_otherwise = False
        self._touched = set(cluster.nodes)
        self._unplanned: set[str] = set(self._types)
        self._settling = False
        self._refused: dict[str, str] = {}
        cluster.listen(self._hear)

    # --- the seam -----------------------------------------------------------------------------

    def nodes(self) -> Sequence[NodeSpec]:
        self._settle()
        return self._nodes

    def types(self) -> Mapping[str, GpuTypeSpec]:
        self._settle()
        return self._types

    def view(self) -> View:
        sight = self._cluster.sight()
        return View(sight.fresh, sight.words, " ".join(self._refused.values()) or None)

    @contextmanager
    def changes(self) -> Iterator[frozenset[str]]:
        """Nothing while the view is not current; afterwards everything, since what became free
        meanwhile was given to nobody."""
        if not self.view().fresh:
            self._unplanned = set(self._types)
            yield frozenset()
            return
        self._settle()
        named, self._unplanned = self._unplanned, set()
        try:
            yield frozenset(named)
        except BaseException:
            self._unplanned |= named
            raise

    async def refusals(self, needed: Mapping[str, int]) -> Mapping[str, str]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str, units: int) -> str | None:
            async with turns:
                return await self._refusal(name, units)

        said = await asyncio.gather(*(one(name, units) for name, units in needed.items()))
        return {name: why for name, why in zip(needed, said, strict=True) if why is not None}

    def coming(self, gpu_type: str, most: int) -> Sequence[Coming]:
        self._settle()
        there = len(self._of_kind.get(gpu_type, ()))
        return scaling.coming(self._types[gpu_type], there, most)

    async def ask_for(self, wanted: Mapping[str, int]) -> None:
        """A placeholder has done its work when it has a node that is ready; it must be gone before
        a server comes there."""
        for kind in self._kinds:
            if kind.kubernetes.scale_up is None:
                continue
            name = kind.spec.name
            try:
                await self._placeholders(name, wanted.get(name, 0))
            except KubeAway as away:
                raise FleetAway(str(away)) from away
            except KubeRefused as refusal:
                self._cannot_grow(name, refusal)
            else:
                self._refused.pop(name, None)

    def _cannot_grow(self, gpu_type: str, refusal: KubeRefused) -> None:
        """What the API server says may name things that are nobody's business: it is for the log,
        once for each answer, and whoever reads how the service does is told that it is there."""
        told = (
            f"No node of {gpu_type} can be asked for: the cluster refuses the pod for it "
            f"({refusal.status} {refusal.reason}). The service's log has its words; it is tried "
            "again."
        )
        if self._refused.get(gpu_type) != told:
            log.warning("no node of %s can be asked for: %s", gpu_type, refusal)
        self._refused[gpu_type] = told

    async def _placeholders(self, gpu_type: str, wanted: int) -> None:
        waiting = []
        for pod in self._cluster.placeholders():
            node = self._cluster.nodes.get(pod.node or "")
            if pod.placeholder != gpu_type or pod.leaving:
                continue
            if pod.over or (node is not None and node.ready):
                await self._cluster.kube.delete(pod.path, {"gracePeriodSeconds": 0})
            else:
                waiting.append(pod)
        for pod in waiting[wanted:]:
            await self._cluster.kube.delete(pod.path, {"gracePeriodSeconds": 0})
        existing = list(self._of_kind[gpu_type].values())
        for _ in range(wanted - len(waiting)):
            name = f"{scaling.placeholder_prefix(gpu_type)}{secrets.token_hex(4)}"
            pod_made = scaling.placeholder(self._types[gpu_type], name, self._image, existing)
            path = f"/api/v1/namespaces/{self._cluster.namespace}/pods"
            self._cluster.learn_pod(await self._cluster.kube.create(path, pod_made))

    def share(self, node: str, units: int, reservation_id: str) -> Share | None:
        """Proportional, and never more than is left: pods of others may have come since, and one
        that is leaving has its part until it has gone. What an earlier start of the reservation has
        left there goes before the server of this one comes, and takes nothing from it."""
        self._settle()
        spec = self._by_name.get(node)
        if spec is None:
            return None
        here = self._cluster.nodes.get(spec.machine)
        taken: dict[str, float] = {}
        for pod in self._cluster.pods_on(spec.machine):
            if pod.over or pod.placeholder or pod.reservation == reservation_id:
                continue
            for name, amount in pod.requests.items():
                taken[name] = taken.get(name, 0.0) + amount
        room = {
            name: here.allocatable.get(name, 0.0) - taken.get(name, 0.0) if here else 0.0
            for name in (CPU, MEMORY)
        }
        cpus = min((spec.unit_cpus or 0.0) * units, room[CPU])
        memory = min((spec.unit_memory or 0) * units, int(room[MEMORY]))
        return Share(max(LEAST_CPUS, round(cpus, 3)), max(LEAST_MEMORY, memory))

    # --- taking in what changed ---------------------------------------------------------------

    def _hear(self, node: str) -> None:
        """Remembers the node; looks at all that were touched once the event loop has a moment."""
        self._touched.add(node)
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._settling = False
        self._settle()
        if self._unplanned:
            self._news()

    def _settle(self) -> None:
        """Takes in every node that was touched."""
        touched, self._touched = self._touched, set()
        if not touched:
            return
        others = {kind for name in touched for kind in self._members(name)}
        touched = {name for name in touched if name in self._found or name in self._overheads}
        if not touched:
            return  # nodes that belong to no type
        daemons = usual(list(self._overheads.values())) if self._taken_otherwise else self._daemons
        self._taken_otherwise = False
        if daemons != self._daemons:
            self._daemons = daemons
            touched |= self._found.keys() | self._overheads.keys()
            others = set(self._of_kind)
        changed = [name for name in touched if self._take(name)]
        self._resolve(others)
        if changed:
            ordered = sorted(self._found)
            self._nodes = tuple(spec for name in ordered for spec in self._found[name])
            self._by_name = {spec.name: spec for spec in self._nodes}

    def _members(self, name: str) -> list[str]:
        """Which types the node belongs to, and what its daemons take. Returns those types that have
        another node by it."""
        node = self._cluster.nodes.get(name)
        taken = self._overheads.pop(name, None)
        others = []
        for kind in self._kinds:
            members = self._of_kind[kind.spec.name]
            before = members.pop(name, None)
            after = node if node is not None and kind.has(node, self._resources) else None
            if after is not None:
                members[name] = after
                self._overheads[name] = overhead(self._cluster.pods_on(name))
            if _size(before) != _size(after):
                others.append(kind.spec.name)
        if self._overheads.get(name) != taken:
            self._taken_otherwise = True
        return others

    def _take(self, name: str) -> bool:
        """Takes a node in as it is now; whether that is anything new."""
        node = self._cluster.nodes.get(name)
        before = self._found.pop(name, [])
        after: list[NodeSpec] = []
        if node is not None:
            kinds = [kind for kind in self._kinds if name in self._of_kind[kind.spec.name]]
            after = parts(node, list(self._cluster.pods_on(name)), kinds, self._daemons)
        if after:
            self._found[name] = after
        self._unplanned |= {kind for kind, _ in {*map(_told, before)} ^ {*map(_told, after)}}
        return before != after

    def _resolve(self, names: Set[str]) -> None:
        """Types as their nodes are. One that has lost all its nodes stays as it was known."""
        for kind in self._kinds:
            name = kind.spec.name
            if name not in names or not self._of_kind[name]:
                continue
            spec = resolved(kind, list(self._of_kind[name].values()), self._daemons)
            if spec.units_per_node != self._types[name].units_per_node:
                self._unplanned.add(name)
            self._types[name] = spec

    async def _refusal(self, name: str, needed: int) -> str | None:
        spec = self._by_name.get(name)
        host = spec.machine if spec else name
        try:
            node = await self._cluster.look(host)
        except (KubeAway, KubeRefused) as error:
            raise FleetAway(str(error)) from error
        if node is None or spec is None:
            return "It has left the cluster."
        kinds = [kind for kind in self._kinds if kind.has(node, self._resources)]
        pods = list(self._cluster.pods_on(host))
        now = {part.name: part for part in parts(node, pods, kinds, self._daemons)}.get(name)
        if now is None:
            return "It has not the GPUs any more that it had."
        if not now.ready:
            return now.reason
        kind = self._types[now.gpu_type]
        return None if kind.units_of(now) >= needed else _too_few(kind, now, needed)


def _too_few(kind: GpuTypeSpec, spec: NodeSpec, needed: int) -> str:
    can_be_had = words.counted(kind.units_of(spec), "GPU" if kind.gpus_per_node else "share")
    said = f"Only {can_be_had} of it can be had now, and the leases on it hold {needed}."
    return f"{said} {spec.reason}" if spec.reason else said


def _size(node: Node | None) -> tuple[Amounts, Amounts] | None:
    """What a type's own size depends on."""
    return None if node is None else (node.capacity, node.allocatable)


def _told(spec: NodeSpec) -> tuple[str, tuple[str, bool, int | None, frozenset[tuple[str, str]]]]:
    """What planning depends on."""
    return spec.gpu_type, (spec.name, spec.ready, spec.units, frozenset(spec.labels.items()))
