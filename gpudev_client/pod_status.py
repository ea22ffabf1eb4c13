"""What is the matter with a pod, in words for the person whose server it is; pure.

Pods and events are what the Kubernetes API answers, as plain dictionaries: the Hub's and the
service's watches both have them in that form. Kubernetes' own messages name internal things (other
nodes, addresses, secrets), so they are looked at and never passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import words

Object = Mapping[str, Any]

#: Starts in place after which a server that goes on ending counts as over.
RESTARTS_MAX = 3

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff"})
_BAD_IMAGE = frozenset({"InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_BROKEN = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NO_PROGRAM = frozenset({"StartError", "ContainerCannotRun"})
#: The exit code of a container that was killed, mostly for its memory.
_KILLED = 137


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not run. `words` are for its owner; what is `final` does not mend itself."""

    kind: str
    words: str
    final: bool


def trouble(pod: Object, events: Iterable[Object] = ()) -> Trouble | None:
    """What keeps `pod` from running or has ended it; None where nothing does.

    Args:
        pod: as the API has it.
        events: those about this pod, oldest first.
    """
    return (
        _over(pod)
        or next(filter(None, (_container(pod, one) for one in _statuses(pod))), None)
        or _unschedulable(pod)
        or _from_events(pod, list(events))
    )


def ended(pod: Object) -> int | None:
    """The exit code of a pod that is over; None while it runs, starts, or is started again in its
    place by the node."""
    status = pod.get("status") or {}
    main = _main(pod)
    finished = _terminated(main)
    if status.get("phase") in ("Succeeded", "Failed"):
        return int(finished.get("exitCode", 1)) if finished else 1
    if finished:
        code = int(finished.get("exitCode", 1))
        policy = (pod.get("spec") or {}).get("restartPolicy", "Always")
        if policy == "Never" or (policy == "OnFailure" and code == 0):
            return code
    if _loops(main):
        last = (main.get("lastState") or {}).get("terminated") or {}
        return int(last.get("exitCode", 1))
    return None


def restarts(pod: Object) -> int:
    """How often the main container was started again in its place."""
    return int(_main(pod).get("restartCount") or 0)


def last_exit(pod: Object) -> int | None:
    """The exit code with which the main container has ended, also where it was started again; None
    where it never did."""
    main = _main(pod)
    finished = _terminated(main) or (main.get("lastState") or {}).get("terminated")
    return int(finished.get("exitCode", 1)) if finished else None


def last_end(pod: Object) -> Trouble | None:
    """Why the main container was started again; None where it was not."""
    last = (_main(pod).get("lastState") or {}).get("terminated")
    return _ended_words(pod, _main(pod), last) if last else None


def is_ready(pod: Object) -> bool:
    """Whether all containers of the pod run."""
    status = pod.get("status") or {}
    found = status.get("containerStatuses") or []
    return (
        status.get("phase") == "Running"
        and "deletionTimestamp" not in pod["metadata"]
        and bool(found)
        and all(one.get("ready") for one in found)
    )


def node_of(pod: Object) -> str | None:
    """The node that the pod was given to."""
    name: str | None = (pod.get("spec") or {}).get("nodeName")
    return name


def lost(pod: Object | None, events: Iterable[Object] = ()) -> Trouble:
    """Why a pod that ran does not any more."""
    if pod is None:
        return Trouble("gone", "Its pod is gone: somebody or something has deleted it.", True)
    found = trouble(pod, events)
    if found is not None:
        return found
    code = ended(pod)
    return Trouble("crashed", f"It ended (exit code {1 if code is None else code}).", True)


# --- the whole pod ----------------------------------------------------------------------------


def _over(pod: Object) -> Trouble | None:
    """What the cluster did to the pod as a whole."""
    status = pod.get("status") or {}
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if reason == "Evicted":
        return Trouble("evicted", f"The node has put it out: {_pressure(message)}.", True)
    if reason in ("NodeShutdown", "Shutdown") or (reason, status.get("phase")) == (
        "Terminated",
        "Failed",
    ):
        return Trouble("node_lost", "The node was shut down.", True)
    if reason == "NodeLost":
        return Trouble("node_lost", "The node no longer answers.", True)
    if reason.startswith("OutOf") or reason in ("UnexpectedAdmissionError", "NodeAffinity"):
        return Trouble(
            "node_full", "The node refused it: it does not have what was planned there.", True
        )
    return _disrupted(pod)


