"""What people read about pods that start or do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiException

from gpudev_spawner.failures import ServerDied
from gpudev_spawner.pod_failures import Look, PodFailed, reason

from .pods import event, pod

RUNNING = {"running": {"startedAt": "2026-05-01T12:00:09Z"}}
OUT_OF_MEMORY = {"exitCode": 137, "reason": "OOMKilled"}


def none(_: Any) -> Sequence[Any]:
    return ()


def test_a_look_says_when_there_is_something_new() -> None:
    look = Look()
    assert look.at([None], ["n"], none, 0.0)
    assert not look.at([None], ["n"], none, 0.5)
    assert look.at([pod(node=None)], ["n"], none, 1.0)
    assert look.stage is not None
    assert "node" in look.stage.words


def test_events_are_looked_through_after_a_while_and_not_at_each_look() -> None:
    asked = []

    def events_of(given: Any) -> Sequence[Any]:
        asked.append(given)
        return [event("FailedMount", "not found")]

    look = Look()
    for moment in (0.0, 0.5, 2.9):
        look.at([pod()], ["n"], events_of, moment)
    assert asked == []
    assert look.at([pod()], ["n"], events_of, 3.1)
    assert look.trouble is not None
    assert look.trouble.code == "mount"
    count = len(asked)
    look.at([pod()], ["n"], events_of, 3.6)
    assert len(asked) == count


def test_what_does_not_mend_itself_ends_the_start() -> None:
    bad = pod(state={"waiting": {"reason": "InvalidImageName"}})
    with pytest.raises(PodFailed) as raised:
        Look().at([bad], ["n"], none, 0.0)
    said = reason(raised.value, None, None, 60)
    assert said is not None
    assert said.startswith("The server did not start. No image can have")
    assert "Check the image's name" in said


def test_a_worker_is_named_by_its_node() -> None:
    ready = pod(phase="Running", state=RUNNING)
    evicted = pod(phase="Failed", reason="Evicted", message="memory")
    with pytest.raises(PodFailed) as raised:
        Look().at([ready, evicted], ["n1", "n2"], none, 0.0)
    assert "The worker on n2" in str(reason(raised.value, None, None, 60))


def test_a_pod_that_was_there_and_is_not_any_more() -> None:
    look = Look()
    look.at([pod()], ["n"], none, 0.0)
    with pytest.raises(PodFailed):
        look.at([None], ["n"], none, 0.5)


def test_nodes_that_are_still_missing_are_counted() -> None:
    look = Look()
    look.at([pod(phase="Running", state=RUNNING), pod(), None], ["a", "b", "c"], none, 0.0)
    assert look.stage is not None
    assert look.stage.words == "waiting for 2 more nodes"


def test_a_late_start_says_what_was_in_the_way() -> None:
    look = Look()
    waiting = pod(
        node=None,
        conditions={
            "PodScheduled": {
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            }
        },
    )
    look.at([waiting], ["n"], none, 0.0)
    said = reason(TimeoutError(), look, waiting, 120)
    assert said is not None
    assert "not up within 120 seconds" in said
    assert "other pods hold the GPUs" in said


def test_a_server_that_died_says_of_what() -> None:
    dead = pod(phase="Running", state=RUNNING, last=OUT_OF_MEMORY, restarts=1)
    said = reason(ServerDied(137), None, dead, 60)
    assert said is not None
    assert "more memory than it has (64 GB)" in said


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, 'pods "x" is forbidden: exceeded quota: gpus', "quota"),
        (403, 'pods "x" is forbidden: violates PodSecurity "restricted"', "does not allow"),
        (422, "spec.containers[0].secret.path: Invalid value", "refused the server's pod"),
    ],
)
def test_the_clusters_no_is_told_without_its_text(status: int, body: str, words: str) -> None:
    error = ApiException(status=status)
    error.body = body.encode()
    said = reason(error, None, None, 60)
    assert said is not None
    assert words in said
    assert "secret.path" not in said


def test_other_faults_have_words_of_their_own() -> None:
    assert reason(RuntimeError(), None, None, 60) is None


def test_it_is_asked_now_and_then_whether_the_nodes_still_fit() -> None:
    look = Look(ask_every=20.0)
    look.at([pod()], ["n"], none, 0.0)
    asked = [moment for moment in range(0, 61, 5) if look.asks(float(moment))]
    assert asked == [20, 40, 60]


def test_it_is_asked_sooner_where_the_node_is_in_the_way() -> None:
    look = Look(ask_every=20.0)
    assert not look.asks(0.0)
    unscheduled = {"PodScheduled": {"status": "False", "message": "0/9 nodes are available"}}
    look.at([pod(node=None, conditions=unscheduled)], ["n"], none, 0.5)
    asked = [moment for moment in (1.0, 2.9, 3.1, 5.0, 6.2, 9.3) if look.asks(moment)]
    assert asked == [3.1, 6.2, 9.3]


def test_a_start_that_is_not_asked_about_goes_on() -> None:
    assert not any(Look().asks(float(moment)) for moment in range(0, 10_000, 100))
