"""What is read of nodes and pods."""

from __future__ import annotations

from typing import Any

import pytest

from gpudev_service.kube.objects import Taint, node_reader, pod_reader, quantity, requests

from .things import GPU, node, pod

RESOURCES = frozenset({GPU})
COUNTED = RESOURCES | {"cpu", "memory"}


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("2", 2),
        ("500m", 0.5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2),
        ("100u", 0.0001),
        ("16Gi", 16 * 2**30),
        ("1Ki", 1024),
        ("128M", 128e6),
        ("1k", 1000),
        ("1E", 1e18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1Ei", 2**60),
        (8, 8),
    ],
)
def test_quantities(text: Any, amount: float) -> None:
    assert quantity(text) == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "x", "1Q", "1 Gi", "--1", "1GiB", None])
def test_what_is_no_quantity(text: Any) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)


def test_a_node_is_the_same_after_a_heartbeat() -> None:
    read = node_reader(frozenset({"zone"}), RESOURCES)
    one, other = node("a", labels={"zone": "x", "else": "y"}), node("a", labels={"zone": "x"})
    other["status"]["conditions"][1]["lastHeartbeatTime"] = "2026-03-01T12:05:00Z"
    assert read(one) == read(other)
    assert read(one).labels == {"zone": "x"}
    assert set(read(one).capacity) == {"cpu", "memory", GPU}


def test_of_a_nodes_labels_those_are_read_that_people_may_ask_for() -> None:
    read = node_reader(frozenset({"zone"}), RESOURCES, lambda key: key.startswith("rack/"))
    found = read(node("a", labels={"zone": "x", "rack/row": "7", "beat": "12:00"}))
    assert (found.labels, found.offered) == ({"zone": "x"}, {"rack/row": "7"})


def test_what_closes_a_node_is_read() -> None:
    read = node_reader(frozenset(), RESOURCES)
    taint = {"key": "k", "effect": "NoSchedule"}
    found = read(node("a", cordoned=True, ready="Unknown", taints=(taint,)))
    assert (found.cordoned, found.ready) == (True, False)
    assert found.taints == (Taint("k", "", "NoSchedule"),)
    bare = read({"metadata": {"name": "b"}})
    assert (bare.ready, bare.capacity) == (False, {})


def test_only_pods_with_our_label_in_our_namespace_are_ours() -> None:
    read = pod_reader("lab", RESOURCES)
    ours = read(pod("s", "n", reservation="r" * 16, gpu="1"))
    assert ours is not None
    assert (ours.reservation, ours.requests) == ("r" * 16, {GPU: 1})
    elsewhere = pod("s", "n", reservation="r" * 16, gpu="1")
    elsewhere["metadata"]["namespace"] = "other"
    theirs = read(elsewhere)
    assert theirs is not None
    assert theirs.reservation is None


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        (pod("a", None, phase="Pending"), False),
        (pod("a", "n", phase="Succeeded"), False),
        (pod("a", "n", phase="Failed"), False),
        (pod("a", "n", phase="Pending"), True),
        (pod("a", None, phase="Pending", reservation="r" * 16), True),
        (pod("a", "n", phase="Failed", reservation="r" * 16), True),
    ],
)
def test_pods_of_others_count_while_they_hold_a_node(item: Any, kept: bool) -> None:
    assert (pod_reader("lab", RESOURCES)(item) is not None) is kept


def test_a_daemon_and_a_static_pod_belong_to_the_node() -> None:
    read = pod_reader("lab", RESOURCES)
    daemon, user = read(pod("d", "n", owner="DaemonSet")), read(pod("u", "n"))
    static = pod("s", "n")
    static["metadata"] |= {
        "ownerReferences": [],
        "annotations": {"kubernetes.io/config.mirror": ""},
    }
    assert daemon is not None
    assert user is not None
    mirrored = read(static)
    assert mirrored is not None
    assert [daemon.system, user.system, mirrored.system] == [True, False, True]


def container(cpu: str, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "cpus"),
    [
        ({"containers": [container("1"), container("500m")]}, 1.5),
        ({"containers": [container("1")], "initContainers": [container("4")]}, 4),
        (
            {
                "containers": [container("1")],
                "initContainers": [container("2", restartPolicy="Always"), container("4")],
            },
            6,
        ),
        (
            {
                "containers": [container("3")],
                "initContainers": [container("2"), container("1", restartPolicy="Always")],
            },
            4,
        ),
        ({"containers": [container("1")], "overhead": {"cpu": "250m"}}, 1.25),
        ({"containers": [container("1")], "resources": {"requests": {"cpu": "8"}}}, 8),
        ({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}, 2),
        ({}, 0),
    ],
)
def test_requests_are_what_the_scheduler_sets_aside(spec: Any, cpus: float) -> None:
    assert requests(spec, COUNTED).get("cpu", 0) == pytest.approx(cpus)
