"""The Hub's spawner and real pods: placed, confined, ended, and failing in words."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tools.cluster import node
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import KubectlError

from .installation import until
from .kills import processes_of
from .site import Site, built, environment_of, opened

pytestmark = [pytest.mark.cluster, pytest.mark.hub]


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    return built(cluster)


@pytest.fixture(scope="module")
def site(cluster: Cluster, image: str) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as monkeypatch, opened(cluster, monkeypatch) as site:
        yield site


def test_a_server_runs_where_it_was_planned_with_its_gpus_and_nothing_more(site: Site) -> None:
    got = site.runs(gpus=2)
    [pod] = site.pods(got)
    assert pod["spec"]["nodeName"] == node.NAME == got.placement[0].node
    main = pod["spec"]["containers"][0]
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "2"
    here = environment_of(pod)
    assert here["GPUDEV_RESERVATION"] == got.id
    assert "CUDA_VISIBLE_DEVICES" not in here
    assert site.lab(got, "api/status").json()["connections"] == 0
    # The extension in the pod knows its lease, and says how the server is reached by SSH.
    assert site.lab(got, "gpudev/lease").is_success
    site.until_told(got, "can be reached by SSH")
    said = site.inside(got, "id -u; touch /home/jovyan/mine /tmp/mine && echo written")
    assert said.split() == ["1000", "written"]
    assert "Read-only" in site.inside(got, "touch /opt/mine 2>&1 || true")
    assert site.inside(got, "ls /var/run/secrets 2>/dev/null | wc -l").strip() == "0"
    steps = [entry.data for entry in site.history(got) if entry.kind == "milestones"]
    assert [one["step"] for one in steps[0]["steps"]] == [
        "begin", "node", "volume", "image", "container", "lab",
    ]  # fmt: skip
    site.end(got)
    site.gone(got)


def test_a_pod_that_starts_has_not_changed_its_address(site: Site) -> None:
    """KubeSpawner says so of every pod that is looked at before its start is over."""
    told = len(site.hub.logs())
    got = site.runs()
    site.end(got)
    assert "url changed" not in site.hub.logs()[told:]


def test_a_restart_of_the_hub_leaves_the_pod_and_finds_it_again(site: Site) -> None:
    got = site.runs()
    [before] = site.pods(got)
    site.hub.end("hub", signal.SIGKILL)
    site.hub.start_hub()
    server = site.hub.api("GET", "users/ada")["servers"][got.server_name]
    assert server["ready"]
    [after] = site.pods(got)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    site.end(got)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("gpudev.test/there-is-none:1", "image gpudev.test/there-is-none:1"),
        ("gpudev.test/busybox:1", "program"),
    ],
)
def test_an_image_that_does_not_do_fails_with_the_reason(
    site: Site, named: str, words: str
) -> None:
    made = site.until(site.reserve(image=named), State.FAILED)
    assert made.reason is not None
    assert words in made.reason
    site.gone(made)


def test_a_server_without_enough_memory_says_so(site: Site) -> None:
    made = site.until(site.reserve(name="too small"), State.FAILED)
    assert made.reason is not None
    assert "more memory than it has" in made.reason
    site.gone(made)


def test_a_server_that_runs_out_of_memory_is_started_again_in_its_place(site: Site) -> None:
    got = site.runs(name="little memory")
    [pod] = site.pods(got)
    # Whom the kernel ends is who has most and is told to go first: here the server itself, as
    # where it is alone, and none of many that have less than it.
    server = max(processes_of(got.id), key=lambda process: process.memory_info().rss)
    Path(f"/proc/{server.pid}/oom_score_adj").write_text("1000")
    greedy = "python3 -c \"x = b'x' * 10**8; import time; time.sleep(600)\" & "
    with contextlib.suppress(KubectlError):  # it ends with the container
        site.inside(got, f"{greedy * 9} wait")
    said = site.until_told(got, "It was started again in its place.")
    assert said.startswith("The server used more memory than it has (")
    until(lambda: site.lab(got, "api/status").is_success, "JupyterLab answers again")
    [after] = site.pods(got)
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 1
    now = site.client.reservation(got.id)
    assert (now.state, now.server_lost_at, now.expires_at) == (State.ACTIVE, None, got.expires_at)
    assert now.notice is not None
    assert now.notice.text == said
    assert site.lab(got, "gpudev/lease").json()["reservation"]["notice"]["text"] == said
    site.end(got)


def test_a_server_that_is_evicted_is_told_and_may_be_started_again(site: Site) -> None:
    got = site.runs()
    [pod] = site.pods(got)
    name, inside = pod["metadata"]["name"], site.kubectl.namespace
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": inside},
    }
    path = f"/api/v1/namespaces/{inside}/pods/{name}/eviction"
    site.kubectl("create", "--raw", path, "-f", "-", text=json.dumps(eviction))
    said = site.until_told(got, "Your GPUs are kept")
    assert said.startswith("The server was moved off its node by an operator.")
    now = site.client.reservation(got.id)
    assert now.state is State.ACTIVE
    assert now.server_lost_at is not None
    until(lambda: got.server_name not in site.hub.api("GET", "users/ada")["servers"], "Hub knows")
    again = {"reservation": got.id}
    site.hub.api("POST", f"users/ada/servers/{got.server_name}", again, token=site.token)
    site.until_told(got, "The server runs again.")
    site.end(got)


def test_a_disk_that_cannot_be_mounted_yet_is_told_to_who_waits(
    site: Site, cluster: Cluster
) -> None:
    with cluster.driver_fault("NodePublishVolume", "10.1.2.3 is on fire"):
        made = site.reserve(disk="home", create_disk=True)
        site.until(made, State.PREPARING)
        words = progress(site, made, "waits for its disk")
        assert "the node cannot mount it yet" in words
        assert "10.1.2.3" not in words
    assert site.until(made, State.ACTIVE, State.FAILED).state is State.ACTIVE
    site.end(made)


def progress(site: Site, made: Reservation, words: str) -> str:
    """What the page of who waits shows, once `words` are in it."""
    where = f"{site.hub.url}/hub/api/users/ada/servers/{made.server_name}/progress"
    headers = {"Authorization": f"token {site.token}"}
    until(
        lambda: made.server_name in site.hub.api("GET", "users/ada")["servers"], "its start began"
    )
    with httpx.stream("GET", where, headers=headers, trust_env=False, timeout=60) as answer:
        for line in answer.iter_lines():
            if words in line:
                return line
    raise AssertionError(f"nobody said {words!r}")
