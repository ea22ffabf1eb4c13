"""The chart, installed: a lease to its end, an upgrade, and what an uninstall leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from gpudev_client import Client
from gpudev_client import kubernetes as names
from gpudev_client.errors import Conflict
from gpudev_client.models import Reservation, ReservationRequest
from gpudev_client.states import State
from gpudev_service.settings import Times
from tests.chart.rendering import render
from tests.chart.test_permissions import accounts
from tests.fixtures import visitor
from tests.fixtures.cluster import together
from tools.cluster import node, storage
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import KubectlError, Manifest

from . import earlier, installation, recipes
from .installation import Installation, reach, until
from .kills import processes
from .pod_kills import SMALL
from .pods import claim
from .replicas import created, leader_and_standby, lose, other_leads
from .test_gangs import MEET

if TYPE_CHECKING:
    from playwright.async_api import Browser

#: The first test of a run may have to build five images.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.chart,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
]

#: How long before the end of one lease the next is asked for.
_BEFORE = timedelta(seconds=6)
#: How late a lease's server may end: from then on its GPU may have been promised to somebody.
_LATEST = timedelta(seconds=Times().turnover)
#: What a reservation goes through that runs to its end.
_WHOLE = ["queued", "preparing", "active", "stopping", "expired"]
#: What Kubernetes itself makes in every namespace.
_ALWAYS = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
#: Granted for what no test of this file does: a snapshot that takes the storage half a minute is
#: marked as worked on.
_NEEDLESS = {
    "gpudev": {("patch", "snapshot.storage.k8s.io/volumesnapshots")},
    "hub": set[tuple[str, str]](),
}
#: The cluster has one real node. A fleet that is written down has two nodes of the plan that are
#: this one, and the same node as it was before.
_WRITTEN: Manifest = {
    "gpuTypes": {
        "gpu": {"gpus_per_node": 8, "cpus": 2, "memory_gb": 16},
        "cpu": {"cpus": 2, "memory_gb": 16},
        "pair": {
            "gpus_per_node": 1,
            "max_nodes": 2,
            "cpus": 1,
            "memory_gb": 1,
            "kubernetes": {},
        },
    },
    "config": {
        "GpuDev": {
            "fleet": "static",
            "servers": "kubernetes",
            "disks": "volumes",
            "nodes": [
                {"name": node.NAME, "gpu_type": "gpu"},
                {"name": "first", "gpu_type": "pair", "host": node.NAME},
                {"name": "second", "gpu_type": "pair", "host": node.NAME},
            ],
        }
    },
    "disks": {"sharedStorageClass": storage.AT_ONCE},
    "jupyterhub": {"hub": {"extraConfig": {"20-small": SMALL}}},
}
_DISK = "gpudev-" + "a" * 16
#: What the chart, the Hub and the service make, besides pods and volume claims.
_KINDS = (
    *("services", "secrets", "configmaps", "deployments", "statefulsets", "jobs"),
    *("networkpolicies", "roles", "rolebindings", "serviceaccounts", "poddisruptionbudgets"),
)


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Installation]:
    """One installation for all tests of this file, which go from its beginning to its end."""
    with together(cluster), installation.restricted_namespace(cluster) as kubectl:
        recipes.load(cluster, installation.IMAGES)
        made = Installation(cluster, kubectl)
        made.install()
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def ada(installed: Installation) -> Iterator[Client]:
    with installed.person("ada") as client:
        yield client


@pytest.fixture(scope="module")
def kept(ada: Client) -> Reservation:
    """A lease on a GPU that lasts from the first test that asks for it to the uninstall."""
    return reach(ada, ada.reserve(request()).id, State.ACTIVE)


def request(**fields: Any) -> ReservationRequest:
    return ReservationRequest.model_validate({"gpu_type": "gpu", "gpus": 1, "hours": 2, **fields})


def lab(installed: Installation, client: Client, lease: Reservation) -> None:
    """The lease's JupyterLab answers its owner through the proxy; the Hub adds the route to it when
    the lease has just begun."""
    token = client.environment["GPUDEV_TOKEN"]
    path = f"/user/ada/{lease.server_name}/lab"

    def answers() -> bool:
        answer = installed.page(path, token)
        return answer.status_code == 200 and "jupyter-config-data" in answer.text

    until(answers, "JupyterLab answers")


def inside(installed: Installation, lease: Reservation, script: str, rank: int = 0) -> str:
    """What a shell in one of the lease's pods prints."""
    pod = names.worker_name(lease.id, rank)
    return installed.kubectl("exec", pod, "--", "sh", "-c", script)


