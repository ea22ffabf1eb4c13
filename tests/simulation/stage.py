"""Who and what there is in the simulated world: people, nodes, types, rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpudev_service.actor import Actor
from gpudev_service.fleet import StaticFleet
from gpudev_service.fleet.base import Unchanging
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
NODES: tuple[NodeSpec, ...] = (
    NodeSpec(name="t4-1", gpu_type="t4", simulated=True),
    NodeSpec(name="t4-2", gpu_type="t4", simulated=True),
    NodeSpec(name="h100-1", gpu_type="h100", simulated=True),
    NodeSpec(name="cpu-1", gpu_type="cpu", simulated=True),
)
POLICY = Policy(
    default=Policy().default.model_copy(
        update={"idle": IdleRule(action=IdleAction.RELEASE, after_minutes=20, grace_minutes=5)}
    ),
    groups={
        "slow": PolicyRule(idle=IdleRule(action=IdleAction.NOTHING)),
        "lab": PolicyRule(
            idle=IdleRule(action=IdleAction.WARN, after_minutes=30), priority=5, max_running_gpus=8
        ),
    },
)


@dataclass
class FailingFleet(Unchanging):
    """The configured nodes, of which some fail and come back while the service runs."""

    configured: StaticFleet
    failed: set[str] = field(default_factory=set)

    def nodes(self) -> Sequence[NodeSpec]:
        return [
            node.model_copy(update={"ready": False, "reason": "it does not answer"})
            if node.name in self.failed
            else node
            for node in self.configured.nodes()
        ]

    def types(self) -> Mapping[str, GpuTypeSpec]:
        return self.configured.types()