def _disrupted(pod: Object) -> Trouble | None:
    condition = _condition(pod, "DisruptionTarget")
    if condition is None or condition.get("status") != "True":
        return None
    match condition.get("reason"):
        case "DeletionByTaintManager" | "DeletionByPodGC":
            return Trouble("node_lost", "The node no longer answers, or was emptied.", True)
        case "EvictionByEvictionAPI":
            return Trouble("evicted", "Its node is being emptied.", True)
        case "PreemptionByScheduler":
            return Trouble("evicted", "Something of higher priority has taken its place.", True)
        case "TerminationByKubelet":
            return Trouble("evicted", "The node has ended it to protect itself.", True)
    return None


def _pressure(message: str) -> str:
    low = message.lower()
    if "ephemeral" in low or "disk" in low or "inodes" in low:
        return "there was no space left for files outside of the disk"
    if "memory" in low:
        return "the node ran short of memory"
    if "pid" in low:
        return "there were too many processes"
    return "the node ran short of something"


def _unschedulable(pod: Object) -> Trouble | None:
    condition = _condition(pod, "PodScheduled")
    if condition is None or condition.get("status") != "False":
        return None
    if condition.get("reason") == "SchedulingGated":
        return Trouble("unschedulable", "Something in the cluster holds it back.", False)
    if condition.get("reason") != "Unschedulable":
        return None
    return Trouble("unschedulable", scheduler_words(str(condition.get("message") or "")), False)


#: What the scheduler says, and what it means. The pod may go to one node only, so what keeps it
#: from the others says nothing: those causes are looked at last.
_SCHEDULER: Sequence[tuple[str, str]] = (
    (r"Insufficient (\S+/\S+)", "other pods hold the GPUs that were planned for it"),
    (r"Insufficient memory", "other pods hold memory that was planned for it"),
    (r"Insufficient cpu", "other pods hold CPUs that were planned for it"),
    (r"Insufficient ephemeral-storage", "the node has no space left for files"),
    (r"Too many pods", "the node has as many pods as it can take"),
    (r"were unschedulable", "the node takes no new work"),
    (r"volume node affinity conflict", "the disk is in another zone than the node"),
    (r"exceed max volume count", "the node has as many disks attached as it can"),
    (r"persistentvolumeclaim \S+ not found", "the disk's volume does not exist"),
    (r"unbound immediate PersistentVolumeClaims", "the disk's volume is not made yet"),
    (r"persistentvolumeclaim \S+ is being deleted", "the disk's volume is being deleted"),
    (r"untolerated taint", "the node is reserved for other work, or does not answer"),
    (r"no nodes available|didn't match Pod's node affinity", "the node has left the cluster"),
)


def scheduler_words(message: str) -> str:
    """The scheduler's reason in words."""
    known = message.partition("preemption:")[0]
    for pattern, meaning in _SCHEDULER:
        if re.search(pattern, known):
            return f"It waits for its node: {meaning}."
    return "It waits for its node: the cluster does not let it in yet."


# --- its containers ---------------------------------------------------------------------------


def _container(pod: Object, status: Object) -> Trouble | None:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in _PULLING | _BAD_IMAGE:
        return _image(reason, str(status.get("image") or ""), message)
    if reason in _BROKEN:
        return _not_made(reason, message)
    finished = state.get("terminated")
    if finished is None and reason == "CrashLoopBackOff":
        finished = (status.get("lastState") or {}).get("terminated")
    if not finished or (not finished.get("exitCode") and not _is_main(pod, status)):
        return None  # a preparing container that did its work
    return _ended_words(pod, status, finished)


#: What registries and nodes say when an image cannot be pulled, what it means ("{}" is the image),
#: and whether it stays so. Registries say "denied" about what does not exist, too.
_REGISTRY: Sequence[tuple[str, str, bool]] = (
    (
        r"unauthorized|denied|forbidden|authentication",
        "The registry does not let us pull {}, or has none.",
        True,
    ),
    (r"no match for platform|exec format", "There is {} for other kinds of processors only.", True),
    (r"not found|manifest unknown|does not exist", "There is no such thing as {}.", True),
    (r"no space left", "The node has no space left for {}.", False),
    (r"too ?many ?requests", "The registry of {} allows no more pulls just now.", False),
)


