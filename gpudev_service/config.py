"""What an operator can configure: traits with help, read into `Settings`.

Every trait stands in `gpudev_config.py` (`gpudev --generate-config` writes it with all of them)
and on the command line (`--GpuDev.db_url=...`). A value that cannot work is refused with the
trait's name and what it accepts.
"""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from traitlets import Bool, CaselessStrEnum, Dict, Float, Integer, List, Unicode, default
from traitlets.config import Configurable

from gpudev_client.kubernetes import POD_HOME

from .settings import (
    NODE_LABELS,
    GpuTypeSpec,
    KubernetesSettings,
    NodeSpec,
    Policy,
    Settings,
    Times,
)

#: Where a pod finds the name of its namespace.
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ConfigurationError(Exception):
    """The configuration cannot work; the message names the trait and what it accepts."""


class GpuDev(Configurable):
    """What there is to reserve, who may reserve how much, and where data lies."""

    gpu_types = Dict(
        help="""The GPU types by name. Each is a dict with:

        gpus_per_node (0 for a type without GPUs), shares_per_node (people per node, for types
        without GPUs), max_nodes (above 1: whole nodes can be asked for together), counts (GPU
        counts that can be asked for; default: 1 to all), cpus and memory_gb (of a whole node),
        gpu_memory_gb, max_hours (in place of the policy's), label, description, maintenance (a
        message: takes no new reservations).

            c.GpuDev.gpu_types = {
                "h100": {"gpus_per_node": 8, "cpus": 192, "memory_gb": 2048},
                "cpu-x86": {"gpus_per_node": 0, "shares_per_node": 4, "cpus": 32, "memory_gb": 64},
            }

        With `fleet = "kubernetes"` each has `kubernetes` too: a dict with resource, node_selector,
        tolerations, runtime_class, profiling, scale_up (max_nodes, minutes). Where gpus_per_node,
        cpus and memory_gb are left out they are what the nodes have. Types with the same resource
        need a node_selector each that gives one label another value.

            c.GpuDev.gpu_types = {
                "h100": {"kubernetes": {"node_selector": {"gpu": "h100"}}},
                "b200-mig-1g": {"kubernetes": {"resource": "nvidia.com/mig-1g.23gb"}},
            }
        """,
    ).tag(config=True)
    nodes = List(
        Dict(),
        help="""The nodes, in the order in which they are filled. Each is a dict with name,
        gpu_type, gpu_ids (what CUDA_VISIBLE_DEVICES takes, in order; default: 0, 1, ...; no
        two nodes of this machine may have the same), simulated (no real GPUs: said so everywhere),
        ready (False: nothing new is placed), reason, and labels (a dict; people may ask for nodes
        that have them).

            c.GpuDev.nodes = [{"name": "gpu-1", "gpu_type": "h100"}]
        """,
    ).tag(config=True)
    fleet = CaselessStrEnum(
        ["static", "nvml", "kubernetes"],
        default_value="static",
        help="""Where nodes come from: `static` is `nodes` as written; `nvml` is the NVIDIA GPUs of
        this machine, with the nodes of types without GPUs from `nodes`; `kubernetes` is the nodes
        of a cluster, watched.""",
    ).tag(config=True)
    servers = CaselessStrEnum(
        ["local", "kubernetes"],
        help="""What servers are: processes of this machine, or pods. Default: `kubernetes` where
        the fleet is, else `local`.""",
    ).tag(config=True)
    disks = CaselessStrEnum(
        ["directories", "volumes"],
        help="""What disks are: directories in `data_dir`, or PersistentVolumeClaims. Default:
        `volumes` where servers are pods, else `directories`.""",
    ).tag(config=True)
    namespace = Unicode(
        help="""The namespace of servers' pods and of disks' volumes. Default: the service's own one
        where it is a pod itself, else `default`."""
    ).tag(config=True)
    kubeconfig = Unicode(
        None,
        allow_none=True,
        help="""A file that says how to reach the cluster. None: the service account of the
        service's own pod, or ~/.kube/config outside of a cluster.""",
    ).tag(config=True)
    storage_class = Unicode(
        None, allow_none=True, help="StorageClass of disks. None: the cluster's default."
    ).tag(config=True)
    snapshot_class = Unicode(
        None, allow_none=True, help="VolumeSnapshotClass of snapshots. None: the cluster's default."
    ).tag(config=True)
    network_policies = Bool(
        False,
        help="""Whether servers in a cluster stand under NetworkPolicies that keep them apart, as
        the chart makes them. Then the pods of a reservation of several nodes get one more, by which
        they reach each other. Where there are no others it must be False: that one alone would let
        neither Hub nor proxy nor gpudev in, and no name would be resolved.""",
    ).tag(config=True)
    shared_storage_class = Unicode(
        None,
        allow_none=True,
        help="""StorageClass of the folder that all nodes of a reservation share; one that can be
        mounted by several nodes at once. It is as large as a new disk, lives as long as the lease,
        and is gone with it. None: there is no such folder.""",
    ).tag(config=True)
    node_labels = List(
        Unicode(),
        list(NODE_LABELS),
        help="""Patterns of labels of a cluster's nodes that people may ask for: a reservation is
        then placed only on nodes that have these. Labels in `nodes` can always be asked for. What
        names single nodes, as kubernetes.io/hostname does, is not among the default: it makes
        people wait for one of them while others are free.""",
    ).tag(config=True)
    disk_size_gb = Integer(10, min=1, help="Size of a new disk's volume, in GB.").tag(config=True)
    placeholder_image = Unicode(
        "registry.k8s.io/pause:3.10",
        help="""Image of the pods that ask an autoscaler for a node, where a GPU type has
        `scale_up`; one that does nothing.""",
    ).tag(config=True)
    index_image = Unicode(
        None,
        allow_none=True,
        help="""An image that has gpudev in it, such as the service's own: short-lived pods of it
        list the files of snapshots. None: what is on a volume is not listed.""",
    ).tag(config=True)
    index_uid = Integer(
        1000, min=1, help="The account that people's files belong to in their servers' pods."
    ).tag(config=True)
    pod_home = Unicode(POD_HOME, help="Where the disk is mounted in a server's pod.").tag(
        config=True
    )
    policy = Dict(
        help="""Limits: a dict with min_hours, default_hours, default (for everybody) and groups (by
        Hub group). Limits are max_hours, max_extension_hours, max_total_hours, max_reservations,
        max_gpus, max_running_gpus (of one type, held at the same time: more waits), max_disks,
        max_disk_gb (where disks are volumes), priority, disk_retention_days, snapshots_kept, images
        (patterns of container images that may be asked for, where servers are pods). A user in
        several groups gets the most generous of each; None means no limit. `idle` is a dict for
        leases that nobody uses: action (nothing, warn, release), after_minutes, grace_minutes
        (between the warning and the release), keep_hours and keeps (for how long, and how often,
        somebody may say "keep it"). Without it nothing is judged.

            c.GpuDev.policy = {
                "default": {"max_hours": 24, "max_gpus": 8},
                "groups": {"lab": {"max_gpus": 32, "priority": 10}},
            }
        """,
    ).tag(config=True)
    times = Dict(
        help="""Spans in seconds: turnover (between two leases on the same GPUs; at
        least hub_patience + 3), start_limit (for a
        server to come up), crash_grace (a crashed server can be started again),
        node_patience (a node of a cluster that gives no sign of life may come back, before its
        servers count as crashed), hub_patience (for an answer of the Hub), sweep, reconcile, idle,
        retention (between runs of the loops),
        measure (between two looks at the size of a disk in use), hook and saving (before a lease's
        end, for the owner's ~/.gpudev/before-expiry and then for saving what is open), closing (how
        long an early end waits for that), and warnings (minutes before a lease's end:
        [30, 15, 5]).""",
    ).tag(config=True)
    db_url = Unicode(
        help="""The database: sqlite:///relative/file, sqlite:////absolute/file or
        postgresql://USER:PASSWORD@HOST/NAME. Default: $GPUDEV_DB_URL, else gpudev.sqlite in
        `data_dir`. A password is better given by the environment or by ~/.pgpass.""",
    ).tag(config=True)
    data_dir = Unicode(
        "gpudev-data",
        help="""Directory of disks, snapshots, the SQLite database and the cookie secret. One
        service at a time uses it.""",
    ).tag(config=True)
    disk_limit_gb = Integer(
        100,
        allow_none=True,
        help="""Limit of a disk in GB; None: none. Directories cannot refuse a write: people are
        told at 90 and 100 percent, and no GPUs are given to a disk over it.""",
    ).tag(config=True)
    history_days = Integer(
        365,
        allow_none=True,
        help="""How many days after its end a reservation is kept, with its history; at least 1.
        None: for ever.""",
    ).tag(config=True)
    public_url = Unicode(
        help="""Address of the Hub as people reach it, for links, like https://hub.example.org.
        Default: $JUPYTERHUB_PUBLIC_HUB_URL without /hub, else links are paths."""
    ).tag(config=True)
    service_url = Unicode(
        help="""Address of the service as servers reach it, with its prefix, like
        http://gpudev:10101/services/gpudev. Default: `public_url` with /services/gpudev."""
    ).tag(config=True)

    @default("servers")
    def _default_servers(self) -> str:
        return "kubernetes" if self.fleet == "kubernetes" else "local"

    @default("disks")
    def _default_disks(self) -> str:
        return "volumes" if self.servers == "kubernetes" else "directories"

    @default("namespace")
    def _default_namespace(self) -> str:
        try:
            return NAMESPACE_FILE.read_text().strip() or "default"
        except OSError:
            return "default"  # not a pod

    @default("db_url")
    def _default_db_url(self) -> str:
        given = os.environ.get("GPUDEV_DB_URL")
        return given or f"sqlite:///{Path(self.data_dir).absolute() / 'gpudev.sqlite'}"

    @default("public_url")
    def _default_public_url(self) -> str:
        hub = os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL", "")
        if hub:
            return hub.rstrip("/").removesuffix("/hub")
        return os.environ.get("JUPYTERHUB_BASE_URL", "/").rstrip("/")

    def settings(self) -> Settings:
        """The values of all traits, checked.

        Raises:
            ConfigurationError: with the trait and what it accepts.
        """
        types = {
            name: self._read("gpu_types", GpuTypeSpec, {"name": name, **_dict(value)}, name)
            for name, value in self.gpu_types.items()
        }
        self._need_kubernetes(types)
        self._need_own_gpus(types)
        self._need_fitting_disks()
        nodes = tuple(
            self._read("nodes", NodeSpec, value, str(value.get("name", index)))
            for index, value in enumerate(self.nodes)
        )
        try:
            return Settings(
                gpu_types=types,
                nodes=nodes,
                policy=self._read("policy", Policy, self._policy()),
                times=self._times(),
                data_dir=Path(self.data_dir).absolute(),
                disk_limit_gb=self.disk_limit_gb,
                history_days=self.history_days,
                public_url=self.public_url,
                service_url=self.service_url,
                servers=self.servers,
                kubernetes=self._kubernetes(),
                node_labels=tuple(self.node_labels),
            )
        except ValidationError as error:
            raise _explained("GpuDev", error, Settings) from None

    def _need_kubernetes(self, types: dict[str, GpuTypeSpec]) -> None:
        """A fleet of Kubernetes needs to know which nodes belong to a type."""
        if self.fleet != "kubernetes":
            return
        for name, spec in types.items():
            if spec.kubernetes is None:
                raise ConfigurationError(
                    f"GpuDev.gpu_types[{name!r}]: kubernetes is missing: a dict that says how the "
                    "type's nodes are found and its GPUs asked for; {} for nvidia.com/gpu."
                )

    def _need_own_gpus(self, types: dict[str, GpuTypeSpec]) -> None:
        """Each type's GPUs are counted by themselves, so what belonged to two would be given out
        twice. Types without GPUs share what a node has, and may be on the same ones."""
        if self.fleet != "kubernetes":
            return
        for one, other in combinations(types.values(), 2):
            mine, theirs = one.kubernetes, other.kubernetes
            if mine and theirs and mine.shares_gpus_with(theirs):
                raise ConfigurationError(
                    f"GpuDev.gpu_types: {one.name!r} and {other.name!r} would promise the same "
                    f"GPUs twice: pods of both ask for {mine.resource}, and a node can have the "
                    "labels of both. Accepted: a node_selector of each that gives one label "
                    "another value, or another resource."
                )

    def _kubernetes(self) -> KubernetesSettings:
        values = {
            "namespace": self.namespace,
            "kubeconfig": self.kubeconfig or None,
            "home": self.pod_home,
            "storage_class": self.storage_class or None,
            "snapshot_class": self.snapshot_class or None,
            "shared_storage_class": self.shared_storage_class or None,
            "network_policies": self.network_policies,
            "disk_size_gb": self.disk_size_gb,
            "placeholder_image": self.placeholder_image,
            "index_image": self.index_image or None,
            "index_uid": self.index_uid,
        }
        try:
            return KubernetesSettings.model_validate(values)
        except ValidationError as error:
            raise _explained("GpuDev", error, KubernetesSettings) from None

    def _need_fitting_disks(self) -> None:
        """A pod with a directory of this machine for its disk would begin on an empty home."""
        fitting = "volumes" if self.servers == "kubernetes" else "directories"
        if self.disks != fitting:
            raise ConfigurationError(
                f"GpuDev.disks: {self.disks!r} cannot be the homes of servers where "
                f"GpuDev.servers is {self.servers!r}. Accepted: {fitting!r}."
            )

    def _times(self) -> Times:
        times: Times = self._read("times", Times, self.times)
        if times.turnover < times.longest_stop:
            raise ConfigurationError(
                f"GpuDev.times: turnover: a server may take {times.longest_stop:g} s to end "
                f"(hub_patience, {times.hub_patience:g} s, and "
                f"{times.longest_stop - times.hub_patience:g} s more), and who waits for its GPUs "
                f"is promised their start after the turnover. At least {times.longest_stop:g} "
                f"(it is {times.turnover:g})."
            )
        return times

    def _policy(self) -> dict[str, Any]:
        """The default rule is completed, not replaced, by what is written."""
        given = dict(self.policy)
        if isinstance(given.get("default"), dict):
            base = Policy().default.model_dump(exclude_none=True)
            given["default"] = base | given["default"]
        return given

    def _read(self, trait: str, model: type[Any], value: Any, key: str = "") -> Any:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            place = f"GpuDev.{trait}" + (f"[{key!r}]" if key else "")
            raise _explained(place, error, model) from None


