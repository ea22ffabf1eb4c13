"""A whole lease on a real GPU: offered, seen by exactly one person, measured, and clean after."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pynvml
import pytest

from gpudev_client.models import Availability, GpuType, Reservation
from gpudev_client.states import State
from gpudev_service.fleet.nvml import find_gpus, type_names
from tests.e2e.kernel import run_inside
from tests.e2e.people import Person, people
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub
from tests.lab.lab import base

from . import cuda

pytestmark = [pytest.mark.gpu, pytest.mark.hub]

MB = 2**20
#: What the training run takes of the GPU's memory.
SIZE = 2048 * MB
#: Memory that a driver may keep for itself after a program has ended.
SLACK = 64 * MB
#: Seconds until the panel shows what the GPU does: it samples once a minute where nobody looks.
FIGURES = 150.0


@pytest.fixture
def person(hub: RunningHub) -> Iterator[Callable[[str], Person]]:
    with people(lambda name: Person(hub, name)) as make:
        yield make


@pytest.fixture
def memory_used() -> Iterator[Callable[[str], int]]:
    """Bytes in use of the GPU with a UUID, as the driver says."""
    pynvml.nvmlInit()
    try:
        yield lambda name: int(
            pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(name)).used
        )
    finally:
        pynvml.nvmlShutdown()


def _offer() -> tuple[str, list[str], int]:
    """The first GPU type of this machine: its name, its GPUs' UUIDs, the memory of one."""
    found = find_gpus()
    model, gpus = next(iter(found.items()))
    return type_names(found)[model], [name for name, _ in gpus], gpus[0][1]


def _panel(person: Person, lease: Reservation) -> Any:
    answer = httpx.get(
        f"{base(person.hub, lease)}/gpudev/lease",
        headers={"Authorization": f"token {person.token}"},
        trust_env=False,
        timeout=60.0,
    )
    assert answer.is_success, answer.text
    return answer.json()


def test_what_nvml_finds_is_offered(person: Callable[[str], Person]) -> None:
    name, gpus, memory = _offer()
    ada = person("ada")
    kinds = [GpuType.model_validate(one) for one in ada.call("GET", "/gpu-types").json()["items"]]
    kind = next(one for one in kinds if one.name == name)
    assert (kind.gpus_per_node, kind.gpu_memory_gb) == (len(gpus), memory // 2**30)
    offers = [
        Availability.model_validate(one) for one in ada.call("GET", "/availability").json()["items"]
    ]
    offer = next(one for one in offers if one.gpu_type == name)
    assert (offer.total, offer.free, offer.simulated) == (len(gpus), len(gpus), False)


def test_a_lease_without_gpus_sees_none(person: Callable[[str], Person]) -> None:
    ada = person("cleo")
    lease = ada.until_state(ada.reserve(gpu_type="cpu-x86", hours=0.1).id, State.ACTIVE)
    seen = json.loads(run_inside(ada, lease, cuda.SEEN))
    assert seen == {"said": cuda.NO_DEVICE, "gpus": []}
    assert _panel(ada, lease)["gpu"] is None


def test_a_lease_sees_its_gpu_and_leaves_it_clean_to_the_next(
    person: Callable[[str], Person], memory_used: Callable[[str], int]
) -> None:
    name, gpus, memory = _offer()
    ada, grace = person("ada2"), person("grace")
    lease = ada.reserve(gpu_type=name, gpus=1, hours=0.5, disk="thesis", create_disk=True)
    lease = ada.until_state(lease.id, State.ACTIVE)
    (gpu,) = lease.placement[0].gpu_ids
    assert gpu in gpus
    assert not lease.simulated
    assert json.loads(run_inside(ada, lease, cuda.SEEN)) == {"said": 0, "gpus": [gpu]}

    before = memory_used(gpu)
    word, pid = run_inside(ada, lease, cuda.TRAINING.replace("{size}", str(SIZE))).split()
    assert word == "taken"
    training = psutil.Process(int(pid))
    assert memory_used(gpu) - before >= SIZE
    _is_measured(ada, lease, memory)
    _is_in_use(ada, lease)

    # All of the type, so that the next one needs this very GPU.
    waiting = grace.reserve(gpu_type=name, gpus=len(gpus), hours=0.5)
    assert waiting.state is State.QUEUED
    ada.cancel(lease.id)
    ada.until_over(lease.id, State.CANCELLED)
    following = grace.until_state(waiting.id, State.ACTIVE)
    assert not training.is_running(), "the training run outlived its lease"
    assert memory_used(gpu) <= before + SLACK
    seen = json.loads(run_inside(grace, following, cuda.SEEN))
    assert seen == {"said": 0, "gpus": list(following.placement[0].gpu_ids)}
    assert set(seen["gpus"]) == set(gpus)


def _is_measured(ada: Person, lease: Reservation, memory: int) -> None:
    """The panel's figures are the driver's: the card's own name, its memory, and that it works."""

    def working() -> Any:
        figures = _panel(ada, lease)["gpu"]
        (one,) = figures["gpus"] or [None]
        busy = one and (one["used_percent"] or 0) >= 50 and one["memory_used"] >= SIZE
        return figures if busy else None

    figures = until(
        working,
        "the panel shows a GPU that works",
        patience=FIGURES,
        pause=1.0,
        seen=lambda: _panel(ada, lease)["gpu"],
    )
    (one,) = figures["gpus"]
    assert one["name"] in find_gpus()
    assert one["memory_total"] == memory
    assert not figures["simulated"]
    assert figures["unavailable"] is None


def _is_in_use(ada: Person, lease: Reservation) -> None:
    """A GPU that computes is a lease in use, whoever looks."""

    def reason() -> str | None:
        idle = ada.look(lease.id).idle
        said = idle.reasons if idle is not None else []
        return next((one for one in said if one.startswith("The GPUs compute")), None)

    until(
        reason,
        "the service knows that the GPU computes",
        patience=FIGURES,
        pause=1.0,
        seen=lambda: ada.look(lease.id).idle,
    )
    idle = ada.look(lease.id).idle
    assert idle is not None
    assert idle.state == "in_use"
