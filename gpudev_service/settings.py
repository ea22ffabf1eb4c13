"""What an operator configures, as validated values: GPU types, nodes, policy, limits.

The traits in `config.py` are read into one `Settings`; everything else takes it from there. Each
fact (a type's GPUs, a policy's hours) stands once, in the configuration, and reaches every surface
through the API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from gpudev_client import limits
from gpudev_client.kubernetes import POD_HOME
from gpudev_client.models import Labels, PolicyView, TypeName

NodeName = Annotated[str, StringConstraints(pattern=rf"^{limits.NODE_NAME}$")]


class Setting(BaseModel):
    """Base of what an operator writes: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ScaleUp(Setting):
    """What an autoscaler can add: up to `max_nodes` nodes of the type in all, each there within
    `minutes` from when somebody needs it."""

    max_nodes: int = Field(ge=1, le=10_000)
    minutes: float = Field(gt=0, le=24 * 60)


class KubernetesType(Setting):
    """How a GPU type is found and asked for on Kubernetes.

    `resource` is what pods ask for ("" for a type without GPUs; `nvidia.com/mig-1g.10gb` for a MIG
    slice). A node belongs to the type when it has every label of `node_selector` and, where there
    is a resource, has that. A GPU belongs to one type: of two types with the same resource, each
    has to give another value to one label. Pods of the type get `tolerations` (as a pod has them),
    and `runtime_class`. `profiling` adds the capabilities that GPU profilers need. `scale_up` says
    that an autoscaler can add nodes.
    """

    resource: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class: str | None = None
    profiling: bool = False
    scale_up: ScaleUp | None = None

    def shares_gpus_with(self, other: KubernetesType) -> bool:
        """Whether a node could belong to both, and pods of both ask for the same GPUs there."""
        if not self.resource or self.resource != other.resource:
            return False
        mine, theirs = self.node_selector, other.node_selector
        return all(mine[label] == theirs[label] for label in mine.keys() & theirs.keys())


class GpuTypeSpec(Setting):
    """A named kind of capacity.

    `gpus_per_node` is 0 for a type without GPUs; then `shares_per_node` people share a node.
    `cpus` and `memory_gb` are a whole node's. `max_nodes` above 1 allows requests for several whole
    nodes. `counts` are the GPU counts that may be asked for on one node (default: 1 to all). With
    `kubernetes`, what is left out of `gpus_per_node`, `cpus` and `memory_gb` is what the nodes
    have; where an autoscaler adds nodes (`scale_up`) it has to be said.
    """

    name: TypeName
    label: str = ""
    description: str = ""
    gpus_per_node: int = Field(default=0, ge=0, le=1024)
    shares_per_node: int = Field(default=1, ge=1, le=1024)
    max_nodes: int = Field(default=1, ge=1, le=10_000)
    counts: tuple[int, ...] = ()
    cpus: int = Field(default=0, ge=0)
    memory_gb: int = Field(default=0, ge=0)
    gpu_memory_gb: int | None = None
    max_hours: float | None = None
    maintenance: str | None = None
    kubernetes: KubernetesType | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kubernetes is None or self.kubernetes.scale_up is not None:
            if "gpus_per_node" not in self.model_fields_set:
                raise ValueError("gpus_per_node is missing")
            for name in ("cpus", "memory_gb"):
                if not getattr(self, name):
                    raise ValueError(f"{name} is missing, or is 0")
        if self.kubernetes and not self.kubernetes.resource and self.gpus_per_node:
            raise ValueError("kubernetes.resource is missing, which pods ask for to have a GPU")
        return self

    @model_validator(mode="after")
    def _shape(self) -> Self:
        if self.gpus_per_node and self.shares_per_node != 1:
            raise ValueError("shares_per_node is for types without GPUs (gpus_per_node = 0)")
        found = self.kubernetes is not None and "gpus_per_node" not in self.model_fields_set
        if not found and any(not 1 <= count <= self.gpus_per_node for count in self.counts):
            raise ValueError(f"counts must lie between 1 and {self.gpus_per_node}")
        return self

    @property
    def units_per_node(self) -> int:
        """How many leases' worth of capacity a node has: GPUs, or shares without GPUs."""
        return self.gpus_per_node or self.shares_per_node

    def units_of(self, node: NodeSpec) -> int:
        """How many of them a node of this type has."""
        return self.units_per_node if node.units is None else node.units

    @property
    def valid_counts(self) -> list[int]:
        """Numbers of GPUs that can be asked for, ascending."""
        if not self.gpus_per_node:
            return [0]
        single = sorted(set(self.counts)) or list(range(1, self.gpus_per_node + 1))
        return single + [n * self.gpus_per_node for n in range(2, self.max_nodes + 1)]

    def shape(self, gpus: int) -> tuple[int, int]:
        """(nodes, units per node) of a request for `gpus`, one of `valid_counts`."""
        if gpus <= self.gpus_per_node:
            return 1, max(gpus, 1)
        return gpus // self.gpus_per_node, self.gpus_per_node


