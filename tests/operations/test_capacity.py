"""What is there, what is free when, who holds what; drains and maintenance."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from gpudev_client.models import ReservationRequest
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.events import Owner
from gpudev_service.operations import capacity, cursors, overview, reservations
from gpudev_service.settings import NodeSpec
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import NODES, START, World, make_world

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

    shown = await overview.cluster(world.ctx, "ada", visible)
    held = {use.reservation for node in shown.nodes for use in node.held}
    assert held == {mine.id, None}
    assert theirs.id not in shown.model_dump_json()
    assert [(q.position, q.reservation, q.user, q.mine) for q in shown.queue] == [
        (1, None, None, False),
        (2, queued.id, "ada", True),
    ]


async def test_the_cluster_shows_what_is_held_and_what_is_free(world: World) -> None:
    mine = await world.reserve("ada", "t4", gpus=3, hours=2)
    share = await world.reserve("grace", "cpu-x86", hours=5)
    await world.reserve("grace", "t4", gpus=2, hours=1)
    await capacity.drain(world.ctx, "t4-2", "cooling", ADMIN)
    shown = await overview.cluster(world.ctx, "ada", lambda owner: owner.user == "ada")
    nodes = {node.name: node for node in shown.nodes}
    assert list(nodes) == ["h100-1", "t4-1", "t4-2", "small-1", "cpu-1"]
    assert {name: (node.units, node.free) for name, node in nodes.items()} == {
        "h100-1": (8, 8),
        "t4-1": (4, 1),
        "t4-2": (4, 0),
        "small-1": (1, 1),
        "cpu-1": (2, 1),
    }
    assert [name for name, node in nodes.items() if node.shares] == ["cpu-1"]
    assert [name for name, node in nodes.items() if node.drained] == ["t4-2"]
    assert (nodes["t4-2"].reason, nodes["t4-1"].reason) == ("cooling", None)
    assert [(use.unit, use.user, use.mine) for use in nodes["t4-1"].held] == [
        (number, "ada", True) for number in range(3)
    ]
    assert {use.until for use in nodes["t4-1"].held} == {mine.expires_at}
    [other] = nodes["cpu-1"].held
    assert (other.reservation, other.user, other.mine) == (None, None, False)
    assert other.until == share.expires_at
    theirs = await overview.cluster(world.ctx, "grace", lambda _: True)
    mine_ = [(use.user, use.mine) for node in theirs.nodes for use in node.held]
    assert set(mine_) == {("ada", False), ("grace", True)}
    assert (shown.at, shown.fresh, shown.trouble, shown.simulated) == (START, True, None, True)


async def test_each_type_has_a_queue_of_its_own(world: World) -> None:
    for gpu_type in ("t4-small", "h100", "cpu-x86"):
        for user in ("ada", "grace", "linus"):
            await world.reserve(user, gpu_type, gpus=8 if gpu_type == "h100" else None, hours=1)
    shown = await overview.cluster(world.ctx, "ada", lambda _: True)
    assert [(one.gpu_type, one.position, one.user) for one in shown.queue] == [
        ("cpu-x86", 1, "linus"),
        ("h100", 1, "grace"),
        ("h100", 2, "linus"),
        ("t4-small", 1, "grace"),
        ("t4-small", 2, "linus"),
    ]
    promised = [one.promised_start for one in shown.queue]
    turnover = world.ctx.settings.times.turnover_span
    first, second = (START + count * (timedelta(hours=1) + turnover) for count in (1, 2))
    assert promised == [first, first, second, first, second]
    lengths = {
        one.gpu_type: one.queue_length for one in await capacity.availability(world.ctx, 1, ())
    }
    assert lengths == {"h100": 2, "t4": 0, "t4-small": 2, "cpu-x86": 1}


async def test_of_a_long_queue_the_first_and_the_viewers_own_are_shown(world: World) -> None:
    for user in ("ada", "grace", "linus", "grace", "ada", "grace", "ada"):
        await world.reserve(user, hours=1)
        world.clock.pass_time(seconds=1)
    await world.reserve("linus", "h100", gpus=8)
    await world.reserve("linus", "h100", gpus=8)

    async def shown(viewer: str, queue: int) -> list[tuple[str, int, bool]]:
        found = await overview.cluster(world.ctx, viewer, lambda _: False, queue=queue)
        assert found.queue_lengths == {"t4-small": 6, "h100": 1}
        return [(one.gpu_type, one.position, one.mine) for one in found.queue]

    assert await shown("ada", 2) == [
        ("h100", 1, False),
        ("t4-small", 1, False),
        ("t4-small", 2, False),
        ("t4-small", 4, True),
        ("t4-small", 6, True),
    ]
    assert await shown("ada", 1) == [
        ("h100", 1, False),
        ("t4-small", 1, False),
        ("t4-small", 4, True),
    ]
    assert await shown("linus", 1) == [
        ("h100", 1, True),
        ("t4-small", 1, False),
        ("t4-small", 2, True),
    ]
    assert await shown("grace", 1) == [
        ("h100", 1, False),
        ("t4-small", 1, True),
        ("t4-small", 3, True),
    ]
    assert await shown("", 1) == [("h100", 1, False), ("t4-small", 1, False)]
    assert await shown("ada", 0) == []
    # Who looks reads the rows that they are shown, and no others of the queue.
    read: list[str] = []

    def count(row: ReservationRow, _: object) -> None:
        read.append(row.state)

    event.listen(ReservationRow, "load", count)
    try:
        await shown("", 2)
    finally:
        event.remove(ReservationRow, "load", count)
    assert read.count(State.QUEUED) == 3


async def test_who_is_promised_nothing_has_a_place_in_the_queue(world: World) -> None:
    for user in ("ada", "grace", "linus", "ada"):
        await world.reserve(user, hours=1)
        world.clock.pass_time(seconds=1)
    await capacity.drain(world.ctx, "small-1", "cooling", ADMIN)
    found = await overview.cluster(world.ctx, "ada", lambda _: False, queue=1)
    shown = [(one.position, one.mine, one.promised_start) for one in found.queue]
    assert shown == [(1, False, None), (3, True, None)]


async def test_nodes_come_page_by_page(world: World) -> None:
    mine = await world.reserve("ada", "t4", gpus=4)
    seen, first = [], 0
    while True:
        page = await overview.cluster(world.ctx, "ada", lambda _: True, first=first, limit=2)
        seen += [(node.name, {use.reservation for use in node.held}) for node in page.nodes]
        if page.next_cursor is None:
            break
        first = cursors.number(page.next_cursor)
    assert seen == [
        ("h100-1", set()),
        ("t4-1", {mine.id}),
        ("t4-2", set()),
        ("small-1", set()),
        ("cpu-1", set()),
    ]
    assert (await overview.cluster(world.ctx, "", lambda _: True, first=99)).nodes == []


async def test_what_a_drained_node_still_runs_is_neither_free_nor_drained(world: World) -> None:
    await world.reserve("ada", "t4", gpus=3, hours=2)
    await world.reserve("grace", "t4", gpus=2, hours=2)
    await capacity.drain(world.ctx, "t4-1", "cooling", ADMIN)
    every = {one.gpu_type: one for one in await capacity.availability(world.ctx, 1, ())}
    assert list(every) == ["h100", "t4", "t4-small", "cpu-x86"]
    found = {name: (one.total, one.free, one.drained) for name, one in every.items()}
    assert found == {
        "h100": (8, 8, 0),
        "t4": (8, 2, 1),
        "t4-small": (1, 1, 0),
        "cpu-x86": (2, 2, 0),
    }
    await capacity.drain(world.ctx, "t4-2", "cooling", ADMIN)
    [t4] = await capacity.availability(world.ctx, 1, (), "t4")
    assert (t4.total, t4.free, t4.drained) == (8, 0, 3)
    reasons = {one.reason for one in t4.earliest}
    assert reasons == {"the nodes that could hold it are out of service"}


async def test_each_node_is_drained_by_its_own_name(world: World) -> None:
    for spec in world.ctx.fleet.nodes():
        drained = await capacity.drain(world.ctx, spec.name, "cooling", ADMIN)
        assert (drained.name, drained.gpu_type) == (spec.name, spec.gpu_type)
        back = await capacity.undrain(world.ctx, spec.name, ADMIN)
        assert (back.name, back.drained) == (spec.name, False)


async def test_only_types_whose_nodes_are_simulated_are_called_so(
    store: Store, tmp_path: Path
) -> None:
    real = NodeSpec(name="real", gpu_type="t4", gpu_ids=("a", "b", "c", "d"))
    nodes = (*(node for node in NODES if node.gpu_type != "t4"), real)
    world = make_world(store, tmp_path, nodes=nodes)
    types = {kind.name: kind.simulated for kind in await capacity.gpu_types(world.ctx, ())}
    assert types == {"h100": True, "t4": False, "t4-small": True, "cpu-x86": True}
    [t4] = await capacity.availability(world.ctx, 1, (), "t4")
    assert not t4.simulated


async def test_a_type_shows_the_shortest_of_its_own_limits(world: World) -> None:
    policy = world.ctx.settings.policy.model_copy(update={"default_hours": 12})
    world.ctx.settings = world.ctx.settings.model_copy(update={"policy": policy})
    types = {kind.name: kind for kind in await capacity.gpu_types(world.ctx, ())}
    assert {name: (kind.max_hours, kind.default_hours) for name, kind in types.items()} == {
        "h100": (24, 12),
        "t4": (24, 12),
        "t4-small": (24, 12),
        "cpu-x86": (720, 12),
    }
    assert {kind.added_within_minutes for kind in types.values()} == {None}
    assert types["t4"].label == "t4"
