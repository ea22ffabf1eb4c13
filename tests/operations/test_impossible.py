"""What is advised where nothing can be had: only what this place can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.models import ReservationRequest
from gpudev_service.actor import Actor
from gpudev_service.disks.base import DiskFailure, NoSnapshots
from gpudev_service.errors import Refusal
from gpudev_service.operations import reservations
from gpudev_service.settings import NodeSpec
from gpudev_service.store.engine import Store
from gpudev_service.store.models import DiskRow, ReservationRow
from tests.fixtures.world import World, make_world

ADA = Actor("ada")
NODES = (
    NodeSpec(name="a1", gpu_type="t4", simulated=True, zone="a"),
    NodeSpec(name="a2", gpu_type="t4", simulated=True, zone="a", labels={"link": "fast"}),
    NodeSpec(name="b1", gpu_type="t4", simulated=True, zone="b", labels={"link": "slow"}),
    NodeSpec(name="h1", gpu_type="h100", simulated=True, zone="b"),
)


@pytest.fixture
async def zones(store: Store, tmp_path: Path) -> AsyncIterator[World]:
    """Two zones, and a disk of ada's in one of them."""
    world = make_world(store, tmp_path, nodes=NODES)
    first = await world.reserve(gpu_type="t4", gpus=1, disk="work", create_disk=True)
    await reservations.cancel(world.ctx, first.id, ADA)
    await world.sweep()

    async def put(session: Any) -> None:
        row = await session.get_one(ReservationRow, first.id)
        (await session.get_one(DiskRow, row.disk_id)).reach = {"zones": ["a"], "hosts": None}

    await world.ctx.store.run(put)
    yield world
    await world.ctx.background.close()
    world.ctx.disks.close()


async def refusals(world: World, **asked: Any) -> list[Refusal]:
    """What asking and reserving are answered."""
    request = ReservationRequest(hours=1, gpus=1, disk="work", **asked)
    found = []
    for call in (
        reservations.preview(world.ctx, ADA, request, ()),
        reservations.submit(world.ctx, ADA, request, ()),
    ):
        with pytest.raises(Refusal) as refused:
            await call
        found.append(refused.value)
    return found


def fails(monkeypatch: pytest.MonkeyPatch, world: World, error: Exception) -> None:
    async def failing() -> None:
        raise error

    monkeypatch.setattr(world.ctx.disks, "require_snapshots", failing)


async def test_no_clone_is_advised_where_the_storage_makes_none(
    zones: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all("Clone the disk" in one.message for one in await refusals(zones, gpu_type="h100"))
    fails(monkeypatch, zones, NoSnapshots("The cluster has no snapshots."))
    for one in await refusals(zones, gpu_type="h100"):
        assert (one.code, one.field) == ("impossible", "disk")
        assert one.accepted == {"gpu_types": ["t4"]}
        assert one.message == (
            "No node that could give you 1 x h100 is where the disk 'work' is (in a). "
            "Take another disk. With this disk you can have t4."
        )


async def test_nor_beside_other_labels(zones: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"gpu_type": "t4", "node_labels": {"link": "slow"}}
    said = (
        "Not enough nodes with link=slow are where the disk 'work' is (in a). {}, or ask for other "
        "labels. "
    )
    for one in await refusals(zones, **slow):
        clone = "Clone the disk and reserve with the clone, which can begin anywhere"
        assert one.message.startswith(said.format(clone))
    fails(monkeypatch, zones, NoSnapshots("The cluster has no snapshots."))
    for one in await refusals(zones, **slow):
        assert one.message.startswith(said.format("Take another disk"))
        assert (one.code, one.field) == ("impossible", "node_labels")
        assert one.accepted == {"link": ["fast"]}


async def test_storage_that_does_not_say_hides_no_refusal(
    zones: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, zones, DiskFailure("It is away."))
    assert all("Clone the disk" in one.message for one in await refusals(zones, gpu_type="h100"))
