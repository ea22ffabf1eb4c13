"""From a launch to a pod: what a reservation adds to the pod that the operator's settings make.

Pure: a pod as KubeSpawner built it (in the API's form), the launch and this part of the
configuration go in, the same pod comes out, placed, with its resources and its disk, and without
privilege. What an operator set by name stays (a security context, tolerations, volumes); what
decides about GPUs does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpudev_client import kubernetes as names
from gpudev_client.models import PodLaunch

#: Variables by which a container could see devices that it was not given, or that name devices
#: where the cluster's device plugin chooses. NVIDIA's runtime would believe them.
DEVICE_VARIABLES = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_IMEX_CHANNELS",
        "NVIDIA_MIG_CONFIG_DEVICES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
    }
)
#: What hides all GPUs from a container whose image asks for all of them.
NO_DEVICES = "void"
#: Device plugins' resources: how many there are is the reservation's business alone.
_DEVICES = ("nvidia.com/", "amd.com/", "gpu.intel.com/")
#: Directories that programs expect to write to.
_SCRATCH: Mapping[str, str] = {"gpudev-tmp": "/tmp", "gpudev-var-tmp": "/var/tmp"}  # noqa: S108
_HOME, _SHARED, _MEMORY = "gpudev-home", "gpudev-shared", "gpudev-memory"
_SHM = "/dev/shm"  # noqa: S108
_EMPTY: Mapping[str, Any] = {"emptyDir": {}}

#: A pod, or a part of one, as the Kubernetes API has it.
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator says about pods beyond KubeSpawner's own settings. `home` is where the disk
    is mounted."""

    home: str = names.POD_HOME
    read_only_root: bool = True
    shared_memory: bool = True
    shared_path: str = "/shared"
    profiling_capabilities: tuple[str, ...] = ("SYS_ADMIN",)


def placed(
    pod: Manifest, reservation_id: str, launch: PodLaunch, settings: Settings, rank: int = 0
) -> Manifest:
    """`pod` as the one of `rank` in a reservation; changed in place and returned."""
    spec = pod["spec"]
    main = spec["containers"][0]
    metadata = pod["metadata"]
    metadata["name"] = names.worker_name(reservation_id, rank)
    metadata["labels"] = {
        **metadata.get("labels", {}),
        names.LABEL_MANAGED: names.MANAGED_BY,
        names.LABEL_RESERVATION: reservation_id,
        names.LABEL_RANK: str(rank),
    }
    if launch.image:
        main["image"] = launch.image
        set_variables(main, {"JUPYTER_IMAGE_SPEC": launch.image, "JUPYTER_IMAGE": launch.image})
    _place(spec, launch, launch.nodes[rank])
    _size(main, launch)
    _volumes(spec, main, launch, settings, rank)
    _devices(spec, main, launch)
    _restricted(spec, main, launch, settings)
    return pod


def without_devices(environment: Mapping[str, Any]) -> dict[str, Any]:
    """`environment` without the variables that choose devices."""
    return {key: value for key, value in environment.items() if key not in DEVICE_VARIABLES}


def mount(spec: Manifest, volume: Manifest, **places: Mapping[str, Any]) -> None:
    """Adds a volume to the pod's main container."""
    spec["volumes"] = [*spec.get("volumes", []), volume]
    main = spec["containers"][0]
    main["volumeMounts"] = [*main.get("volumeMounts", []), *places.values()]


def set_variables(container: Manifest, variables: Mapping[str, str]) -> None:
    """Sets variables of a container's environment, over what is there."""
    rest = [one for one in container.get("env", []) if one["name"] not in variables]
    added = [{"name": name, "value": value} for name, value in variables.items()]
    container["env"] = [*rest, *added]


# --- where ------------------------------------------------------------------------------------


def _place(spec: Manifest, launch: PodLaunch, node: str) -> None:
    """By affinity and not by `nodeName`: the scheduler still looks whether there is room."""
    here = {"key": "metadata.name", "operator": "In", "values": [node]}
    on_nodes = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = on_nodes.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    # Terms are alternatives, so the node belongs to each of them.
    required["nodeSelectorTerms"] = [
        {**term, "matchFields": [*term.get("matchFields", []), here]}
        for term in required.get("nodeSelectorTerms") or [{}]
    ]
    if launch.node_selector:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **launch.node_selector}
    if launch.tolerations:
        spec["tolerations"] = [*spec.get("tolerations", []), *launch.tolerations]
    if launch.runtime_class:
        spec["runtimeClassName"] = launch.runtime_class


# --- how much ---------------------------------------------------------------------------------