class NodeSpec(Setting):
    """A machine of the fleet, or the part of one that belongs to a GPU type.

    `gpu_ids` are what `CUDA_VISIBLE_DEVICES` takes, by unit. `host` is the machine's own name
    (default: `name`), `zone` where it stands. `units` are its units that can be had, where they are
    not as many as the type says: some are broken, or others use them. `unit_cpus` and `unit_memory`
    (bytes) are what goes with one unit, where the machine says so. `labels` are those that people
    may ask for.
    """

    name: NodeName
    gpu_type: TypeName
    gpu_ids: tuple[str, ...] = ()
    simulated: bool = False
    ready: bool = True
    reason: str | None = None
    host: str = ""
    zone: str | None = None
    units: int | None = Field(default=None, ge=0, le=1024)
    unit_cpus: float | None = None
    unit_memory: int | None = None
    labels: Labels = {}

    @property
    def machine(self) -> str:
        """The machine's own name."""
        return self.host or self.name


class IdleAction(StrEnum):
    """What becomes of a lease that nobody uses."""

    NOTHING = "nothing"  # shown, and that is all
    WARN = "warn"  # its people are told
    RELEASE = "release"  # its people are told, and it is given back after a grace


class IdleRule(Setting):
    """When a lease counts as idle, and what follows.

    `after_minutes` without any sign of use make it idle; `release` gives it back `grace_minutes`
    after the warning. Its people may say "keep it": for `keep_hours`, up to `keeps` times until it
    is used again.
    """

    action: IdleAction = IdleAction.WARN
    after_minutes: float = Field(default=60, gt=0)
    grace_minutes: float = Field(default=15, ge=0)
    keep_hours: float = Field(default=4, gt=0)
    keeps: int = Field(default=3, ge=0)

    @property
    def gentleness(self) -> tuple[int, float, float]:
        """Of two rules the one with the higher gentleness is the more generous."""
        mildest_last = list(reversed(IdleAction))
        return mildest_last.index(self.action), self.after_minutes, self.grace_minutes


class PolicyRule(Setting):
    """Limits for a Hub group; a field left out does not change what the default says.

    A user in several groups gets the most generous value of each. `max_gpus` are those of all that
    is not over, what waits included; `max_running_gpus` those of one type that leases may hold at
    the same time, so that what is beyond it waits. `images` are patterns of
    container images that may be asked for in place of the Hub's, where servers are pods: those of
    all groups together.
    """

    max_hours: float | None = Field(default=None, gt=0)
    max_extension_hours: float | None = Field(default=None, ge=0)
    max_total_hours: float | None = Field(default=None, gt=0)
    max_reservations: int | None = Field(default=None, ge=0)
    max_gpus: int | None = Field(default=None, ge=0)
    max_running_gpus: int | None = Field(default=None, ge=1)
    max_disks: int | None = Field(default=None, ge=0)
    max_disk_gb: int | None = Field(default=None, ge=1)
    priority: int | None = Field(default=None, ge=-1000, le=1000)
    disk_retention_days: int | None = Field(default=None, ge=0)
    snapshots_kept: int | None = Field(default=None, ge=1)
    images: tuple[str, ...] | None = None
    idle: IdleRule | None = None


