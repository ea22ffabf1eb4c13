"""What is said about a pod, for pods as Kubernetes shows them."""

from __future__ import annotations

from typing import Any

import pytest

from gpudev_client.podstatus import ended, is_given_up, is_unheard, lost, trouble, vanished


def pod(phase: str = "Running", **status: Any) -> dict[str, Any]:
    deleted = status.pop("deleted", None)
    metadata = {"name": "p", **({"deletionTimestamp": deleted} if deleted else {})}
    return {"metadata": metadata, "status": {"phase": phase, **status}}


def container(**state: Any) -> list[dict[str, Any]]:
    last = state.pop("last", {})
    return [{"name": "notebook", "state": state, "lastState": last}]


def disrupted(reason: str) -> list[dict[str, str]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason}]


#: What the cluster makes of a pod that runs when its node falls silent.
SILENT = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
RUNS = {"running": {"startedAt": "2026-03-01T12:00:00Z"}}


@pytest.mark.parametrize(
    "healthy",
    [
        {},
        pod("Pending"),
        pod(containerStatuses=container(**RUNS)),
        pod("Pending", containerStatuses=container(waiting={"reason": "ContainerCreating"})),
        pod("Pending", initContainerStatuses=container(terminated={"exitCode": 0})),
        pod("Succeeded", containerStatuses=container(terminated={"exitCode": 0})),
        pod(conditions=[{"type": "PodScheduled", "status": "True"}]),
        pod(conditions=[{"type": "DisruptionTarget", "status": "False", "reason": "x"}]),
        pod(containerStatuses=container(**RUNS, last=OOM)),
    ],
)
def test_nothing_is_said_of_a_pod_that_does_what_it_should(healthy: dict[str, Any]) -> None:
    assert trouble(healthy) is None


@pytest.mark.parametrize(
    ("sick", "code", "over", "words"),
    [
        (pod(containerStatuses=container(**OOM)), "out_of_memory", True, "more memory than"),
        (
            pod(
                containerStatuses=container(waiting={"reason": "CrashLoopBackOff"}, last=OOM),
            ),
            "out_of_memory",
            False,
            "more memory than",
        ),
        (
            pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
            "evicted",
            True,
            "short of memory",
        ),
        (
            pod("Failed", reason="Evicted", message="Pod ephemeral local storage usage exceeds x"),
            "evicted",
            True,
            "home directory",
        ),
        (
            pod("Failed", reason="Terminated", conditions=disrupted("TerminationByKubelet")),
            "node_lost",
            True,
            "shut down",
        ),
        (
            pod(conditions=disrupted("TerminationByKubelet"), message="low on memory"),
            "evicted",
            True,
            "short of memory",
        ),
        (pod(conditions=disrupted("DeletionByTaintManager")), "node_lost", True, "lost"),
        (pod("Failed", conditions=disrupted("DeletionByPodGC")), "node_lost", True, "has left"),
        (pod(conditions=disrupted("EvictionByEvictionAPI")), "evicted", True, "operator"),
        (pod(conditions=disrupted("PreemptionByScheduler")), "preempted", True, "important"),
        (pod(conditions=disrupted("SomethingNew")), "evicted", True, "moved off"),
        (pod(deleted="2026-03-01T12:00:00Z"), "deleted", True, "being deleted"),
        (pod(conditions=SILENT), "node_silent", False, "at the moment"),
        (
            pod(conditions=SILENT, deleted="2026-03-01T12:00:00Z"),
            "node_lost",
            True,
            "does not answer any more",
        ),
        (pod("Failed", reason="OutOfcpu"), "no_room", True, "not enough cpu"),
        (pod("Failed", reason="OutOfnvidia.com/gpu"), "no_room", True, "nvidia.com/gpu"),
        (pod("Failed", reason="UnexpectedAdmissionError"), "no_room", True, "GPUs"),
        (pod("Failed", reason="NodeAffinity"), "no_room", True, "fit"),
        (pod("Failed", reason="Odd", message="odd\nthings"), "crashed", True, "has ended."),
        (
            pod("Failed", containerStatuses=container(terminated={"exitCode": 3})),
            "crashed",
            True,
            "with code 3.",
        ),
        (pod(containerStatuses=container(terminated={"exitCode": 137})), "crashed", True, "killed"),
        (
            pod(containerStatuses=container(terminated={"exitCode": 128, "reason": "StartError"})),
            "start",
            True,
            "this image",
        ),
        (
            pod(
                "Pending",
                containerStatuses=container(
                    waiting={"reason": "ImagePullBackOff", "message": "Back-off: not found."}
                ),
            ),
            "image",
            True,
            "no such thing",
        ),
        (
            pod("Pending", containerStatuses=container(waiting={"reason": "ErrImageNeverPull"})),
            "image",
            True,
            "not on the node",
        ),
        (
            pod(
                "Pending",
                initContainerStatuses=container(waiting={"reason": "CreateContainerConfigError"}),
            ),
            "configuration",
            False,
            "cannot be set up:",
        ),
        (
            pod(
                "Pending",
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                    }
                ],
            ),
            "unschedulable",
            False,
            "hold the GPUs",
        ),
    ],
)
def test_trouble_is_told_in_words(sick: dict[str, Any], code: str, over: bool, words: str) -> None:
    found = trouble(sick)
    assert found is not None
    assert (found.code, found.over) == (code, over)
    assert words in found.words
    assert found.words.endswith(".")


def test_a_long_message_is_cut() -> None:
    found = trouble(pod("Failed", message="x" * 5000))
    assert found is not None
    assert len(found.words) < 260


def test_of_a_pod_that_is_gone_its_node_may_be_the_cause() -> None:
    assert vanished().code == "deleted"
    assert vanished(node_is_there=True).code == "deleted"
    assert vanished(node_is_there=False).code == "node_lost"


def test_a_pod_of_a_silent_node_is_over_once_its_end_was_asked_for() -> None:
    runs = container(**RUNS)
    silent = pod(conditions=SILENT, containerStatuses=runs)
    assert (is_unheard(silent), is_given_up(silent), ended(silent)) == (True, False, None)
    given_up = pod(conditions=SILENT, containerStatuses=runs, deleted="2026-03-01T12:00:00Z")
    assert (is_given_up(given_up), ended(given_up)) == (True, 1)
    said = lost(given_up).about("The worker on n2")
    assert said == "The node on which the worker on n2 ran does not answer any more."
    assert lost(given_up).about("The server") == lost(given_up).words


@pytest.mark.parametrize(
    "conditions",
    [
        [],
        [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
        [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "False"}],
        [
            {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"},
            {"type": "ContainersReady", "status": "True"},
        ],
    ],
)
def test_a_pod_that_a_living_kubelet_ends_is_waited_for(conditions: list[dict[str, str]]) -> None:
    leaving = pod(conditions=conditions, deleted="2026-03-01T12:00:00Z")
    assert not is_unheard(leaving)
    assert ended(leaving) is None
