"""Who and what there is in the simulated world: people, nodes, types, rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gpudev_service.actor import Actor
from gpudev_service.fleet import StaticFleet
from gpudev_service.fleet.base import FleetAway, Unchanging, View
from gpudev_service.settings import (
    GpuTypeSpec,
    IdleAction,
    IdleRule,
    NodeSpec,
    Policy,
    PolicyRule,
)

USERS = ("ada", "grace", "linus", "edsger", "barbara")
#: Groups of the users; what `slow` has leaves its leases alone, what `lab` has gives them back.
GROUPS: Mapping[str, tuple[str, ...]] = {"ada": ("lab",), "grace": ("lab",), "linus": ("slow",)}
ADMIN = Actor("root-admin", admin=True)
SPAWNER = Actor("gpudev-spawner")
HOURS = (5 / 60, 0.25, 0.5, 1, 2, 3.5)
TYPES = {
    "t4": GpuTypeSpec(name="t4", gpus_per_node=4, cpus=48, memory_gb=192, max_nodes=2),
    "h100": GpuTypeSpec(name="h100", gpus_per_node=2, cpus=96, memory_gb=512),
    "cpu": GpuTypeSpec(name="cpu", gpus_per_node=0, shares_per_node=2, cpus=8, memory_gb=32),
}


def _node(name: str, gpu_type: str) -> NodeSpec:
    devices = tuple(f"GPU-{name}-{at}" for at in range(TYPES[gpu_type].gpus_per_node))
    return NodeSpec(name=name, gpu_type=gpu_type, gpu_ids=devices)


NODES: tuple[NodeSpec, ...] = (
    _node("t4-1", "t4"),
    _node("t4-2", "t4"),
    _node("h100-1", "h100"),
    _node("cpu-1", "cpu"),
)
#: What an operator may make of a node between two runs of the service: its leases stay.
OTHERWISE: Mapping[str, Mapping[str, str]] = {
    "t4-1": {"name": "t4-one"},
    "t4-2": {"gpu_type": "h100"},
    "h100-1": {"name": "h100-one"},
}
POLICY = Policy(
    default=Policy().default.model_copy(
        update={"idle": IdleRule(action=IdleAction.RELEASE, after_minutes=20, grace_minutes=5)}
    ),
    groups={
        "slow": PolicyRule(idle=IdleRule(action=IdleAction.NOTHING)),
        "lab": PolicyRule(
            idle=IdleRule(action=IdleAction.WARN, after_minutes=30), priority=5, max_running_gpus=4
        ),
    },
)


@dataclass
class Outside:
    """What becomes of the nodes while the service runs, and outlives it: those that have `failed`,
    those that have and nobody has seen it yet, and whether the fleet can be seen at all."""

    failed: set[str] = field(default_factory=set)
    unseen: set[str] = field(default_factory=set)
    cut_off: bool = False


@dataclass
class FailingFleet(Unchanging):
    """The configured nodes, of which some fail and come back while the service runs. Like that of a
    cluster it may be behind, or not be seen, and a look at a node itself brings the truth."""

    configured: StaticFleet
    outside: Outside
    _known: Mapping[str, NodeSpec] | None = None

    def view(self) -> View:
        return View(fresh=False, trouble="cut off") if self.outside.cut_off else View()

    @contextmanager
    def changes(self) -> Iterator[frozenset[str]]:
        if self.outside.cut_off:
            self._known = None
            yield frozenset()
            return
        before, now = self._known, {node.name: node for node in self.nodes()}
        if before is None:
            yield frozenset(self.types())
        else:
            others = {name for name in {*before, *now} if before.get(name) != now.get(name)}
            yield frozenset(
                nodes[name].gpu_type for nodes in (before, now) for name in others & set(nodes)
            )
        self._known = now

    async def refusals(self, needed: Mapping[str, int]) -> Mapping[str, str]:
        if self.outside.cut_off:
            raise FleetAway("cut off")
        self.outside.failed |= self.outside.unseen
        self.outside.unseen.clear()
        return {name: "It does not answer." for name in needed if name in self.outside.failed}

    def nodes(self) -> Sequence[NodeSpec]:
        return [
            node.model_copy(update={"ready": False, "reason": "it does not answer"})
            if node.name in self.outside.failed
            else node
            for node in self.configured.nodes()
        ]

    def types(self) -> Mapping[str, GpuTypeSpec]:
        return self.configured.types()