def _size(main: Manifest, launch: PodLaunch) -> None:
    resources = main.setdefault("resources", {})
    requests, limits = _no_gpus(resources.get("requests")), _no_gpus(resources.get("limits"))
    requests["cpu"] = f"{max(1, int(launch.cpus * 1000))}m"
    requests["memory"] = limits["memory"] = str(launch.memory_bytes)
    # A limit below what is guaranteed would be refused; the guarantee is the reservation's.
    if "cpu" in limits and _number(limits["cpu"]) < launch.cpus:
        del limits["cpu"]
    if launch.resource and launch.count:
        requests[launch.resource] = limits[launch.resource] = str(launch.count)
    resources["requests"], resources["limits"] = requests, limits


def _no_gpus(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (given or {}).items() if not key.startswith(_DEVICES)}


def _number(quantity: Any) -> float:
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


# --- what is mounted --------------------------------------------------------------------------


def _volumes(
    spec: Manifest, main: Manifest, launch: PodLaunch, settings: Settings, rank: int
) -> None:
    _clear(spec, main, settings.home)
    disk = launch.claim if rank == 0 else None
    _mounted(spec, _HOME, settings.home, _claim(disk) if disk else _EMPTY)
    if launch.shared_claim:
        _mounted(spec, _SHARED, settings.shared_path, _claim(launch.shared_claim))
    taken = {one["mountPath"].rstrip("/") for one in main["volumeMounts"]}
    if settings.read_only_root:
        for name, path in _SCRATCH.items():
            if path not in taken:
                _mounted(spec, name, path, _EMPTY)
    if settings.shared_memory and _SHM not in taken:
        # What a container gets by itself (64 MB) is too little for data loaders. It counts as the
        # pod's memory.
        _mounted(spec, _MEMORY, _SHM, {"emptyDir": {"medium": "Memory"}})
    main.setdefault("workingDir", settings.home)
    if "HOME" not in _variables(main):
        set_variables(main, {"HOME": settings.home})


def _mounted(spec: Manifest, name: str, path: str, source: Mapping[str, Any]) -> None:
    mount(spec, {"name": name, **source}, at={"name": name, "mountPath": path})


def _claim(name: str) -> Mapping[str, Any]:
    return {"persistentVolumeClaim": {"claimName": name}}


def _clear(spec: Manifest, main: Manifest, home: str) -> None:
    """Takes a home that the operator's settings mount out of the disk's way."""
    mounts = main.get("volumeMounts", [])
    gone = {one["name"] for one in mounts if one["mountPath"].rstrip("/") == home.rstrip("/")}
    main["volumeMounts"] = [
        one for one in mounts if one["mountPath"].rstrip("/") != home.rstrip("/")
    ]
    used = {one["name"] for other in _containers(spec) for one in other.get("volumeMounts", [])}
    spec["volumes"] = [one for one in spec.get("volumes", []) if one["name"] not in gone - used]


# --- what it may ------------------------------------------------------------------------------


def _devices(spec: Manifest, main: Manifest, launch: PodLaunch) -> None:
    """Leaves the choice of devices to the device plugin. A container without GPUs is told so:
    images for GPUs ask for all of them."""
    main["env"] = [one for one in main.get("env", []) if one["name"] not in DEVICE_VARIABLES]
    here = launch.count if launch.resource else 0
    set_variables(main, {"GPUDEV_GPUS_HERE": str(here)})
    for container in _containers(spec):
        if container is main and here:
            continue
        if "NVIDIA_VISIBLE_DEVICES" not in _variables(container):
            set_variables(container, {"NVIDIA_VISIBLE_DEVICES": NO_DEVICES})


def _restricted(spec: Manifest, main: Manifest, launch: PodLaunch, settings: Settings) -> None:
    """Kubernetes' restricted Pod Security profile, as far as the operator says nothing else."""
    spec["enableServiceLinks"] = False
    spec.setdefault("automountServiceAccountToken", False)
    context = spec.setdefault("securityContext", {})
    context.setdefault("runAsNonRoot", True)
    context.setdefault("seccompProfile", {"type": "RuntimeDefault"})
    context.setdefault("fsGroupChangePolicy", "OnRootMismatch")
    for container in _containers(spec):
        own = container.setdefault("securityContext", {})
        if not own.get("privileged"):
            own.setdefault("allowPrivilegeEscalation", False)
            own.setdefault("capabilities", {"drop": ["ALL"]})
    mine = main["securityContext"]
    if settings.read_only_root:
        mine.setdefault("readOnlyRootFilesystem", True)
    if launch.profiling:
        # Kubernetes gives none of these to a process that is not root by itself: the profiler's
        # file has to carry them, which `allowPrivilegeEscalation: false` would take from it.
        added = {"drop": ["ALL"], "add": list(settings.profiling_capabilities)}
        mine["capabilities"], mine["allowPrivilegeEscalation"] = added, True


def _containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def _variables(container: Mapping[str, Any]) -> set[str]:
    return {one["name"] for one in container.get("env", [])}
