"""The Hub's spawner and real pods: placed, confined, ended, and failing in words."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from gpudev_client.states import State
from tools.cluster import node
from tools.cluster.cluster import Cluster

from .site import Site, built, environment_of, opened

pytestmark = [pytest.mark.cluster, pytest.mark.hub]


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    return built(cluster)


@pytest.fixture(scope="module")
def site(cluster: Cluster, image: str) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from opened(cluster, monkeypatch)


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