def pair(client: Client) -> Reservation:
    """A lease of both nodes, whose server runs."""
    return reach(client, client.reserve(request(gpu_type="pair", gpus=2)).id, State.ACTIVE)


def ended(client: Client, lease: Reservation) -> None:
    """Ends a lease, and returns when it has ended."""
    client.cancel(lease.id)
    reach_end(client, lease)


def reach_end(client: Client, lease: Reservation) -> None:
    """Returns when it has ended, as somebody has asked for."""
    for event in client.events(lease.id):
        if event.reservation.state is State.CANCELLED:
            return
    raise AssertionError(f"{lease.id} did not end")


def listed(client: Client, snapshot: str) -> list[str]:
    """The names at the top of a snapshot; none while they have not been listed yet."""
    try:
        return [entry.name for entry in client.disk_contents("work", snapshot=snapshot).all()]
    except Conflict as refused:
        if refused.code != "not_listed":
            raise
        return []


def answers(installed: Installation, client: Client, lease: Reservation) -> bool:
    """Whether its owner is told of a lease, through the proxy, by whoever leads."""
    path = f"/services/gpudev/api/v1/reservations/{lease.id}"
    try:
        return installed.page(path, client.environment["GPUDEV_TOKEN"]).is_success
    except httpx.TransportError:
        return False


def moments(*looks: tuple[str, Callable[[], bool]]) -> list[datetime]:
    """When each of them first held; they are watched side by side."""

    def first(look: tuple[str, Callable[[], bool]]) -> datetime:
        what, holds = look
        until(holds, what)
        return datetime.now(UTC)

    with ThreadPoolExecutor(len(looks)) as pool:
        return list(pool.map(first, looks))


def passed_through(client: Client, lease: Reservation) -> list[str]:
    """The states of a lease, in order, as its history has them."""
    lines = sorted(client.history(lease.id).all(), key=lambda line: line.at)
    return [line.state.value for line in lines if line.kind == "transition"]


def calls(installed: Installation) -> Iterator[tuple[str, str, str, bool]]:
    """Which account asked what of the API server, and whether that was refused."""
    for line in installed.cluster.place.audit_log.read_text().splitlines():
        entry = json.loads(line)
        user = entry["user"]["username"]
        account = user.removeprefix(f"system:serviceaccount:{installed.namespace}:")
        if account == user or "objectRef" not in entry:
            continue
        what = entry["objectRef"]
        kind = "/".join(
            filter(None, [what.get("apiGroup"), what.get("resource"), what.get("subresource")])
        )
        yield account, entry["verb"], kind, entry.get("responseStatus", {}).get("code") == 403


def refused(installed: Installation, *accounts: str) -> list[tuple[str, str, str]]:
    """What was refused to any account, or to these."""
    return [
        (who, verb, kind)
        for who, verb, kind, no in calls(installed)
        if no and (who in accounts or not accounts)
    ]


def unused(installed: Installation, account: str) -> set[tuple[str, str]]:
    """What an account may and has never asked for."""
    here, everywhere = accounts(render(*installation.values()).manifests)[account]
    return (here | everywhere) - {
        (verb, kind) for who, verb, kind, _ in calls(installed) if who == account
    }


def test_the_notes_say_what_to_do_next(installed: Installation) -> None:
    assert "rollout status deployment/hub" in installed.said
    assert "The authenticator is `dummy`" in installed.said
    assert "one for trials" in installed.said


def test_its_planner_is_compiled(installed: Installation) -> None:
    where = "from gpudev_service.planner import windows; print(windows.__file__)"
    said = installed.kubectl("exec", "deployment/gpudev", "--", "python3", "-c", where)
    assert said.strip().endswith(".so")