def _image(reason: str, image: str, message: str) -> Trouble:
    named = f"the image {image}" if image else "the image"
    if reason == "InvalidImageName":
        return Trouble("image", f"No image can have a name like that of {named}.", True)
    if reason == "ErrImageNeverPull":
        return Trouble("image", f"The node does not have {named} and may not pull it.", True)
    for pattern, meaning, final in _REGISTRY:
        if re.search(pattern, message.lower()):
            return Trouble("image", meaning.format(named), final)
    return Trouble("image", f"The node cannot pull {named} just now.", False)


def _not_made(reason: str, message: str) -> Trouble:
    low = message.lower()
    if "runasnonroot" in low or "non-numeric user" in low:
        return Trouble("image", "The image wants to run as root, which is not allowed.", True)
    if "not found" in low and ("secret" in low or "configmap" in low):
        return Trouble("config", "Something that the administrator configured is missing.", False)
    if "executable file not found" in low or "no such file" in low:
        return Trouble("image", "The image does not have the program that it should run.", True)
    return Trouble("config", "The node cannot make its container.", reason == "RunContainerError")


def _ended_words(pod: Object, status: Object, finished: Object) -> Trouble:
    code, reason = int(finished.get("exitCode") or 0), str(finished.get("reason") or "")
    if reason == "OOMKilled" or (code == _KILLED and reason == "OutOfMemory"):
        return Trouble("oom", f"It ran out of memory{_limit(pod, status)}.", True)
    if reason in _NO_PROGRAM:
        return Trouble("image", "The image does not have the program that it should run.", True)
    if not _is_main(pod, status):
        return Trouble("crashed", f"What prepares it has failed (exit code {code}).", True)
    return Trouble("crashed", f"It ended (exit code {code}).", True)


def _limit(pod: Object, status: Object) -> str:
    for container in (pod.get("spec") or {}).get("containers") or []:
        if container.get("name") == status.get("name"):
            limits = (container.get("resources") or {}).get("limits") or {}
            size = _bytes(str(limits.get("memory") or ""))
            return f" (its limit is {words.size(size)})" if size else ""
    return ""


def _bytes(quantity: str) -> int | None:
    found = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|Ti|k|M|G|T|)", quantity)
    if found is None:
        return None
    return round(float(found[1]) * {**_BINARY, **_DECIMAL}[found[2]])


# --- events -----------------------------------------------------------------------------------


def _from_events(pod: Object, events: Sequence[Object]) -> Trouble | None:
    """What only events tell; one that was followed by a success is over."""
    if _running(pod):
        return None
    for event in reversed(events):
        match event.get("reason"):
            case "Started" | "Created" | "Pulled" | "Pulling":
                return None
            case "FailedMount" | "FailedAttachVolume" | "FailedMapVolume":
                return _mount(str(event.get("message") or ""))
            case "FailedCreatePodSandBox":
                return Trouble("node", "The node cannot give it a network.", False)
    return None


def _mount(message: str) -> Trouble:
    low = message.lower()
    if "multi-attach" in low:
        why = "the disk is still attached to another node"
    elif "not found" in low:
        why = "something that it should mount does not exist"
    elif "no space left" in low:
        why = "the node has no space left"
    else:
        why = "the node cannot mount the disk yet"
    return Trouble("mount", f"It waits for its disk: {why}.", False)


# --- reading ----------------------------------------------------------------------------------


def _statuses(pod: Object) -> Sequence[Object]:
    status = pod.get("status") or {}
    return [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]


def _main(pod: Object) -> Object:
    """The status of the main container: the first one of the pod's specification."""
    found = (pod.get("status") or {}).get("containerStatuses") or []
    containers = (pod.get("spec") or {}).get("containers") or []
    name = containers[0].get("name") if containers else None
    empty: Object = {}
    return next((one for one in found if one.get("name") == name), empty)


def _is_main(pod: Object, status: Object) -> bool:
    return _main(pod).get("name") == status.get("name")


def _terminated(status: Object) -> Object:
    found: Object = (status.get("state") or {}).get("terminated") or {}
    return found


def _loops(status: Object) -> bool:
    waiting = (status.get("state") or {}).get("waiting") or {}
    often = int(status.get("restartCount") or 0) >= RESTARTS_MAX
    return waiting.get("reason") == "CrashLoopBackOff" and often


def _running(pod: Object) -> bool:
    return "running" in (_main(pod).get("state") or {})


def _condition(pod: Object, kind: str) -> Object | None:
    for one in (pod.get("status") or {}).get("conditions") or []:
        if one.get("type") == kind:
            found: Object = one
            return found
    return None
