"""Nodes of a cluster as a fleet: what changes is known at once, and what is asked is the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpudev_service.fleet import FleetAway
from gpudev_service.settings import GpuTypeSpec, KubernetesType
from tests.kube.site import H100, site
from tests.kube.things import node, pod

CPU = GpuTypeSpec(name="cpu", shares_per_node=2, kubernetes=KubernetesType(resource=""))


async def test_nodes_come_go_and_change_and_each_change_names_its_type(tmp_path: Path) -> None:
    async with site(tmp_path, node("a"), node("b"), types=(H100, CPU)) as there:
        fleet, moody = there.fleet, there.moody
        with fleet.changes() as first:
            assert first == {"h100", "cpu"}, "after a start everything is planned"
        assert [spec.name for spec in fleet.nodes()] == ["a", "b"]
        assert fleet.types()["h100"].gpus_per_node == 8
        moody.set(node("c", gpus=0))
        await there.until(lambda: len(fleet.nodes()) == 3)
        with fleet.changes() as joined:
            assert joined == {"cpu"}
        moody.set(node("a", cordoned=True))
        await there.until(lambda: not there.node("a").ready)
        moody.drop("b")
        await there.until(lambda: len(fleet.nodes()) == 2)
        with fleet.changes() as left:
            assert left == {"h100"}
        with fleet.changes() as nothing:
            assert nothing == set()


async def test_pods_of_others_take_units_and_give_them_back(tmp_path: Path) -> None:
    async with site(tmp_path, node("a")) as there:
        there.moody.set(pod("train", "a", gpu="3"))
        await there.until(lambda: there.node("a").units == 5)
        there.moody.drop("train", "pods")
        await there.until(lambda: there.node("a").units == 8)


async def test_what_is_of_no_consequence_is_told_to_nobody(tmp_path: Path) -> None:
    async with site(tmp_path, node("a")) as there:
        with there.fleet.changes():
            pass
        there.told.clear()
        there.moody.set(pod("web", "a", cpu="1"))
        await there.until(lambda: there.node("a").unit_cpus != 8)
        there.moody.set(node("elsewhere", gpus=0))
        await there.until(lambda: "elsewhere" in there.cluster.nodes)
        assert there.told == []
        with there.fleet.changes() as changed:
            assert changed == set()


async def test_a_pod_that_takes_nothing_leaves_the_nodes_as_they_are(tmp_path: Path) -> None:
    async with site(tmp_path, node("a"), node("b")) as there:
        nodes = there.fleet.nodes()
        there.moody.set(pod("idle", "a", cpu="0"))
        await there.until(lambda: bool(list(there.cluster.pods_on("a"))))
        assert there.fleet.nodes() is nodes


async def test_a_type_is_as_large_as_its_largest_node_now(tmp_path: Path) -> None:
    async with site(tmp_path, node("a", gpus=4), node("b", gpus=2)) as there:
        size = there.fleet.types()["h100"].gpus_per_node
        there.moody.set(node("b", gpus=8))
        await there.until(lambda: there.node("b").units == 8)
        assert (size, there.fleet.types()["h100"].gpus_per_node) == (4, 8)
        there.moody.drop("b")
        await there.until(lambda: len(there.fleet.nodes()) == 1)
        assert there.fleet.types()["h100"].gpus_per_node == 4


async def test_changes_whose_planning_fails_are_named_again(tmp_path: Path) -> None:
    async with site(tmp_path, node("a")) as there:
        with pytest.raises(ZeroDivisionError), there.fleet.changes():
            raise ZeroDivisionError
        with there.fleet.changes() as again:
            assert again == {"h100"}


async def test_a_view_that_is_not_current_says_so_and_names_everything_afterwards(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, node("a"), types=(H100, CPU)) as there:
        with there.fleet.changes():
            pass
        there.freeze()
        view = there.fleet.view()
        assert not view.fresh
        assert "last seen 6 s ago" in (view.trouble or "")
        with there.fleet.changes() as changed:
            assert changed == set()
        there.moody.become("well")
        await there.until(lambda: there.fleet.view().fresh)
        with there.fleet.changes() as changed:
            assert changed == {"h100", "cpu"}


async def test_before_a_start_the_node_itself_is_asked_and_the_view_learns(tmp_path: Path) -> None:
    async with site(tmp_path, node("a"), node("b"), node("c")) as there:
        moody, fleet = there.moody, there.fleet
        moody.become("silent")
        moody.set(node("a", cordoned=True))
        moody.drop("b")
        assert there.node("a").ready, "the watch has not told"
        refused = await fleet.refusals({"a": 1, "b": 1, "c": 1})
        assert set(refused) == {"a", "b"}
        assert "cordoned" in refused["a"]
        assert "left the cluster" in refused["b"]
        assert [spec.name for spec in fleet.nodes() if spec.ready] == ["c"]


async def test_what_was_learned_is_not_undone_by_what_the_watch_tells_of_before(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, node("a")) as there:
        there.moody.become("silent")
        there.moody.set(node("a", labels={"x": "old"}))
        there.moody.set(node("a", cordoned=True))
        assert await there.fleet.refusals({"a": 1})
        ready = []
        there.cluster.listen(lambda name: ready.append(there.cluster.nodes[name].cordoned))
        there.moody.become("well")
        there.moody.set(node("z"))
        await there.until(lambda: "z" in there.cluster.nodes)
        assert there.cluster.nodes["a"].cordoned
        assert all(ready[:-1])


async def test_while_the_cluster_is_away_nobody_is_told_that_a_node_will_do(tmp_path: Path) -> None:
    async with site(tmp_path, node("a")) as there:
        there.moody.become("ill")
        with pytest.raises(FleetAway, match="503"):
            await there.fleet.refusals({"a": 1})


async def test_a_node_that_has_lost_units_takes_what_it_has_left(tmp_path: Path) -> None:
    sick = node("a", healthy=6)
    async with site(tmp_path, sick, node("b", gpus=0), types=(H100, CPU)) as there:
        assert await there.fleet.refusals({"a": 6, "b": 2}) == {}
        refused = await there.fleet.refusals({"a": 7, "b": 3})
        assert refused["a"] == (
            "Only 6 GPUs of it can be had now, and the leases on it hold 7. 2 GPUs out of order."
        )
        assert "Only 2 shares of it" in refused["b"]
        there.moody.set(pod("train", "a", gpu="1"))
        await there.until(lambda: there.node("a").units == 5)
        refused = await there.fleet.refusals({"a": 6})
        assert "1 GPU used by pods that are not gpudev's" in refused["a"]


async def test_a_share_is_proportional_and_never_more_than_is_left(tmp_path: Path) -> None:
    ours = pod("s", "a", reservation="r" * 16, gpu="4", cpu="32", memory="100Gi")
    async with site(tmp_path, node("a"), ours) as there:
        half = there.fleet.share("a", 4, "new")
        assert half is not None
        assert (half.cpus, half.memory_bytes) == (32, 256 * 2**30)
        there.moody.set(pod("late", "a", cpu="10", memory="300Gi"))
        await there.until(lambda: len(list(there.cluster.pods_on("a"))) == 2)
        now = there.fleet.share("a", 1, "new")
        assert now is not None
        assert now.cpus <= 8
        rest = there.fleet.share("a", 4, "new")
        assert rest is not None
        assert (rest.cpus, rest.memory_bytes) == (22, 112 * 2**30)
        assert there.fleet.share("nowhere", 1, "new") is None


async def test_a_share_is_as_large_while_an_earlier_pod_of_the_reservation_is_still_there(
    tmp_path: Path,
) -> None:
    mine, other = "m" * 16, "o" * 16
    async with site(tmp_path, node("a")) as there:
        whole = there.fleet.share("a", 8, mine)
        assert whole is not None
        before = pod("s", "a", reservation=mine, gpu="8", cpu="64", memory="512Gi")
        there.moody.set(before)
        await there.until(lambda: bool(there.cluster.pods_of(mine)))
        assert there.fleet.share("a", 8, mine) == whole
        # Somebody else's counts until it has gone, also while it is leaving.
        leaving = pod("o", "a", reservation=other, gpu="4", cpu="32", memory="256Gi")
        leaving["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
        there.moody.set(leaving)
        await there.until(lambda: bool(there.cluster.pods_of(other)))
        half = there.fleet.share("a", 8, mine)
        assert half is not None
        assert (half.cpus, half.memory_bytes) == (32, 256 * 2**30)