class GpuDevWeb(Configurable):
    """How the service is reached, and what it lets through."""

    bind_url = Unicode(
        help="""Where to listen, like http://127.0.0.1:10101. Default: $JUPYTERHUB_SERVICE_URL,
        which the Hub sets from the service's `url`.""",
    ).tag(config=True)
    replica_url = Unicode(
        help="""Where the other replicas of the service reach this one, like
        http://10.1.2.3:10101. Replicas are several services on one PostgreSQL: one leads, the
        others pass requests on to it, and one of them takes over when it does not live any more.
        Default: $GPUDEV_REPLICA_HOST with the port of `bind_url`, else `bind_url`.""",
    ).tag(config=True)
    lead_seconds = Float(
        6.0,
        min=1,
        help="""Seconds after which another replica takes over from a leader of which nothing is
        heard. One whose process has ended is followed after half of that.""",
    ).tag(config=True)
    log_format = CaselessStrEnum(
        ["json", "text"], default_value="json", help="Logs as JSON lines, or as text for people."
    ).tag(config=True)
    log_level = CaselessStrEnum(
        ["DEBUG", "INFO", "WARNING", "ERROR"], default_value="INFO", help="Least severe log lines."
    ).tag(config=True)
    trusted_proxies = List(
        Unicode(),
        help="""Addresses of proxies in front of the Hub's own one, whose X-Forwarded-For is
        believed. The address that remains is what anonymous rate limits count.""",
    ).tag(config=True)
    anonymous_rate = Float(
        10.0, min=0.1, help="Requests per second of an address that shows no valid token."
    ).tag(config=True)
    anonymous_burst = Float(60.0, min=1, help="How many of these may come at once.").tag(
        config=True
    )
    authenticate_metrics = Bool(
        True,
        help="""Whether /metrics needs a token: of an admin of gpudev, or one with the Hub's own
        scope read:metrics. False only where nobody else can reach the service.""",
    ).tag(config=True)
    permission_seconds = Integer(
        3,
        min=1,
        max=5,
        help="""How long an answer of the Hub about a token is believed; a revoked token works that
        long.""",
    ).tag(config=True)
    login_days = Float(30.0, min=0.01, help="How long a token of `gpu-dev login` lives.").tag(
        config=True
    )

    @default("bind_url")
    def _default_bind_url(self) -> str:
        return os.environ.get("JUPYTERHUB_SERVICE_URL") or "http://127.0.0.1:10101"

    @default("replica_url")
    def _default_replica_url(self) -> str:
        host = os.environ.get("GPUDEV_REPLICA_HOST")
        if not host:
            return str(self.bind_url)
        # An IPv6 address stands in brackets.
        return f"http://{f'[{host}]' if ':' in host else host}:{urlsplit(self.bind_url).port}"


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {"": value}


def _explained(place: str, error: ValidationError, model: type[BaseModel]) -> ConfigurationError:
    """The first thing that is wrong in one sentence."""
    details = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in details["loc"])
    where = f"{place}: {path}" if path else place
    if details["type"] == "extra_forbidden":
        known = ", ".join(name for name in model.model_fields if name != "name")
        return ConfigurationError(f"{where} is not known. Known there: {known}.")
    if details["type"] == "missing":
        return ConfigurationError(f"{where} is missing.")
    words = details["msg"].removeprefix("Value error, ")
    given = "" if details["type"] == "value_error" else f" (it is {details['input']!r:.60})"
    return ConfigurationError(f"{where}: {words}{given}.")
