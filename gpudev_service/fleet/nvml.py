"""The NVIDIA GPUs of this machine, through NVML.

GPUs of one model form one node of one GPU type, so that a workstation needs no configuration. A
machine with several models shows as one node per model. Without a driver there are no nodes.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpudev_service.settings import GpuTypeSpec, NodeSpec, Settings

from .base import Unchanging

log = logging.getLogger(__name__)

#: (UUID, memory in bytes)
Gpu = tuple[str, int]

#: Longest name of a GPU type.
_NAME_MAX = 63


class NvmlFleet(Unchanging):
    """What NVML finds at start-up, plus the configured nodes of types without GPUs.

    A GPU type that the configuration names alike (`h100` for "NVIDIA H100 80GB HBM3") lends its
    label and limits; the number of GPUs is what was found.
    """

    def __init__(self, settings: Settings) -> None:
        found = find_gpus()
        names = type_names(found)
        self._types, gpu_nodes = describe(found, names, settings)
        shared = [n for n in settings.nodes if not settings.gpu_types[n.gpu_type].gpus_per_node]
        self._types |= {n.gpu_type: settings.gpu_types[n.gpu_type] for n in shared}
        self._nodes = (*gpu_nodes, *shared)

    def nodes(self) -> Sequence[NodeSpec]:
        return self._nodes

    def types(self) -> Mapping[str, GpuTypeSpec]:
        return self._types


def find_gpus() -> dict[str, list[Gpu]]:
    """GPUs by model in NVML's order. Empty without a working driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.info("no NVIDIA GPUs: %s", error)
        return {}
    try:
        return _read(pynvml)
    except pynvml.NVMLError as error:
        log.warning("NVML stopped answering, so no GPUs are offered: %s", error)
        return {}
    finally:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.warning("NVML could not be ended: %s", error)


def _read(nvml: Any) -> dict[str, list[Gpu]]:
    """What NVML says of each device; one that does not answer is left out, the others stay."""
    found: dict[str, list[Gpu]] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            gpu = (
                _text(nvml.nvmlDeviceGetUUID(device)),
                int(nvml.nvmlDeviceGetMemoryInfo(device).total),
            )
            model = _text(nvml.nvmlDeviceGetName(device))
        except nvml.NVMLError as error:
            log.warning("GPU %d is not offered, NVML says: %s", index, error)
            continue
        found.setdefault(model, []).append(gpu)
    return found


def type_name(model: str) -> str:
    """A GPU type's name for a marketing name: "NVIDIA H100 80GB HBM3" is `h100`."""
    words = re.findall(r"[a-z0-9]+", model.lower())
    telling = [w for w in words if w not in {"nvidia", "tesla", "quadro", "geforce", "graphics"}]
    short = [w for w in telling if re.fullmatch(r"[a-z]+\d+[a-z0-9]*", w)]
    return _cut((short or ["-".join(telling)])[0]) or "gpu"


def type_names(models: Iterable[str]) -> dict[str, str]:
    """A name for each model, each another one: where two models have the same short name, as
    "H100 PCIe" and "H100 NVL", all their words are used, then a number."""
    names: dict[str, str] = {}
    models = list(models)
    short = [type_name(model) for model in models]
    for model, name in zip(models, short, strict=True):
        if short.count(name) > 1:
            words = re.findall(r"[a-z0-9]+", model.lower())
            name = _cut("-".join(w for w in words if w != "nvidia")) or "gpu"  # noqa: PLW2901
        number, unique = 2, name
        while unique in names.values():
            unique, number = f"{name[: _NAME_MAX - 4]}-{number}", number + 1
        names[model] = unique
    return names


def _cut(name: str) -> str:
    return name[:_NAME_MAX].strip("-")


def describe(
    found: Mapping[str, list[Gpu]], names: Mapping[str, str], settings: Settings
) -> tuple[dict[str, GpuTypeSpec], list[NodeSpec]]:
    """Types and nodes of the GPUs. A node is called like the machine, with the type where there
    are several or where the configuration has another node of that name."""
    host = _host()
    taken = {node.name for node in settings.nodes}
    types: dict[str, GpuTypeSpec] = {}
    nodes: list[NodeSpec] = []
    for model, gpus in found.items():
        name = names[model]
        types[name] = _spec(name, model, gpus, settings.gpu_types.get(name))
        alone = len(found) == 1 and host not in taken
        ids = tuple(uuid for uuid, _ in gpus)
        nodes.append(NodeSpec(name=host if alone else f"{host}-{name}", gpu_type=name, gpu_ids=ids))
    return types, nodes


def _host() -> str:
    """The machine's name, as a node may be called."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname().split(".")[0]).strip("-.") or "local"


def _spec(name: str, model: str, gpus: list[Gpu], configured: GpuTypeSpec | None) -> GpuTypeSpec:
    found = {"gpus_per_node": len(gpus), "counts": (), "shares_per_node": 1, "max_nodes": 1}
    if configured:
        return configured.model_copy(update=found)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return GpuTypeSpec(
        name=name,
        label=model,
        cpus=os.cpu_count() or 1,
        memory_gb=max(1, memory // 2**30),
        gpu_memory_gb=min(size for _, size in gpus) // 2**30,
        gpus_per_node=len(gpus),
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