class Policy(Setting):
    """The default limits and those of groups."""

    min_hours: float = Field(default=5 / 60, gt=0)
    default_hours: float = Field(default=2.0, gt=0)
    default: PolicyRule = PolicyRule(
        max_hours=24,
        max_extension_hours=24,
        max_total_hours=48,
        priority=0,
        max_disk_gb=100,
        disk_retention_days=30,
        snapshots_kept=10,
    )
    groups: Mapping[str, PolicyRule] = {}

    @property
    def limits_running(self) -> bool:
        """Whether any rule says how many GPUs somebody's leases may hold at the same time."""
        rules = (self.default, *self.groups.values())
        return any(rule.max_running_gpus is not None for rule in rules)

    def idle_of(self, groups: Iterable[str]) -> IdleRule | None:
        """When leases of a user in `groups` count as idle: the most generous rule that concerns
        them, None where no rule does."""
        named = [rule.idle for g in groups if (rule := self.groups.get(g)) and rule.idle]
        own = [self.default.idle] if self.default.idle else []
        return max([*own, *named], key=lambda rule: rule.gentleness, default=None)

    def of(self, groups: Iterable[str]) -> PolicyView:
        """The limits of a user in `groups`."""
        rules = [self.groups[g] for g in groups if g in self.groups]
        base = self.default

        def best(field: str, fallback: float | None) -> float | None:
            named: list[float] = [v for r in rules if (v := getattr(r, field)) is not None]
            own: float | None = getattr(base, field)
            if own is None:  # no limit by default; a group may only name one if nothing else does
                return max(named) if named else fallback
            return max([own, *named])

        def whole(field: str, fallback: int | None) -> int | None:
            value = best(field, fallback)
            return None if value is None else int(value)

        max_hours = best("max_hours", 24.0) or 24.0
        extension = best("max_extension_hours", 0.0) or 0.0
        return PolicyView(
            max_hours=max_hours,
            max_extension_hours=extension,
            max_total_hours=best("max_total_hours", None) or max_hours + extension,
            max_reservations=whole("max_reservations", None),
            max_gpus=whole("max_gpus", None),
            max_running_gpus=whole("max_running_gpus", None),
            max_disks=whole("max_disks", None),
            max_disk_gb=whole("max_disk_gb", None),
            priority=whole("priority", 0) or 0,
            disk_retention_days=whole("disk_retention_days", 30) or 0,
            snapshots_kept=whole("snapshots_kept", 10) or 1,
            images=list(dict.fromkeys(i for rule in [base, *rules] for i in rule.images or ())),
        )


#: Seconds that ending a server without the Hub may take: politely first, then by force.
STOP_POLITELY, STOP_BY_FORCE = 1.0, 2.0


class Times(Setting):
    """The spans that promises are built from, in seconds.

    `turnover`: between a lease's end and the next start on the same GPUs; part of every promise,
    and so at least as long as a server may take to end: `hub_patience` and three seconds more.
    `start_limit`: how long a server may take to come up. `crash_grace`: how long a lease waits for
    its crashed server to be started again. `node_patience`: how long a node of a cluster may give
    no sign of life until its servers count as crashed; it begins when Kubernetes itself has noticed
    the silence, after 40 or 50 seconds. `measure`: between two looks at the size of a disk in
    use. `warnings`: minutes before the end. `hook` and `saving`: what the server takes before its
    lease's end for the owner's hook, and then to save what is open. `closing`: how long an early
    end waits for the server to do so.
    """

    turnover: float = Field(default=15.0, ge=0)
    start_limit: float = Field(default=120.0, gt=0)
    crash_grace: float = Field(default=600.0, ge=0)
    node_patience: float = Field(default=60.0, ge=1)
    warnings: tuple[int, ...] = (30, 15, 5)
    hook: float = Field(default=60.0, ge=0, le=3600)
    saving: float = Field(default=10.0, ge=0, le=600)
    closing: float = Field(default=5.0, ge=0, le=60)
    hub_patience: float = Field(default=3.0, gt=0)
    sweep: float = Field(default=1.0, gt=0)
    reconcile: float = Field(default=15.0, gt=0)
    idle: float = Field(default=30.0, gt=0)
    measure: float = Field(default=600.0, gt=0)
    retention: float = Field(default=3600.0, gt=0)

    @property
    def longest_stop(self) -> float:
        """How long the end of a server may take, whatever the Hub does: after its patience with the
        Hub, and with the Hub's own time limits for a stop, the service ends the server itself."""
        return self.hub_patience + STOP_POLITELY + STOP_BY_FORCE

    @property
    def turnover_span(self) -> timedelta:
        return timedelta(seconds=self.turnover)