def test_a_lease_on_a_gpu_in_a_pod(installed: Installation, ada: Client, kept: Reservation) -> None:
    (pod,) = installed.pods(kept.id)
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"].get("automountServiceAccountToken") is False
    lab(installed, ada, kept)


@pytest.mark.browser
async def test_somebody_with_a_browser(installed: Installation, browser: Browser) -> None:
    """The whole way by the pages alone: login, form, JupyterLab, extension, end."""
    with installed.person("grace") as client:
        page = await visitor.logged_in(browser, installed.url, "grace")
        await visitor.reserves(page, installed.url, "cpu", "0.5")
        (got,) = client.reservations(states=[State.ACTIVE]).all()
        assert (got.gpu_type, got.hours) == ("cpu", 0.5)
        assert got.expires_at is not None
        await visitor.extends(page, installed.url)
        longer = client.reservation(got.id).expires_at
        assert longer is not None
        assert longer > got.expires_at
        await visitor.gives_back(page, installed.url)
        reach_end(client, got)
    until(lambda: not installed.pods(got.id), "the pod is gone")


def test_an_upgrade_takes_no_lease(installed: Installation, ada: Client, kept: Reservation) -> None:
    """It begins with what the first chart made and the tables of that time, and a lease in them."""
    before = ada.reservation(kept.id)
    (pod,) = installed.pods(before.id)
    old = installed.kubectl.get("pods", "--selector=app.kubernetes.io/name=gpudev")
    earlier.go_back(installed)
    installed.upgrade({"policy": {"default": {"max_hours": 12}}})
    new = installed.kubectl.get("pods", "--selector=app.kubernetes.io/component=service")
    names = {each["metadata"]["name"] for each in new["items"]}
    assert not names & {each["metadata"]["name"] for each in old["items"]}
    after = ada.reservation(before.id)
    assert before.expires_at is not None
    assert (after.state, after.expires_at) == (State.ACTIVE, before.expires_at)
    (same,) = installed.pods(before.id)
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert same["status"]["containerStatuses"][0]["restartCount"] == 0
    lab(installed, ada, after)
    assert ada.extend(before.id, 1).expires_at == before.expires_at + timedelta(hours=1)


def test_another_replica_takes_over(
    installed: Installation,
    ada: Client,
    kept: Reservation,
    record_property: Callable[..., None],
) -> None:
    """The leader is lost while one lease starts and another is about to end."""
    before = ada.reservation(kept.id)
    installed.upgrade({"service": {"replicas": 2}})
    leader, _ = leader_and_standby(installed)
    ending = reach(ada, ada.reserve(request(gpu_type="cpu", gpus=0, hours=0.015)).id, State.ACTIVE)
    end = ending.expires_at
    assert end is not None
    until(lambda: datetime.now(UTC) > end - _BEFORE, "it is about to end")
    starting = ada.reserve(request())
    until(lambda: bool(installed.pods(starting.id)), "the next one's pod is there")
    assert processes([ending.id])

    lose(installed, leader)
    lost = datetime.now(UTC)
    leads, told, ended = moments(
        # The one that stood by, or the one that came in the lost one's place: who is there first.
        ("another one leads", lambda: other_leads(installed, leader)),
        ("people are answered", lambda: answers(installed, ada, starting)),
        ("the server of the lease that is over has ended", lambda: not processes([ending.id])),
    )
    record_property("takeover_seconds", (leads - lost).total_seconds())
    record_property("answer_seconds", (told - lost).total_seconds())
    record_property("late_seconds", (ended - end).total_seconds())
    assert end <= ended <= end + _LATEST

    reach(ada, starting.id, State.ACTIVE)
    reach(ada, ending.id, State.EXPIRED)
    until(lambda: not installed.pods(ending.id), "the pod is gone")
    assert passed_through(ada, starting) == _WHOLE[:3]
    assert passed_through(ada, ending) == _WHOLE
    for lease in (before, starting, ending):
        assert created(installed, f"gpudev-{lease.id}") == [names.worker_name(lease.id, 0)]
    (pod,) = installed.pods(starting.id)
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    after = ada.reservation(before.id)
    assert (after.state, after.expires_at) == (State.ACTIVE, before.expires_at)
    lab(installed, ada, after)
    now_leads, _ = leader_and_standby(installed)
    assert now_leads != leader
    ada.cancel(starting.id)


