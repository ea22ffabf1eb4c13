"""Servers as pods: found, ended, and remembered, without the Hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_client.ids import new_id
from gpudev_service.loops import reconcile
from gpudev_service.servers import PodServers, ServersAway
from gpudev_service.store.engine import Store
from tests.fixtures.world import ManualClock, make_world
from tests.kube.site import Site, site
from tests.kube.things import node, pod

KEY = new_id()
PATIENCE = timedelta(seconds=60)
OOM = {"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, node("a"), node("b")) as found:
        yield found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def servers(there: Site, clock: ManualClock) -> PodServers:
    return PodServers(there.cluster, PATIENCE, clock)


async def start(there: Site, *ranks: int, phase: str = "Running", key: str = KEY) -> None:
    for rank in ranks:
        name = f"gpudev-{key}-{rank}"
        status = {"conditions": _conditions("True")}
        made = pod(name, "ab"[rank], reservation=key, rank=rank, phase=phase, status=status)
        there.moody.set(made)
    await there.until(lambda: len(there.cluster.pods_of(key)) >= len(ranks))


def _conditions(ready: str) -> list[dict[str, str]]:
    return [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": "True"}]


async def silence(there: Site, name: str = "a") -> None:
    """The node says nothing any more, and the cluster notices."""
    there.moody.set(node(name, ready="Unknown"))
    await _pods_are(there, name, "False")


async def comes_back(there: Site, name: str = "a") -> None:
    there.moody.set(node(name))
    await _pods_are(there, name, "True")


async def _pods_are(there: Site, name: str, ready: str) -> None:
    for thing in list(there.moody.things["pods"].values()):
        if thing["spec"]["nodeName"] == name:
            status = {**thing["status"], "conditions": _conditions(ready)}
            there.moody.set({**thing, "status": status})
            there.moody.stuck.add(thing["metadata"]["name"])
    await there.until(
        lambda: (
            (there.cluster.nodes[name].silent_since is None) == (ready == "True")
            and all(one.unheard == (ready == "False") for one in there.cluster.pods_on(name))
        )
    )


def handle(rank: int = 0) -> dict[str, str]:
    name = f"gpudev-{KEY}-{rank}"
    return {"kind": "pod", "namespace": "lab", "name": name, "uid": f"uid-{name}"}


async def test_all_pods_of_a_reservation_are_one_server(there: Site, servers: PodServers) -> None:
    assert not await servers.alive(KEY, None)
    await start(there, 0, 1)
    other = pod("other", "a", namespace="lab", gpu="1")
    there.moody.set(other)
    assert await servers.alive(KEY, None)
    assert await servers.running() == {KEY}
    assert not await servers.main_gone(KEY, handle())
    assert await servers.main_gone(KEY, {**handle(), "uid": "another"})
    assert not await servers.main_gone(KEY, None)
    assert not await servers.is_idle(KEY, handle())
    assert await servers.tell(KEY, "hello") == 0


async def test_the_end_of_the_last_pod_is_told(there: Site, servers: PodServers) -> None:
    await start(there, 0, 1)
    told = asyncio.create_task(servers.told_gone(KEY))
    await asyncio.sleep(0)
    there.moody.drop(f"gpudev-{KEY}-0", "pods")
    await there.until(lambda: len(there.cluster.pods_of(KEY)) == 1)
    assert not told.done()
    there.moody.drop(f"gpudev-{KEY}-1", "pods")
    await told
    assert not await servers.alive(KEY, None)


async def test_a_view_that_is_behind_tells_of_no_end(there: Site, servers: PodServers) -> None:
    """The watch has not told of the pod; the API server knows it."""
    name = f"gpudev-{KEY}-0"
    made = pod(name, "a", reservation=KEY, rank=0)
    there.moody.things["pods"][name] = made
    told = asyncio.create_task(servers.told_gone(KEY))
    while not any("labelSelector" in query for _, query in there.moody.requests):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert not there.cluster.pods_of(KEY)
    there.moody.set(made)
    await there.until(lambda: len(there.cluster.pods_of(KEY)) == 1)
    assert not told.done()
    there.moody.drop(name, "pods")
    await told


async def test_stopping_ends_all_pods_politely_each_by_its_own_uid(
    there: Site, servers: PodServers
) -> None:
    await start(there, 0, 1)
    assert await servers.stop(KEY, handle(), grace=2.0)
    assert not await servers.alive(KEY, None)
    assert [options["gracePeriodSeconds"] for _, options in there.moody.deleted] == [2, 2]
    assert await servers.stop(KEY, None, grace=2.0), "what is gone is stopped"


async def test_a_pod_that_a_living_kubelet_does_not_end_is_not_called_gone(
    there: Site, servers: PodServers
) -> None:
    await start(there, 0)
    there.moody.stuck.add(f"gpudev-{KEY}-0")
    assert not await servers.stop(KEY, handle(), grace=0.5)
    assert await servers.alive(KEY, None)
    assert all(options["gracePeriodSeconds"] for _, options in there.moody.deleted)


@pytest.mark.parametrize("lost", ["gone", "silent"])
async def test_a_pod_whose_node_is_lost_is_taken_away_by_force(
    there: Site, servers: PodServers, lost: str
) -> None:
    await start(there, 0)
    there.moody.stuck.add(f"gpudev-{KEY}-0")
    if lost == "gone":
        there.moody.drop("a")
        await there.until(lambda: "a" not in there.cluster.nodes)
    else:
        there.moody.set(node("a", ready="Unknown"))
        await there.until(lambda: not there.cluster.nodes["a"].ready)
    assert await servers.stop(KEY, handle(), grace=0.5)
    assert there.moody.deleted[-1][1]["gracePeriodSeconds"] == 0


async def test_a_pod_that_has_ended_serves_nobody_and_is_removed(
    there: Site, servers: PodServers
) -> None:
    await start(there, 0, phase="Succeeded")
    assert await servers.running() == set()
    assert await servers.main_gone(KEY, handle())
    assert await servers.alive(KEY, None)
    assert await servers.stop(KEY, None, grace=0.5)
    assert not await servers.alive(KEY, None)


async def test_why_a_server_ended_is_known_after_its_pod_is_gone(
    there: Site, servers: PodServers
) -> None:
    name = f"gpudev-{KEY}-0"
    await start(there, 0)
    assert await servers.why_gone(KEY) is None
    there.moody.set(pod(name, "a", reservation=KEY, phase="Failed", status=OOM))
    await there.until(lambda: there.cluster.pods_of(KEY)[0].over)
    assert "more memory" in (await servers.why_gone(KEY) or "")
    there.moody.drop(name, "pods")
    await there.until(lambda: not there.cluster.pods_of(KEY))
    assert "more memory" in (await servers.why_gone(KEY) or "")
    await start(there, 0)
    assert await servers.why_gone(KEY) is None, "another one runs"


@pytest.mark.parametrize(
    ("with_node", "words"), [(False, "was deleted, not by gpudev"), (True, "has left the cluster")]
)
async def test_a_pod_that_vanishes_is_told_with_or_without_its_node(
    there: Site, servers: PodServers, with_node: bool, words: str
) -> None:
    await start(there, 0)
    if with_node:
        there.moody.drop("a")
        await there.until(lambda: "a" not in there.cluster.nodes)
    there.moody.drop(f"gpudev-{KEY}-0", "pods")
    await there.until(lambda: not there.cluster.pods_of(KEY))
    assert words in (await servers.why_gone(KEY) or "")


async def test_from_a_view_that_is_not_current_nothing_is_concluded(
    there: Site, servers: PodServers
) -> None:
    await start(there, 0)
    there.freeze()
    with pytest.raises(ServersAway):
        await servers.running()
    with pytest.raises(ServersAway):
        await servers.main_gone(KEY, handle())
    assert await servers.alive(KEY, None), "asked directly"
    there.moody.become("ill")
    with pytest.raises(ServersAway):
        await servers.alive(KEY, None)
    assert not await servers.stop(KEY, None, grace=0.5)


async def test_a_node_that_comes_back_in_time_costs_nothing(
    there: Site, servers: PodServers, clock: ManualClock
) -> None:
    await start(there, 0)
    await silence(there)
    clock.pass_time(seconds=59)
    await servers.give_up()
    assert await servers.running() == {KEY}
    assert not await servers.main_gone(KEY, handle())
    await comes_back(there)
    clock.pass_time(hours=1)
    await servers.give_up()
    assert not there.moody.deleted
    assert await servers.why_gone(KEY) is None


async def test_a_server_on_a_node_that_stays_silent_is_given_up_for_good(
    there: Site, servers: PodServers, clock: ManualClock
) -> None:
    await start(there, 0, 1)
    await silence(there)
    clock.pass_time(seconds=60)
    await servers.give_up()
    await there.until(lambda: any(one.leaving for one in there.cluster.pods_of(KEY)))
    name = f"gpudev-{KEY}-0"
    expected = {"preconditions": {"uid": f"uid-{name}"}}
    kind = {"apiVersion": "v1", "kind": "DeleteOptions"}
    assert there.moody.deleted == [(name, {**kind, **expected})], "the other node's pod stays"
    assert await servers.main_gone(KEY, handle())
    assert "does not answer any more" in (await servers.why_gone(KEY) or "")
    assert await servers.running() == {KEY}, "a worker elsewhere runs on"
    assert await servers.alive(KEY, None), "its end is not verified"
    await servers.give_up()
    assert len(there.moody.deleted) == 1, "asked for once"


async def test_a_container_that_did_not_run_when_its_node_was_lost_is_taken_away(
    there: Site, servers: PodServers, clock: ManualClock
) -> None:
    """Of its pod nobody could tell by itself that it is given up."""
    await start(there, 0)
    name = f"gpudev-{KEY}-0"
    there.moody.stuck.add(name)
    conditions = [{"type": kind, "status": "False"} for kind in ("Ready", "ContainersReady")]
    between = pod(name, "a", reservation=KEY, status={"conditions": conditions})
    there.moody.set(between)
    there.moody.set(node("a", ready="Unknown"))
    await there.until(lambda: there.cluster.nodes["a"].silent_since is not None)
    clock.pass_time(seconds=60)
    await servers.give_up()
    await there.until(lambda: not there.cluster.pods_of(KEY))


async def test_where_all_nodes_are_silent_the_api_server_is_cut_off(
    there: Site, servers: PodServers, clock: ManualClock
) -> None:
    await start(there, 0, 1)
    await silence(there, "a")
    await silence(there, "b")
    clock.pass_time(hours=1)
    await servers.give_up()
    assert not there.moody.deleted
    assert await servers.running() == {KEY}


async def test_a_lost_node_is_a_crash_with_grace_time_and_reason(
    there: Site, servers: PodServers, clock: ManualClock, store: Store, tmp_path: Path
) -> None:
    world = make_world(store, tmp_path)
    world.ctx.servers, world.clock = servers, clock
    world.ctx.clock = clock
    lease = await world.running(await world.reserve())
    await start(there, 0, key=lease.id)
    await reconcile.run(world.ctx)
    await silence(there)
    clock.pass_time(seconds=59)
    await reconcile.run(world.ctx)
    assert (await world.look(lease)).server_lost_at is None
    clock.pass_time(seconds=1)
    await reconcile.run(world.ctx)
    await there.until(lambda: there.cluster.pods_of(lease.id)[0].given_up)
    await reconcile.run(world.ctx)
    after = await world.look(lease)
    assert after.server_lost_at == clock.now()
    assert after.restart_until is not None
    said = (await world.reasons(lease))[-1]
    assert said.startswith("The node on which the server ran does not answer any more.")
    assert "kept for 10 min" in said
    assert "still runs" not in said
    await comes_back(there)
    await reconcile.run(world.ctx)
    assert (await world.look(lease)).server_lost_at == after.server_lost_at