class KubernetesSettings(Setting):
    """The cluster in which servers are pods, and what their disks are made with.

    `namespace` is where pods and volumes are. Without `kubeconfig` the pod's own service account is
    used, or else ~/.kube/config. Without `storage_class` and `snapshot_class` the cluster's default
    ones are; `shared_storage_class` is one for a folder that all nodes of a reservation see.
    `network_policies`: whether servers stand under policies that let nobody in by themselves.
    `index_image` has gpudev in it, and lists the files of snapshots as `index_uid`, to whom
    people's files belong; without it they are not listed.
    """

    namespace: str = Field(default="default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    kubeconfig: Path | None = None
    home: str = Field(default=POD_HOME, pattern=r"^/.*[^/]$")
    storage_class: str | None = None
    snapshot_class: str | None = None
    shared_storage_class: str | None = None
    network_policies: bool = False
    disk_size_gb: int = Field(default=10, ge=1)
    placeholder_image: str = "registry.k8s.io/pause:3.10"
    index_image: str | None = None
    index_uid: int = Field(default=1000, ge=1)


#: Labels of a cluster's nodes that say what the hardware is, or where it stands. The name of a node
#: is not among them: whoever asked for one would wait for it while others are free. Nor is what
#: changes while a node stays what it is, such as the time of the last look at its GPUs.
NODE_LABELS = (
    "topology.kubernetes.io/*",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/arch",
    "nvidia.com/gpu.product",
    "nvidia.com/gpu.family",
    "nvidia.com/gpu.machine",
    "nvidia.com/gpu.memory",
    "nvidia.com/gpu.compute.*",
    "nvidia.com/gpu.clique",
    "nvidia.com/cuda.*",
)


class Settings(Setting):
    """Everything that operations decide with. `node_labels` are patterns of those labels of a
    cluster's nodes that people may ask for; what an operator writes at a static node is meant for
    them."""

    gpu_types: Mapping[str, GpuTypeSpec]
    nodes: tuple[NodeSpec, ...] = ()
    policy: Policy = Policy()
    times: Times = Times()
    data_dir: Path = Path("gpudev-data")
    disk_limit_gb: int | None = Field(default=100, ge=1)
    history_days: int | None = Field(default=365, ge=1)
    public_url: str = ""
    service_url: str = ""
    servers: Literal["local", "kubernetes"] = "local"
    kubernetes: KubernetesSettings = KubernetesSettings()
    node_labels: tuple[str, ...] = NODE_LABELS

    def offers_label(self, key: str) -> bool:
        """Whether people may ask for this label of a cluster's nodes."""
        return any(fnmatchcase(key, pattern) for pattern in self.node_labels)

    @property
    def url_for_servers(self) -> str:
        """Where servers find the service; best without whatever stands before the Hub."""
        return self.service_url.rstrip("/") or self.public_url.rstrip("/") + "/services/gpudev"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for node in self.nodes:
            if node.gpu_type not in self.gpu_types:
                raise ValueError(f"node {node.name}: there is no GPU type {node.gpu_type!r}")
            if node.name in seen:
                raise ValueError(f"node {node.name} stands twice")
            seen.add(node.name)
        return self