def test_a_drained_node_keeps_its_leases(
    installed: Installation, ada: Client, kept: Reservation
) -> None:
    """As the operators' guide says: nothing new is placed there, and nobody is driven out."""
    (pod,) = installed.pods(kept.id)
    node = pod["spec"]["nodeName"]

    def soonest() -> datetime | None:
        (kind,) = ada.availability(gpu_type="gpu").all()
        return next((one.starts_at for one in kind.earliest if one.gpus == 1), None)

    assert soonest() is not None
    installed.kubectl("cordon", node)
    try:
        until(lambda: soonest() is None, "nobody is promised the closed node")
        with pytest.raises(KubectlError, match="disruption budget"):
            installed.kubectl(
                *("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force"),
                # Here the same node has the Hub, the database and other tests' pods too.
                *(f"--pod-selector={names.LABEL_RESERVATION}={kept.id}", "--timeout=10s"),
            )
    finally:
        installed.kubectl("uncordon", node)
    until(lambda: soonest() is not None, "it is open again")
    (same,) = installed.pods(kept.id)
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]


def test_a_service_that_is_scaled_down_keeps_its_leases(
    installed: Installation, ada: Client, kept: Reservation
) -> None:
    """As before a database is restored."""
    lease = ada.reservation(kept.id)
    (pod,) = installed.pods(lease.id)
    installed.kubectl("scale", "deployment", "gpudev", "--replicas=0")
    installed.kubectl.wait("pods", "delete", selector="app.kubernetes.io/component=service")
    lab(installed, ada, lease)
    installed.kubectl("scale", "deployment", "gpudev", "--replicas=1")
    installed.ready()
    after = ada.reservation(lease.id)
    assert (after.state, after.expires_at) == (State.ACTIVE, lease.expires_at)
    (same,) = installed.pods(lease.id)
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    lab(installed, ada, after)


def test_a_lease_ends_on_time_and_its_pod_with_it(installed: Installation, ada: Client) -> None:
    lease = reach(ada, ada.reserve(request(gpu_type="cpu", gpus=0, hours=0.02)).id, State.ACTIVE)
    assert lease.expires_at is not None
    ended = None
    for event in ada.events(lease.id):
        ended = event.reservation
    assert ended is not None
    assert ended.state is State.EXPIRED
    until(lambda: not installed.pods(lease.id), "the pod is gone")


def test_a_disk_is_kept_looked_into_put_back_and_removed(
    installed: Installation, ada: Client
) -> None:
    """All that the service does with volumes, with no more rights than the chart gives it."""
    asked = request(gpu_type="cpu", gpus=0, disk="work", create_disk=True)
    lease = reach(ada, ada.reserve(asked).id, State.ACTIVE)
    inside(installed, lease, "echo first > ~/kept")
    ended(ada, lease)
    (snapshot,) = ada.snapshots("work").all()
    assert (snapshot.cause, snapshot.state) == ("end", "ready"), snapshot.note
    until(lambda: "kept" in listed(ada, snapshot.id), "the snapshot's files are listed")

    lease = reach(ada, ada.reserve(asked).id, State.ACTIVE)
    inside(installed, lease, "echo second > ~/kept; touch ~/more")
    ended(ada, lease)
    ada.restore_disk("work", snapshot=snapshot.id)
    until(lambda: ada.disk("work").busy is None, "the disk is put back")
    assert "safety" in [each.cause for each in ada.snapshots("work").all()]
    ada.clone_disk("work", "copy")
    until(lambda: ada.disk("copy").busy is None, "the disk is cloned")
    for name in ("work", "copy"):
        again = asked.model_copy(update={"disk": name})
        lease = reach(ada, ada.reserve(again).id, State.ACTIVE)
        assert inside(installed, lease, "cat ~/kept; ls ~") == "first\nkept\n"
        ended(ada, lease)

    ada.resize_disk("work", 2)
    for name in ("copy", "work"):
        ada.delete_disk(name)
    kinds = "persistentvolumeclaims,volumesnapshots"
    selector = f"--selector={names.LABEL_DISK}"
    until(lambda: not installed.kubectl.get(kinds, selector)["items"], "nothing of them is left")
    until(lambda: not ada.disks(deleted=True).all(), "nobody lists them any more")


