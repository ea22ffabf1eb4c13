"""How far the start of a pod has come, from the pod and its events; pure.

Kubernetes keeps these times by the clocks of the cluster's machines, and to the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .models import Milestone
from .podstatus import is_ready, node_of, trouble

Object = Mapping[str, Any]

#: The steps of a start, in order: a node has taken the pod, its volumes and network are there, its
#: image is there, its container runs, JupyterLab answers.
NODE, VOLUME, IMAGE, CONTAINER, LAB = "node", "volume", "image", "container", "lab"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a start stands: words for its owner, and a percentage."""

    words: str
    progress: int


def milestones(pod: Object, events: Iterable[Object] = ()) -> list[Milestone]:
    """The steps that are done, with their times."""
    pulled = _last(events, "Pulled")
    found = {
        NODE: _since(pod, "PodScheduled"),
        VOLUME: _since(pod, "PodReadyToStartContainers"),
        IMAGE: None if pulled is None else event_time(pulled),
        CONTAINER: _started(pod),
    }
    return [Milestone(step=step, at=at) for step, at in found.items() if at is not None]


def stage(pod: Object | None, events: Sequence[Object] = ()) -> Stage:
    """What happens with the pod just now."""
    if pod is None:
        return Stage("asking the cluster for it", 40)
    wrong = trouble(pod, events)
    if wrong is not None:
        return Stage(_lower(wrong.words), 45 if node_of(pod) is None else 50)
    if node_of(pod) is None:
        return Stage("waiting for its node", 45)
    return (
        Stage("its container runs, JupyterLab is starting", 80)
        if is_ready(pod)
        else _on(pod, events)
    )


def _on(pod: Object, events: Sequence[Object]) -> Stage:
    """What happens on the pod's node."""
    if _since(pod, "PodReadyToStartContainers") is None:
        has = any("persistentVolumeClaim" in one for one in pod["spec"].get("volumes") or [])
        return Stage("attaching its disk" if has else "preparing its node", 55)
    pulling, pulled = _last(events, "Pulling"), _last(events, "Pulled")
    if pulling is not None and (pulled is None or event_time(pulled) < event_time(pulling)):
        return Stage("pulling its image; that takes minutes the first time on a node", 60)
    return Stage("starting its container", 70)


def event_time(event: Object) -> datetime:
    """When an event came, for the last time where it came often."""
    series = event.get("series") or {}
    text = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )
    return _time(str(text))


def _last(events: Iterable[Object], reason: str) -> Object | None:
    found = [event for event in events if event.get("reason") == reason]
    return found[-1] if found else None


def _since(pod: Object, condition: str) -> datetime | None:
    for one in (pod.get("status") or {}).get("conditions") or []:
        if one.get("type") == condition and one.get("status") == "True":
            return _time(str(one["lastTransitionTime"]))
    return None


def _started(pod: Object) -> datetime | None:
    for one in (pod.get("status") or {}).get("containerStatuses") or []:
        running = (one.get("state") or {}).get("running")
        if running and one.get("name") == pod["spec"]["containers"][0]["name"]:
            return _time(str(running["startedAt"]))
    return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _lower(sentence: str) -> str:
    text = sentence.removesuffix(".").replace("The server", "it", 1)
    return text[0].lower() + text[1:]
