"""A Hub on this machine's GPUs, with times that suit leases of a minute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures.hub import RunningHub

#: Looks at idleness, but never so soon that it would end a lease here.
_SERVICE = """
c.GpuDev.fleet = "nvml"
c.GpuDev.gpu_types = {"cpu-x86": {
    "gpus_per_node": 0, "shares_per_node": 4, "cpus": 16, "memory_gb": 64,
}}
c.GpuDev.nodes = [{"name": "cpu-1", "gpu_type": "cpu-x86"}]
c.GpuDev.policy = {"min_hours": 0.0005, "default": {
    "max_hours": 24, "max_extension_hours": 24,
    "idle": {"action": "warn", "after_minutes": 30},
}}
c.GpuDev.times = {"turnover": 10, "reconcile": 2, "crash_grace": 60, "warnings": []}
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    hub = RunningHub(service_config=_SERVICE)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()