def test_a_lease_of_several_nodes(installed: Installation, ada: Client, kept: Reservation) -> None:
    """Its pods find each other, made by a Hub with no more rights than the chart gives it."""
    installed.upgrade(_WRITTEN)
    assert ada.reservation(kept.id).state is State.ACTIVE
    lease = pair(ada)
    assert {place.node for place in lease.placement} == {"first", "second"}
    asked = "echo $RANK $WORLD_SIZE $NNODES $MASTER_ADDR"
    master = f"rank-0.{names.service_name(lease.id)}"
    for rank in (0, 1):
        assert inside(installed, lease, asked, rank) == f"{rank} 2 2 {master}\n"
    inside(installed, lease, f"cat > /shared/meet.py <<'END'\n{MEET}\nEND\n")
    meet = "python3 /shared/meet.py"
    both = inside(installed, lease, f"ssh rank-1 {meet} & {meet}; wait")
    assert both == "[0, 1]\n[0, 1]\n"
    lab(installed, ada, lease)
    ended(ada, lease)
    name = names.service_name(lease.id)
    for thing in (f"secret/{name}", f"service/{name}", f"networkpolicy/{name}"):
        installed.kubectl.wait(thing, "delete")
    installed.kubectl.wait(f"persistentvolumeclaim/{names.shared_name(lease.id)}", "delete")


def test_no_part_asked_for_what_it_may_not(installed: Installation) -> None:
    """The apiserver's own record of all tests above: what was refused, and what is granted and was
    never needed."""
    assert refused(installed) == []
    for account, needless in _NEEDLESS.items():
        assert unused(installed, account) == needless, f"of what {account} may"


def test_an_uninstall_leaves_people_their_disks_and_nothing_else(
    installed: Installation, ada: Client, kept: Reservation
) -> None:
    installed.upgrade(_WRITTEN)
    assert ada.reservation(kept.id).state is State.ACTIVE
    pair(ada)
    installed.kubectl.apply(_disk("a" * 16), _shared("b" * 16))
    installed.uninstall()
    until(lambda: not installed.pods(), "no pod of a lease is left")
    until(lambda: not installed.kubectl.get("pods")["items"], "no pod of the installation is left")
    left = {
        (each["kind"], each["metadata"]["name"])
        for each in installed.kubectl.get(",".join(_KINDS))["items"]
    } - _ALWAYS
    # The trial database's volume would not open without its password.
    assert left == {("Secret", "gpudev-database")}
    claims = installed.kubectl.get("persistentvolumeclaims")["items"]
    assert {each["metadata"]["name"] for each in claims} == {
        _DISK,
        "data-gpudev-database-0",
        "hub-db-dir",
    }
    # The service may lose its rights before it has ended, and be refused what it looks at last.
    assert refused(installed, "gpudev-cleanup") == []
    assert unused(installed, "gpudev-cleanup") == set()


def _disk(disk_id: str) -> Manifest:
    """A disk's claim, with the labels that the service gives it."""
    labels = {names.LABEL_DISK: disk_id, names.LABEL_MANAGED: names.MANAGED_BY}
    made = claim(_DISK)
    return {**made, "metadata": {**made["metadata"], "labels": labels}}


def _shared(reservation_id: str) -> Manifest:
    """The claim of a folder that the nodes of a lease share."""
    labels = {names.LABEL_RESERVATION: reservation_id, names.LABEL_MANAGED: names.MANAGED_BY}
    made = claim(names.shared_name(reservation_id))
    return {**made, "metadata": {**made["metadata"], "labels": labels}}
