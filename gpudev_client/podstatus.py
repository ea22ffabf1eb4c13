"""What became of a pod, in plain words: read from the pod as the API server has it.

Service and spawner say the same about the same pod. `trouble` looks at one pod and nothing else;
who only knows that a pod is gone calls `vanished`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Pod = Mapping[str, Any]

#: A process that was killed by signal n ends with 128 + n; this one is KILL.
_KILLED = 137
#: Longest piece of a message of Kubernetes that is passed on.
_MESSAGE_MAX = 200


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not do what it should. `code` is stable. `over`: it never will again, so that
    another pod must take its place; otherwise it may still come up."""

    code: str
    words: str
    over: bool


#: Ends that Kubernetes announces by a condition, by its reason.
_DISRUPTIONS = {
    "PreemptionByScheduler": (
        "preempted",
        "The cluster took the server's place away for something more important.",
    ),
    "DeletionByTaintManager": (
        "node_lost",
        "The node on which the server ran was lost or taken out of service.",
    ),
    "DeletionByPodGC": ("node_lost", "The node on which the server ran has left the cluster."),
    "EvictionByEvictionAPI": ("evicted", "The server was moved off its node by an operator."),
    "TerminationByKubelet": ("evicted", "The node ran short of resources and ended the server."),
}

#: Ends of a whole pod, by the reason in its status.
_PHASES = {
    "NodeLost": ("node_lost", "The node on which the server ran does not answer any more."),
    "Shutdown": ("node_lost", "The node on which the server ran was shut down."),
    "NodeShutdown": ("node_lost", "The node on which the server ran was shut down."),
    "Terminated": ("node_lost", "The node on which the server ran was shut down."),
    "Preempting": (
        "preempted",
        "The cluster took the server's place away for something more important.",
    ),
    "DeadlineExceeded": ("deadline", "The server's time as a pod was over."),
    "NodeAffinity": ("no_room", "The node that was chosen does not fit the server any more."),
    "UnexpectedAdmissionError": (
        "no_room",
        "The node could not give the server its GPUs: they are used, or out of order.",
    ),
}

#: What keeps a container from starting, by the reason for which it waits: code, words, and whether
#: the message of Kubernetes says more.
_WAITING = {
    "ErrImagePull": ("image", "The image cannot be pulled", True),
    "ImagePullBackOff": ("image", "The image cannot be pulled", True),
    "RegistryUnavailable": ("image", "The image's registry does not answer", True),
    "InvalidImageName": ("image", "The image's name is not valid", True),
    "ImageInspectError": ("image", "The image cannot be read", True),
    "ErrImageNeverPull": ("image", "The image is not on the node, and must not be pulled", False),
    "CreateContainerConfigError": ("configuration", "The server cannot be set up", True),
    "CreateContainerError": ("configuration", "The server cannot be set up", True),
    "RunContainerError": ("start", "The server cannot be started", True),
    "CrashLoopBackOff": ("crashed", "The server ends again as soon as it has started", False),
}

_OUT_OF_MEMORY = (
    "The server used more memory than it has, and was ended for it. Start it again and load less "
    "at once, or reserve more GPUs: memory comes with them."
)

#: Ends of a container, by their reason.
_ENDS = {
    "OOMKilled": ("out_of_memory", _OUT_OF_MEMORY),
    "ContainerCannotRun": ("start", "The server's program cannot be run in this image."),
    "StartError": ("start", "The server's program cannot be run in this image."),
    "ContainerStatusUnknown": ("node_lost", "The node lost track of the server."),
}


def trouble(pod: Pod) -> Trouble | None:
    """What is wrong with a pod, the most telling first; None where nothing is.

    A server's own end without an error is no trouble, nor is a start that takes its time.
    """
    status = pod.get("status") or {}
    found = _out_of_memory(status) or _disrupted(status)
    if found is None and status.get("phase") == "Failed":
        found = _failed(status)
    if found is None:
        found = _ended(status)
    if found is None and (pod.get("metadata") or {}).get("deletionTimestamp"):
        return Trouble("deleted", "The server's pod is being deleted.", over=True)
    return found or _unscheduled(status) or _waiting(status)


