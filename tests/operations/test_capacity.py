"""What is there, what is free when, who holds what; drains and maintenance."""

from datetime import timedelta

import pytest

from gpudev_client.models import ReservationRequest
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.events import Owner
from gpudev_service.operations import capacity, reservations
from tests.fixtures.world import START, World

ADMIN = Actor("root-admin", admin=True)


async def test_types_show_the_limits_of_whoever_asks(world: World) -> None:
    types = {kind.name: kind for kind in await capacity.gpu_types(world.ctx, ())}
    assert list(types) == ["h100", "t4", "t4-small", "cpu-x86"]
    assert types["t4"].counts == [1, 2, 3, 4, 8]
    assert (types["cpu-x86"].counts, types["cpu-x86"].max_hours) == ([0], 720)
    assert types["h100"].max_hours == 24
    assert types["h100"].simulated


async def test_availability_says_what_is_free_and_when_more_will_be(world: World) -> None:
    await world.reserve("ada", "t4", gpus=3, hours=2)
    await world.reserve("grace", "t4", gpus=8, hours=1)
    [t4] = await capacity.availability(world.ctx, 0.5, (), "t4")
    assert (t4.total, t4.free, t4.queue_length, t4.drained) == (8, 5, 1, 0)
    starts = {found.gpus: found.starts_at for found in t4.earliest}
    assert starts[1] == START
    assert starts[4] == START
    # Both nodes are promised to grace for an hour, after ada's two.
    turnover = 2 * world.ctx.settings.times.turnover_span
    assert starts[8] == START + timedelta(hours=3) + turnover
    with pytest.raises(Refusal, match="no such GPU type"):
        await capacity.availability(world.ctx, 1, (), "tpu")


async def test_a_drained_node_is_not_free_and_its_leases_go_on(world: World) -> None:
    got = await world.reserve("ada", "h100", gpus=2)
    drained = await capacity.drain(world.ctx, "h100-1", "new cooling", ADMIN)
    assert (drained.drained, drained.free, drained.reason) == (True, 0, "new cooling")
    assert [use.reservation for use in drained.held] == [got.id, got.id]
    assert await world.states(got) == [State.PREPARING]
    [h100] = await capacity.availability(world.ctx, 1, (), "h100")
    assert (h100.free, h100.drained) == (0, 6)
    assert all(found.starts_at is None and found.reason for found in h100.earliest)
    with pytest.raises(Refusal, match="drained"):
        await world.reserve("grace", "h100")
    for _ in range(2):  # twice is no error
        back = await capacity.undrain(world.ctx, "h100-1", ADMIN)
        assert (back.drained, back.free, back.reason) == (False, 6, None)
    with pytest.raises(Refusal, match="no such node"):
        await capacity.drain(world.ctx, "h100-9", "", ADMIN)


async def test_maintenance_takes_nothing_new_and_leaves_who_is_there(world: World) -> None:
    first, waiting = await world.reserve("ada"), await world.reserve("grace")
    shown = await capacity.set_maintenance(world.ctx, "t4-small", "back at noon", ADMIN)
    assert shown.maintenance == "back at noon"
    for call in (reservations.submit, reservations.preview):
        asked = ReservationRequest(gpu_type="t4-small", hours=1)
        with pytest.raises(Refusal) as refused:
            await call(world.ctx, Actor("linus"), asked, ())
        assert refused.value.code == "maintenance"
        assert refused.value.accepted == ["h100", "t4", "cpu-x86"]
    world.clock.pass_time(hours=1)
    await world.sweep()
    assert await world.states(first, waiting) == [State.FAILED, State.PREPARING]
    for _ in range(2):
        shown = await capacity.end_maintenance(world.ctx, "t4-small", ADMIN)
        assert shown.maintenance is None
    await world.reserve("linus")
    with pytest.raises(Refusal, match="no such GPU type"):
        await capacity.set_maintenance(world.ctx, "tpu", "", ADMIN)


async def test_the_cluster_names_only_what_a_viewer_may_see(world: World) -> None:
    mine = await world.reserve("ada", "t4", gpus=4)
    theirs = await world.reserve("grace", "t4", gpus=4)
    await world.reserve("grace", "t4", gpus=4)
    world.clock.pass_time(seconds=1)
    queued = await world.reserve("ada", "t4", gpus=4)

    def visible(owner: Owner) -> bool:
        return owner.user == "ada"

    shown = await capacity.cluster(world.ctx, "ada", visible)
    held = {use.reservation for node in shown.nodes for use in node.held}
    assert held == {mine.id, None}
    assert theirs.id not in shown.model_dump_json()
    assert [(q.position, q.reservation, q.user, q.mine) for q in shown.queue] == [
        (1, None, None, False),
        (2, queued.id, "ada", True),
    ]
