"""Servers as pods: found, ended, and remembered, without the Hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudev_client.ids import new_id
from gpudev_service.servers import PodServers, ServersAway
from tests.kube.site import Site, site
from tests.kube.things import node, pod

KEY = new_id()
OOM = {"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, node("a"), node("b")) as found:
        yield found


@pytest.fixture
def servers(there: Site) -> PodServers:
    return PodServers(there.cluster)


async def start(there: Site, *ranks: int, phase: str = "Running") -> None:
    for rank in ranks:
        name = f"gpudev-{KEY}-{rank}"
        there.moody.set(pod(name, "ab"[rank], reservation=KEY, rank=rank, phase=phase))
    await there.until(lambda: len(there.cluster.pods_of(KEY)) >= len(ranks))


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
