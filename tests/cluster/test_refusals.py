"""Disks on clusters that refuse what they need: leases end all the same, and people are told."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpudev_client.models import CloneRequest, DiskRequest, RestoreRequest, Snapshot
from gpudev_client.states import State
from gpudev_service.disks.base import DiskError
from gpudev_service.errors import Refusal
from gpudev_service.kube.connection import connect
from gpudev_service.loops import driving, retention
from gpudev_service.operations import disks, reservations, snapshots
from gpudev_service.settings import KubernetesSettings, Settings
from gpudev_service.store.engine import Store
from tests.cluster.disk_worlds import ADA, used, world_of
from tests.cluster.proxy import proxy
from tests.cluster.volumes import Setting
from tests.fixtures.world import World
from tools.cluster.kubectl import Kubectl, Manifest

pytestmark = pytest.mark.cluster

_SNAPSHOTS = "snapshot.storage.k8s.io"
_ALL = ["get", "list", "create", "patch", "delete"]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "PAUSE", 0.0)


@pytest.fixture
async def bare(
    setting: Setting, store: Store, tmp_path: Path, index_image: None
) -> AsyncIterator[World]:
    """On a cluster without the VolumeSnapshot CRDs: its API server knows no such path."""
    settings = Settings(gpu_types={}, kubernetes=KubernetesSettings(kubeconfig=setting.kubeconfig))
    async with connect(settings) as upstream, proxy(upstream) as (between, url):
        between.unknown = (f"/apis/{_SNAPSHOTS}/",)
        config = tmp_path / "without-snapshots"
        config.write_text(_kubeconfig({"server": url}, {}))
        through = dataclasses.replace(setting, kubeconfig=config)
        async with world_of(through, store, tmp_path) as world:
            yield world


@contextmanager
def account(namespace: Kubectl, admin: Path, folder: Path, *kinds: str) -> Iterator[Path]:
    """The kubeconfig of an account that may do everything, with these kinds of objects only."""
    may(namespace, *kinds)
    namespace("create", "serviceaccount", "limited")
    name = str(namespace.namespace)
    namespace(
        "create", "rolebinding", "limited", "--role=limited", f"--serviceaccount={name}:limited"
    )
    token = namespace("create", "token", "limited").strip()
    cluster = yaml.safe_load(admin.read_text())["clusters"][0]["cluster"]
    config = folder / "limited"
    config.write_text(_kubeconfig(cluster, {"token": token}))
    yield config


def may(namespace: Kubectl, *kinds: str) -> None:
    """What the account may use from now on."""
    rules = [
        {"apiGroups": [group], "resources": [kind], "verbs": _ALL}
        for group, kind in (each.rpartition("/")[::2] for each in kinds)
    ]
    role: Manifest = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "limited"},
        "rules": rules,
    }
    namespace.apply(role)


def _kubeconfig(cluster: dict[str, Any], user: dict[str, Any]) -> str:
    said = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": user}],
    }
    return yaml.safe_dump(said)


async def taken(world: World) -> list[Snapshot]:
    return (await snapshots.listing(world.ctx, "ada", "work", 10, None)).items


async def purged(world: World, namespace: Kubectl) -> None:
    """The disk is deleted, and its time is over."""
    await disks.delete(world.ctx, "ada", "work", (), ADA)
    world.clock.pass_time(days=31)
    await retention.run(world.ctx)
    assert namespace.get("pvc")["items"] == []
    page = await disks.listing(world.ctx, None, deleted=True, limit=9, cursor=None)
    assert page.items == []


async def test_a_cluster_without_snapshots_keeps_no_lease(bare: World, namespace: Kubectl) -> None:
    lease = await bare.running(await bare.reserve(disk="work", create_disk=True))
    await used(bare, namespace)
    await reservations.cancel(bare.ctx, lease.id, ADA)
    await bare.sweep()
    assert await bare.states(lease) == [State.CANCELLED]
    assert (
        "No snapshot: This cluster takes no snapshots of disks. The disk itself is as you left it."
        in await bare.reasons(lease)
    )
    await bare.running(await bare.reserve(disk="work", hours=0.5))
    bare.clock.pass_time(hours=1)
    await bare.sweep()
    await purged(bare, namespace)


async def test_what_needs_snapshots_is_refused_where_there_are_none(
    bare: World, namespace: Kubectl
) -> None:
    await used(bare, namespace)
    restored = RestoreRequest(snapshot="latest")
    for asked in (
        snapshots.take(bare.ctx, "ada", "work", None, ADA),
        snapshots.clone(bare.ctx, "ada", "work", CloneRequest(name="copy"), (), ADA),
        snapshots.restore(bare.ctx, "ada", "work", restored, (), ADA),
    ):
        with pytest.raises(Refusal, match=r"takes no snapshots of disks.*Copy what you want") as no:
            await asked
        assert no.value.code == "impossible"
    assert await taken(bare) == []
    (left,) = (await disks.listing(bare.ctx, None, deleted=False, limit=9, cursor=None)).items
    assert (left.name, left.busy) == ("work", None)


async def test_an_account_that_may_not_snapshot_keeps_no_lease(
    setting: Setting, namespace: Kubectl, store: Store, tmp_path: Path, index_image: None
) -> None:
    """What it may not do is told, and done once it may."""
    claims = "persistentvolumeclaims"
    with account(namespace, setting.kubeconfig, tmp_path, f"/{claims}") as config:
        limited = dataclasses.replace(setting, kubeconfig=config)
        async with world_of(limited, store, tmp_path) as world:
            lease = await world.running(await world.reserve(disk="work", create_disk=True))
            await used(world, namespace)
            await reservations.cancel(world.ctx, lease.id, ADA)
            await world.sweep()
            assert await world.states(lease) == [State.CANCELLED]
            assert any("No snapshot: The cluster refused" in r for r in await world.reasons(lease))
            with pytest.raises(DiskError, match="Your operators find the reason in the log"):
                await snapshots.take(world.ctx, "ada", "work", None, ADA)
            with pytest.raises((DiskError, ExceptionGroup)):  # and readiness says so
                await purged(world, namespace)
            may(namespace, f"/{claims}", f"{_SNAPSHOTS}/volumesnapshots", "/pods", "/events")
            await retention.run(world.ctx)
            assert namespace.get("pvc")["items"] == []


async def test_an_account_that_may_not_make_volumes_makes_no_disk(
    setting: Setting, namespace: Kubectl, store: Store, tmp_path: Path, index_image: None
) -> None:
    """Neither the disk nor its lease gets stuck."""
    with account(namespace, setting.kubeconfig, tmp_path, "/pods") as config:
        limited = dataclasses.replace(setting, kubeconfig=config)
        async with world_of(limited, store, tmp_path) as world:
            with pytest.raises(DiskError, match="The cluster refused"):
                await disks.create(world.ctx, "ada", DiskRequest(name="other"), (), ADA)
            lease = await world.running(await world.reserve(disk="work", create_disk=True))
            await reservations.cancel(world.ctx, lease.id, ADA)
            await world.sweep()
            assert await world.states(lease) == [State.CANCELLED]
            with pytest.raises(DiskError):  # and readiness says so
                await retention.run(world.ctx)


async def test_a_quota_that_is_used_up_is_told(
    setting: Setting, namespace: Kubectl, store: Store, tmp_path: Path, index_image: None
) -> None:
    async with world_of(setting, store, tmp_path) as world:
        await used(world, namespace)
        await snapshots.take(world.ctx, "ada", "work", None, ADA)
        await world.ctx.background.settle()
        namespace("create", "quota", "full", "--hard=persistentvolumeclaims=1")
        namespace.wait("resourcequota/full", "jsonpath={.status.used.persistentvolumeclaims}=1")
        with pytest.raises(Refusal, match="no room for another disk") as refused:
            await disks.create(world.ctx, "ada", DiskRequest(name="other"), (), ADA)
        assert refused.value.code == "disk_full"
        await snapshots.restore(
            world.ctx, "ada", "work", RestoreRequest(snapshot="latest"), (), ADA
        )
        await world.ctx.background.settle()
        safety = next(each for each in await taken(world) if each.cause == "safety")
        assert safety.note is not None
        assert safety.note.startswith("Before a restoration that went wrong: There is no room")
        assert (await disks.get(world.ctx, "ada", "work")).busy is None
