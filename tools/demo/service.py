"""The demo's `gpudev_config.py`: this machine's GPUs, or simulated ones where it has none."""

from __future__ import annotations

from gpudev_service.fleet.nvml import find_gpus
from tools.demo.place import present

place = present()

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - the service gives it

CPU_TYPE = {
    "label": "CPU only",
    "gpus_per_node": 0,
    "shares_per_node": 4,
    "cpus": 16,
    "memory_gb": 64,
}
CPU_NODE = {"name": "cpu-1", "gpu_type": "cpu-x86"}

SIMULATED_TYPES = {
    "h100": {
        "label": "NVIDIA H100",
        "gpus_per_node": 8,
        "counts": [1, 2, 4, 8],
        "cpus": 192,
        "memory_gb": 2048,
        "gpu_memory_gb": 80,
    },
    "t4": {
        "label": "NVIDIA T4",
        "gpus_per_node": 4,
        "max_nodes": 2,
        "cpus": 48,
        "memory_gb": 192,
        "gpu_memory_gb": 16,
    },
    "t4-small": {
        "label": "NVIDIA T4, small",
        "gpus_per_node": 1,
        "cpus": 8,
        "memory_gb": 32,
        "gpu_memory_gb": 16,
    },
}
SIMULATED_NODES = [
    {"name": "h100-1", "gpu_type": "h100"},
    {"name": "t4-1", "gpu_type": "t4"},
    {"name": "t4-2", "gpu_type": "t4"},
    {"name": "t4-small-1", "gpu_type": "t4-small"},
]

real = bool(find_gpus())
c.GpuDev.data_dir = str(place.directory / "service")
c.GpuDev.public_url = place.url
c.GpuDev.fleet = "nvml" if real else "static"
c.GpuDev.gpu_types = {**({} if real else SIMULATED_TYPES), "cpu-x86": CPU_TYPE}
c.GpuDev.nodes = [
    *([] if real else [{**node, "simulated": True} for node in SIMULATED_NODES]),
    {**CPU_NODE, "simulated": not real},
]
c.GpuDevWeb.log_format = "text"
