"""GPUs of this machine: their names, and what happens without a driver or with a bad one."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gpudev_client import limits
from gpudev_service.fleet import NvmlFleet
from gpudev_service.fleet.nvml import describe, find_gpus, type_name, type_names
from gpudev_service.settings import GpuTypeSpec, NodeSpec, Settings

GB = 2**30


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce GTX 1080 Ti", "gtx-1080-ti"),
        ("Quadro RTX 8000", "rtx-8000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada-generation"),
        ("NVIDIA Graphics", "gpu"),
        ("", "gpu"),
        ("???", "gpu"),
        ("x" * 62 + " y", "x" * 62),  # no "-" at the end where it is cut
    ],
)
def test_type_names(model: str, name: str) -> None:
    assert type_name(model) == name
    assert re.fullmatch(limits.TYPE_NAME, name)


def test_two_models_never_share_a_name() -> None:
    models = ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "Tesla T4", "T4", "tesla t4"]
    names = type_names(models)
    assert names == {
        "NVIDIA H100 PCIe": "h100-pcie",
        "NVIDIA H100 NVL": "h100-nvl",
        "Tesla T4": "tesla-t4",
        "T4": "t4",
        "tesla t4": "tesla-t4-2",
    }


def cpu_settings(*nodes: str) -> Settings:
    return Settings(
        gpu_types={
            "cpu": GpuTypeSpec(
                name="cpu", gpus_per_node=0, shares_per_node=4, cpus=8, memory_gb=32
            ),
            "h100": GpuTypeSpec(
                name="h100", label="Ours", gpus_per_node=8, cpus=7, memory_gb=9, max_hours=3
            ),
        },
        nodes=tuple(NodeSpec(name=name, gpu_type="cpu") for name in nodes),
    )


def test_a_configured_type_lends_its_words_and_not_its_number() -> None:
    found = {"NVIDIA H100 PCIe": [("GPU-a", 80 * GB), ("GPU-b", 80 * GB)]}
    types, nodes = describe(found, type_names(found), cpu_settings())
    spec = types["h100"]
    assert (spec.label, spec.max_hours, spec.gpus_per_node) == ("Ours", 3, 2)
    assert [node.gpu_ids for node in nodes] == [("GPU-a", "GPU-b")]


def test_two_models_are_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "My_Box.lab.example")
    found = {"NVIDIA L4": [("GPU-a", 24 * GB)], "Tesla T4": [("GPU-b", 16 * GB)]}
    types, nodes = describe(found, type_names(found), cpu_settings())
    assert [(node.name, node.gpu_type) for node in nodes] == [
        ("My-Box-l4", "l4"),
        ("My-Box-t4", "t4"),
    ]
    assert types["l4"].gpu_memory_gb == 24


def test_a_configured_node_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    found = {"NVIDIA L4": [("GPU-a", 24 * GB)]}
    _, nodes = describe(found, type_names(found), cpu_settings("box"))
    assert [node.name for node in nodes] == ["box-l4"]


# --- NVML itself: no GPU here, so a module that misbehaves stands for it ------------------------


class FakeNvml(ModuleType):
    """Two GPUs; `broken` names the calls that fail."""

    class NVMLError(Exception):
        pass

    def __init__(self, *broken: str) -> None:
        super().__init__("pynvml")
        self.broken = broken
        self.ended = 0

    def _may(self, call: str) -> None:
        if call in self.broken:
            raise self.NVMLError(call)

    def nvmlInit(self) -> None:  # noqa: N802
        self._may("init")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.ended += 1
        self._may("shutdown")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._may("count")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._may(f"handle {index}")
        return index

    def nvmlDeviceGetMemoryInfo(self, _device: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=80 * GB)

    def nvmlDeviceGetName(self, _device: int) -> bytes:  # noqa: N802
        return b"NVIDIA H100 PCIe"

    def nvmlDeviceGetUUID(self, device: int) -> str:  # noqa: N802
        return f"GPU-{device}"


@pytest.mark.parametrize(
    ("broken", "uuids"),
    [
        ((), ["GPU-0", "GPU-1"]),
        (("init",), None),
        (("count",), None),
        (("shutdown",), ["GPU-0", "GPU-1"]),
        (("handle 0",), ["GPU-1"]),
        (("handle 0", "handle 1"), None),
    ],
)
def test_what_nvml_says_and_does_not_say(
    monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...], uuids: list[str] | None
) -> None:
    fake = FakeNvml(*broken)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    found = find_gpus()
    if uuids is None:
        assert found == {}
    else:
        assert [uuid for uuid, _ in found["NVIDIA H100 PCIe"]] == uuids
    assert fake.ended == (0 if "init" in broken else 1)


def test_a_fleet_of_what_was_found_and_the_shared_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    fleet = NvmlFleet(cpu_settings("cpu-1"))
    assert [(n.name, n.gpu_type, n.simulated) for n in fleet.nodes()] == [
        ("box", "h100", False),
        ("cpu-1", "cpu", False),
    ]
    assert set(fleet.types()) == {"h100", "cpu"}


def test_without_a_driver_only_shared_nodes_are_offered() -> None:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        fleet = NvmlFleet(cpu_settings("cpu-1"))
        assert [node.name for node in fleet.nodes()] == ["cpu-1"]
        assert set(fleet.types()) == {"cpu"}
    else:
        pytest.skip("this machine has a driver")
