"""The NVIDIA GPUs of this machine, through NVML.

GPUs of one model form one node of one GPU type, so that a workstation needs no configuration. A
machine with several models shows as one node per model. Without a driver there are no nodes.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from gpudev_service.settings import GpuTypeSpec, NodeSpec, Settings

log = logging.getLogger(__name__)


class NvmlFleet:
    """What NVML finds at start-up, plus the configured nodes of types without GPUs.

    A GPU type that the configuration names alike (`h100` for "NVIDIA H100 80GB HBM3") lends its
    label and limits; the number of GPUs is what was found.
    """

    def __init__(self, settings: Settings) -> None:
        found = find_gpus()
        host = socket.gethostname().split(".")[0] or "localhost"
        types: dict[str, GpuTypeSpec] = {}
        nodes: list[NodeSpec] = []
        for model, gpus in found.items():
            name = type_name(model)
            types[name] = _spec(name, model, gpus, settings.gpu_types.get(name))
            machine = host if len(found) == 1 else f"{host}-{name}"
            nodes.append(
                NodeSpec(name=machine, gpu_type=name, gpu_ids=tuple(uuid for uuid, _ in gpus))
            )
        for node in settings.nodes:
            spec = settings.gpu_types[node.gpu_type]
            if not spec.gpus_per_node:
                types[spec.name] = spec
                nodes.append(node)
        self._types, self._nodes = types, tuple(nodes)

    def nodes(self) -> Sequence[NodeSpec]:
        return self._nodes

    def types(self) -> Mapping[str, GpuTypeSpec]:
        return self._types


def find_gpus() -> dict[str, list[tuple[str, int]]]:
    """GPUs by model: (UUID, memory in bytes) in NVML's order. Empty without a working driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.info("no NVIDIA GPUs: %s", error)
        return {}
    try:
        found: dict[str, list[tuple[str, int]]] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(device).total)
            found.setdefault(_text(pynvml.nvmlDeviceGetName(device)), []).append(
                (_text(pynvml.nvmlDeviceGetUUID(device)), memory)
            )
        return found
    except pynvml.NVMLError as error:
        log.warning("NVML stopped answering, so no GPUs are offered: %s", error)
        return {}
    finally:
        pynvml.nvmlShutdown()


def type_name(model: str) -> str:
    """A GPU type's name for a marketing name: "NVIDIA H100 80GB HBM3" is `h100`."""
    words = re.findall(r"[a-z0-9]+", model.lower())
    telling = [w for w in words if w not in {"nvidia", "tesla", "quadro", "geforce", "graphics"}]
    short = [w for w in telling if re.fullmatch(r"[a-z]+\d+[a-z0-9]*", w)]
    return (short or ["-".join(telling)])[0][:63] or "gpu"


def _spec(
    name: str, model: str, gpus: list[tuple[str, int]], configured: GpuTypeSpec | None
) -> GpuTypeSpec:
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
