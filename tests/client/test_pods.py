"""A pod's state in words for its owner, from what the Kubernetes API says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gpudev_client.pod_steps import milestones, stage
from gpudev_client.podstatus import (
    ended,
    is_ready,
    last_end,
    last_exit,
    lost,
    restarts,
    scheduler_words,
    trouble,
)
from tests.spawner.pods import event, pod

RUNNING = {"running": {"startedAt": "2026-05-01T12:00:09Z"}}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def over(code: int, reason: str = "Error") -> dict[str, Any]:
    return {"exitCode": code, "reason": reason}


@pytest.mark.parametrize(
    ("reason", "message", "words", "final"),
    [
        ("InvalidImageName", "", "No image can have a name", True),
        ("ErrImageNeverPull", "", "must not be pulled", True),
        ("ErrImagePull", "manifest unknown", "no such thing as the image", True),
        ("ImagePullBackOff", 'Back-off ...: "x": not found', "no such thing", True),
        ("ErrImagePull", "401 Unauthorized", "does not let us pull", True),
        ("ErrImagePull", "toomanyrequests: slow down", "no more pulls", False),
        ("ErrImagePull", "write: no space left on device", "no space left", False),
        ("ErrImagePull", "no match for platform in manifest", "other kinds of processors", True),
        ("ImagePullBackOff", "dial tcp 10.1.2.3:443: i/o timeout", "just now", False),
    ],
)
def test_an_image_that_is_not_there_is_told_apart(
    reason: str, message: str, words: str, final: bool
) -> None:
    found = trouble(pod(state=waits(reason, message)))
    assert found is not None
    assert (found.code, found.over) == ("image", final)
    assert words in found.words
    assert "ghcr.io/lab/torch:2" in found.words
    assert "10.1.2.3" not in found.words


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        (waits("CreateContainerConfigError", "image will run as root, runAsNonRoot"), "image",
         "wants to run as root"),
        (waits("CreateContainerConfigError", 'secret "x" not found'), "configuration", "missing"),
        (waits("RunContainerError", "executable file not found in $PATH"), "start", "program"),
        ({"terminated": over(128, "StartError")}, "start", "program"),
        ({"terminated": over(137, "OOMKilled")}, "out_of_memory", "than it has (64 GB)"),
        ({"terminated": over(1)}, "crashed", "code 1"),
    ],
)  # fmt: skip
def test_a_container_that_does_not_run(state: dict[str, Any], kind: str, words: str) -> None:
    found = trouble(pod(state=state))
    assert found is not None
    assert found.code == kind
    assert words in found.words


def test_one_that_is_started_again_and_again_says_why() -> None:
    looping = pod(state=waits("CrashLoopBackOff"), last=over(137, "OOMKilled"), restarts=2)
    found = trouble(looping)
    assert found is not None
    assert found.code == "out_of_memory"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (("0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's "
         "node affinity/selector. preemption: 0/3 nodes are available"), "hold the GPUs"),
        (("0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match Pod's "
         "node affinity/selector."), "takes no new work"),
        ("0/3 nodes are available: 1 node(s) had untolerated taint {x: }", "other work"),
        ("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
         "left the cluster"),
        ("0/1 nodes are available: 1 node(s) had volume node affinity conflict.", "another zone"),
        ("something new", "does not let it in yet"),
    ],
)  # fmt: skip
def test_the_scheduler_in_words(message: str, words: str) -> None:
    assert words in scheduler_words(message)
    waiting = pod(
        node=None,
        conditions={
            "PodScheduled": {"status": "False", "reason": "Unschedulable", "message": message}
        },
    )
    found = trouble(waiting)
    assert found is not None
    assert (found.code, found.over) == ("unschedulable", False)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "low on resource: memory"},
         "evicted", "short of memory"),
        ({"phase": "Failed", "reason": "Evicted", "message": "Pod ephemeral local storage usage"},
         "evicted", "home directory"),
        ({"phase": "Failed", "reason": "Terminated"}, "node_lost", "shut down"),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, "no_room", ""),
        ({"phase": "Failed", "reason": "OutOfnvidia.com/gpu"}, "no_room", ""),
        ({"conditions": {"DisruptionTarget": {"status": "True",
                                              "reason": "DeletionByTaintManager"}}},
         "node_lost", "was lost"),
        ({"conditions": {"DisruptionTarget": {"status": "True",
                                              "reason": "EvictionByEvictionAPI"}}},
         "evicted", "by an operator"),
    ],
)  # fmt: skip
def test_what_the_cluster_did_to_the_pod(given: dict[str, Any], kind: str, words: str) -> None:
    found = trouble(pod(**given))
    assert found is not None
    assert (found.code, found.over) == (kind, True)
    assert words in found.words
    assert lost(pod(**given)) == found


def test_a_disk_that_does_not_come_is_seen_in_the_events_until_it_has() -> None:
    failed = event("FailedAttachVolume", "Multi-Attach error for volume")
    found = trouble(pod(), [failed])
    assert found is not None
    assert "attached to another node" in found.words
    assert trouble(pod(), [failed, event("Pulled")]) is None
    assert trouble(pod(phase="Running", state=RUNNING), [failed]) is None


def test_a_pod_that_is_gone() -> None:
    assert lost(None).code == "deleted"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (pod(), None),
        (pod(phase="Running", state=RUNNING), None),
        (pod(phase="Succeeded", state={"terminated": over(0, "Completed")}), 0),
        (pod(phase="Failed", reason="Evicted"), 1),
        # The node starts it again in its place.
        (pod(phase="Running", state={"terminated": over(137)}), None),
        (pod(phase="Running", state={"terminated": over(0)}), 0),
        (pod(phase="Running", state={"terminated": over(3)}, restart_policy="Never"), 3),
        (pod(phase="Running", state=waits("CrashLoopBackOff"), last=over(2), restarts=1), None),
        (pod(phase="Running", state=waits("CrashLoopBackOff"), last=over(2), restarts=3), 2),
    ],
)
def test_when_a_server_is_over(given: dict[str, Any], code: int | None) -> None:
    assert ended(given) == code


def test_a_start_in_place_has_a_reason() -> None:
    again = pod(phase="Running", state=RUNNING, last=over(137, "OOMKilled"), restarts=1)
    assert is_ready(again)
    assert (restarts(again), last_exit(again)) == (1, 137)
    why = last_end(again)
    assert why is not None
    assert why.code == "out_of_memory"
    assert last_end(pod(phase="Running", state=RUNNING)) is None


def test_the_steps_of_a_start() -> None:
    ready = {"status": "True"}
    started = pod(
        phase="Running",
        state=RUNNING,
        conditions={"PodScheduled": ready, "PodReadyToStartContainers": ready},
    )
    pulled = event("Pulled", at="2026-05-01T12:00:07Z")
    found = [(one.step, one.at.second) for one in milestones(started, [pulled])]
    assert found == [("node", 0), ("volume", 0), ("image", 7), ("container", 9)]
    assert milestones(started)[0].at == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert milestones(pod()) == []


def test_how_far_a_start_is() -> None:
    ready = {"status": "True"}
    going = {"PodScheduled": ready, "PodReadyToStartContainers": ready}
    assert "asking" in stage(None).words
    assert "waiting for its node" in stage(pod(node=None)).words
    assert "disk" in stage(pod()).words
    pulling = event("Pulling")
    assert "pulling" in stage(pod(conditions=going), [pulling]).words
    pulled = event("Pulled", at="2026-05-01T12:00:07Z")
    assert "container" in stage(pod(conditions=going), [pulling, pulled]).words
    assert "JupyterLab" in stage(pod(phase="Running", state=RUNNING, conditions=going)).words
    assert stage(pod(state=waits("InvalidImageName"))).words.startswith("no image can have")
