"""A disk that can be used in one zone only: it steers where its reservation goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gpudev_client.models import ReservationRequest
from gpudev_service.actor import Actor
from gpudev_service.disks.base import DiskNotFound
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.disks.reach import Reach
from gpudev_service.errors import Refusal
from gpudev_service.operations import disks, places, reservations
from gpudev_service.settings import NodeSpec
from gpudev_service.store.engine import Store
from gpudev_service.store.models import DiskRow
from tests.fixtures.world import World, living

ADA = Actor("ada")
NODES = (
    NodeSpec(name="a1", gpu_type="t4", simulated=True, zone="a"),
    NodeSpec(name="b1", gpu_type="t4", simulated=True, zone="b", host="machine-7"),
    NodeSpec(name="h1", gpu_type="h100", simulated=True, zone="b"),
)


@pytest.fixture
async def zones(store: Store, tmp_path: Path) -> AsyncIterator[World]:
    async with living(store, tmp_path, nodes=NODES) as made:
        yield made


async def put(world: World, reach: dict[str, Any] | None) -> None:
    """A free disk of ada's, with its bytes where `reach` says."""
    first = await world.reserve(gpu_type="t4", gpus=1, disk="work", create_disk=True)
    await reservations.cancel(world.ctx, first.id, ADA)
    await world.sweep()
    async with world.ctx.store.reading() as session:
        key = (await disks.require(session, "ada", "work")).id

    async def work(session: Any) -> None:
        (await session.get_one(DiskRow, key)).reach = reach

    await world.ctx.store.run(work)


@pytest.mark.parametrize(
    ("reach", "node"),
    [
        (None, "a1"),
        ({"zones": ["b"], "hosts": None}, "b1"),
        ({"zones": ["b", "c"], "hosts": ["machine-7"]}, "b1"),
    ],
)
async def test_a_reservation_goes_where_its_disk_is(
    zones: World, reach: dict[str, Any] | None, node: str
) -> None:
    await put(zones, reach)
    request = ReservationRequest(gpu_type="t4", hours=1, gpus=1, disk="work")
    asked = await reservations.preview(zones.ctx, ADA, request, ())
    got = await zones.reserve(gpu_type="t4", gpus=1, disk="work")
    assert asked.nodes == [node]
    assert [place.node for place in got.placement] == [node]


async def test_where_a_disk_is_is_asked_of_its_storage_and_written_down_once(
    zones: World, tmp_path: Path
) -> None:
    """A volume is made where it is used first."""

    class Zonal(DirectoryDisks):
        known: Reach | None = None

        async def reach(self, disk_id: str) -> Reach | None:
            if disk_id != key:
                raise DiskNotFound(disk_id)
            return self.known

    await put(zones, None)
    async with zones.ctx.store.reading() as session:
        key = (await disks.require(session, "ada", "work")).id
    zones.ctx.disks = storage = Zonal(tmp_path / "disks")

    async def located() -> dict[str, Any] | None:
        await places.locate(zones.ctx, key)
        async with zones.ctx.store.reading() as session:
            return (await session.get_one(DiskRow, key)).reach

    assert await located() is None
    storage.known = Reach(zones=("b",))
    assert await located() == {"zones": ["b"], "hosts": None}
    async with zones.ctx.store.transaction() as writing:  # it would have to wait for this one
        await writing.execute(select(DiskRow.id))
        assert await located() == {"zones": ["b"], "hosts": None}
    storage.known = None
    assert await located() is None
    await places.locate(zones.ctx, "no-such-disk")


async def test_it_waits_for_a_node_where_its_disk_is(zones: World) -> None:
    await put(zones, {"zones": ["b"], "hosts": None})
    others = [await zones.reserve("bob", gpu_type="t4", gpus=4, hours=2) for _ in range(2)]
    waits = await zones.reserve(gpu_type="t4", gpus=1, disk="work")
    assert waits.starts_at is None
    [first] = [o for o in others if o.placement[0].node == "a1"]
    await reservations.cancel(zones.ctx, first.id, Actor("bob"))
    await zones.sweep()
    assert (await zones.look(waits)).state == "queued"
    [second] = [o for o in others if o.placement[0].node == "b1"]
    await reservations.cancel(zones.ctx, second.id, Actor("bob"))
    await zones.sweep()
    assert [p.node for p in (await zones.look(waits)).placement] == ["b1"]


async def test_a_disk_that_is_elsewhere_is_offered_as_a_clone(zones: World) -> None:
    await put(zones, {"zones": ["a"], "hosts": None})
    request = ReservationRequest(gpu_type="h100", hours=1, gpus=1, disk="work")
    for call in (
        reservations.preview(zones.ctx, ADA, request, ()),
        reservations.submit(zones.ctx, ADA, request, ()),
    ):
        with pytest.raises(Refusal) as refused:
            await call
        assert refused.value.code == "impossible"
        assert refused.value.field == "disk"
        assert refused.value.accepted == {"clone": "work", "gpu_types": ["t4"]}
        assert "(in a)" in refused.value.message
        assert "Clone" in refused.value.message


async def test_disks_in_one_place_are_on_the_same_nodes(zones: World) -> None:
    """Asked of one type, or of all that wait."""
    specs = zones.ctx.fleet.nodes()
    await put(zones, {"zones": ["b"], "hosts": None})
    await zones.reserve("bob", gpu_type="t4", gpus=4, hours=2)
    await zones.reserve("bob", gpu_type="t4", gpus=4, hours=2)
    mine = await zones.reserve(gpu_type="t4", gpus=1, disk="work")
    bobs = await zones.reserve("bob", gpu_type="t4", gpus=1, disk="his", create_disk=True)

    async def same_place(session: Any) -> None:
        (await disks.require(session, "bob", "his")).reach = {"zones": ["b"], "hosts": None}

    await zones.ctx.store.run(same_place)
    there = frozenset({"b1", "h1"})
    async with zones.ctx.store.reading() as session:
        everybody = await places.areas(session, specs, None)
        assert everybody == {mine.id: there, bobs.id: there}
        assert await places.areas(session, specs, {"h100"}) == {}