def vanished(node_is_there: bool | None = None) -> Trouble:
    """A pod that is not there any more and left no word. `node_is_there`: whether its node is."""
    if node_is_there is False:
        code, words = _DISRUPTIONS["DeletionByPodGC"]
        return Trouble(code, words, over=True)
    return Trouble("deleted", "The server's pod was deleted, not by gpudev.", over=True)


def _disrupted(status: Mapping[str, Any]) -> Trouble | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            reason = str(condition.get("reason") or "")
            if reason == "TerminationByKubelet":
                return _kubelet(status)
            code, words = _DISRUPTIONS.get(reason, ("evicted", "The server was moved off."))
            return Trouble(code, words, over=True)
    return None


def _kubelet(status: Mapping[str, Any]) -> Trouble:
    """The node itself ended the pod: being shut down, or short of something."""
    known = _PHASES.get(str(status.get("reason") or ""))
    if known is not None:
        return Trouble(*known, over=True)
    return _evicted(status)


def _evicted(status: Mapping[str, Any]) -> Trouble:
    _, words = _DISRUPTIONS["TerminationByKubelet"]
    message = _said(status.get("message"))
    lower = message.lower()
    if "ephemeral" in lower or "disk" in lower:
        words = (
            "The server wrote more onto its node's own disk than it may, and was ended for it. "
            "Write into your home directory instead."
        )
    elif "memory" in lower:
        words = "The node ran short of memory and ended the server."
    return Trouble("evicted", words, over=True)


def _failed(status: Mapping[str, Any]) -> Trouble | None:
    reason = str(status.get("reason") or "")
    if reason == "Evicted":
        return _evicted(status)
    if reason in _PHASES:
        return Trouble(*_PHASES[reason], over=True)
    if reason.startswith("OutOf"):
        what = reason.removeprefix("OutOf")
        return Trouble("no_room", f"The node has not enough {what} left for the server.", over=True)
    return _ended(status) or Trouble(
        "crashed", _sentence("The server has ended", status.get("message")), over=True
    )


def _out_of_memory(status: Mapping[str, Any]) -> Trouble | None:
    """Also where the container runs again, or tries to."""
    for container in _containers(status):
        state, last = container.get("state") or {}, container.get("lastState") or {}
        for ended in (state.get("terminated"), "running" not in state and last.get("terminated")):
            if ended and ended.get("reason") == "OOMKilled":
                return Trouble(*_ENDS["OOMKilled"], over="terminated" in state)
    return None


def _ended(status: Mapping[str, Any]) -> Trouble | None:
    for container in _containers(status):
        ended = (container.get("state") or {}).get("terminated")
        if not ended or ended.get("exitCode") == 0:
            continue
        known = _ENDS.get(str(ended.get("reason") or ""))
        if known is not None:
            return Trouble(*known, over=True)
        code = ended.get("exitCode")
        words = (
            "The server was killed."
            if code == _KILLED
            else _sentence(f"The server has ended with code {code}", ended.get("message"))
        )
        return Trouble("crashed", words, over=True)
    return None


def _unscheduled(status: Mapping[str, Any]) -> Trouble | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            words = _sentence("The cluster finds no place for the server", condition.get("message"))
            return Trouble("unschedulable", words, over=False)
    return None


def _waiting(status: Mapping[str, Any]) -> Trouble | None:
    for container in _containers(status):
        waits = (container.get("state") or {}).get("waiting") or {}
        known = _WAITING.get(str(waits.get("reason") or ""))
        if known is not None:
            code, words, more = known
            return Trouble(code, _sentence(words, waits.get("message") if more else None), False)
    return None


def _containers(status: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _sentence(words: str, message: Any) -> str:
    said = _said(message)
    return f"{words}: {said}." if said else f"{words}."


def _said(message: Any) -> str:
    """A message of Kubernetes on one line, not longer than people read."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(message or "")).split())
    cut = line if len(line) <= _MESSAGE_MAX else line[: _MESSAGE_MAX - 1].rstrip() + "…"
    return cut.rstrip(". ")
