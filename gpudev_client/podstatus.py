"""What becomes of a pod, in plain words: read from the pod as the API server has it.

Service and spawner say the same about the same pod. `trouble` looks at one pod, and at its events
where somebody has them; who only knows that a pod is gone calls `vanished`. Messages of Kubernetes
name what people must not see (other nodes, addresses, secrets), so they are read and not passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import words as say

Pod = Mapping[str, Any]

#: A process that was killed by signal n ends with 128 + n; this one is KILL.
_KILLED = 137
#: Starts in place after which a server that goes on ending counts as over.
RESTARTS_MAX = 3

_BY_THE_NODE = frozenset(
    {"evicted", "no_room", "node_lost", "node_silent", "preempted", "unschedulable"}
)

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "": 1, "k": 10**3, "M": 10**6}
_UNITS |= {"G": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not do what it should. `code` is stable. `over`: it never will again, so that
    another pod must take its place; otherwise it may still come up."""

    code: str
    words: str
    over: bool

    @property
    def by_the_node(self) -> bool:
        """Whether it is the node's doing, so that another node may do what this one does not."""
        return self.code in _BY_THE_NODE

    def about(self, who: str) -> str:
        """The words about `who`: the server, or another pod, as "The worker on n2"."""
        if who == "The server":
            return self.words
        if "The server" in self.words:
            return self.words.replace("The server", who).replace("the server", "it")
        named = who[0].lower() + who[1:]
        return self.words.replace("the server", named, 1).replace("the server", "it")


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

#: What registries and nodes say when an image cannot be pulled, what it means ("{}" is the image),
#: and whether it stays so. Registries say "denied" about what does not exist, too.
_PULLS: Sequence[tuple[str, str, bool]] = (
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

#: What the scheduler says, and what it means. The pod may go to one node only, so what keeps it
#: from the others says nothing: that cause is looked at last.
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

_OUT_OF_MEMORY = (
    "The server used more memory than it has{}, and was ended for it. Load less at once, or "
    "reserve more GPUs: memory comes with them."
)

#: Ends of a container, by their reason.
_ENDS = {
    "ContainerCannotRun": ("start", "The server's program cannot be run in this image."),
    "StartError": ("start", "The server's program cannot be run in this image."),
    "ContainerStatusUnknown": ("node_lost", "The node lost track of the server."),
}


def trouble(pod: Pod, events: Iterable[Pod] = ()) -> Trouble | None:
    """What is wrong with a pod, the most telling first; None where nothing is.

    A server's own end without an error is no trouble, nor is a start that takes its time.

    Args:
        pod: as the API server has it.
        events: those about this pod, oldest first.
    """
    status = pod.get("status") or {}
    found = _out_of_memory(pod) or _disrupted(status)
    if found is None and status.get("phase") == "Failed":
        found = _failed(status)
    if found is None:
        found = _ended(status)
    if found is None and is_given_up(pod):
        return Trouble(*_PHASES["NodeLost"], over=True)
    if found is None and is_leaving(pod):
        return Trouble("deleted", "The server's pod is being deleted.", over=True)
    if found is None and is_unheard(pod):
        words = "The node on which the server runs does not answer at the moment."
        return Trouble("node_silent", words, over=False)
    return found or _unscheduled(status) or _waiting(status) or _from_events(pod, list(events))


def ended(pod: Pod) -> int | None:
    """The exit code of a server that is over; None while it runs, starts, or is started again in
    its place by the node. One that was given up with its node is over, whatever it still does."""
    status, main = pod.get("status") or {}, _main(pod)
    finished = (main.get("state") or {}).get("terminated")
    code = int((finished or {}).get("exitCode", 1))
    if status.get("phase") in ("Succeeded", "Failed") or is_given_up(pod):
        return code
    policy = (pod.get("spec") or {}).get("restartPolicy", "Always")
    if finished and (policy == "Never" or (policy == "OnFailure" and code == 0)):
        return code
    waiting = (main.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") == "CrashLoopBackOff" and restarts(pod) >= RESTARTS_MAX:
        return last_exit(pod)
    return None


def restarts(pod: Pod) -> int:
    """How often the main container was started again in its place."""
    return int(_main(pod).get("restartCount") or 0)


def last_exit(pod: Pod) -> int | None:
    """The exit code with which the main container has ended, also where it was started again; None
    where it never did."""
    finished = _last(_main(pod))
    return int(finished.get("exitCode", 1)) if finished else None


def last_end(pod: Pod) -> Trouble | None:
    """Why the main container has ended, also where it was started again."""
    finished = _last(_main(pod))
    return _end(pod, _main(pod), finished) if finished else None


def is_ready(pod: Pod) -> bool:
    """Whether all containers of the pod run."""
    status = pod.get("status") or {}
    found = status.get("containerStatuses") or []
    running = status.get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    return running and bool(found) and all(one.get("ready") for one in found)


def is_unheard(pod: Pod) -> bool:
    """Whether the pod's node gives no sign of life: the cluster then says that the pod is not
    ready, while the last that its kubelet has said is that all of its containers are."""
    status = pod.get("status") or {}
    said = {one.get("type"): one for one in status.get("conditions") or ()}
    ready, containers = said.get("Ready") or {}, said.get("ContainersReady") or {}
    by_the_kubelet = ready.get("reason") == "ReadinessGatesNotReady"
    silent = ready.get("status") == "False" and not by_the_kubelet
    return status.get("phase") == "Running" and silent and containers.get("status") == "True"


def is_given_up(pod: Pod) -> bool:
    """Whether a pod is not waited for any more: its end was asked for, and its node does not carry
    that out. A node that comes back ends it, so that it never serves again.

    The service asks for it after its patience (`Times.node_patience`), Kubernetes itself after the
    pod's own. So whoever looks at the pod comes to the same answer, without a clock.
    """
    return is_leaving(pod) and is_unheard(pod)


def is_leaving(pod: Pod) -> bool:
    """Whether the pod's end was asked for."""
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def node_of(pod: Pod) -> str | None:
    """The node that the pod was given to."""
    name: str | None = (pod.get("spec") or {}).get("nodeName")
    return name


def lost(pod: Pod | None) -> Trouble:
    """Why a pod that ran does not any more; None is one that is not there."""
    if pod is None:
        return vanished()
    return trouble(pod) or Trouble("crashed", f"The server has ended with code {ended(pod)}.", True)


def scheduler_words(message: str) -> str:
    """The scheduler's reason for not placing a pod."""
    known = message.partition("preemption:")[0]
    for pattern, meaning in _SCHEDULER:
        if re.search(pattern, known):
            return f"The server waits for its node: {meaning}."
    return "The server waits for its node: the cluster does not let it in yet."


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
    lower = str(status.get("message") or "").lower()
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
    return _ended(status) or Trouble("crashed", "The server has ended.", over=True)


def _out_of_memory(pod: Pod) -> Trouble | None:
    """Also where the container runs again, or tries to."""
    for container in _containers(pod.get("status") or {}):
        state, last = container.get("state") or {}, container.get("lastState") or {}
        for ended in (state.get("terminated"), "running" not in state and last.get("terminated")):
            if ended and ended.get("reason") == "OOMKilled":
                return _no_memory(pod, container, over="terminated" in state)
    return None


def _no_memory(pod: Pod, container: Pod, *, over: bool) -> Trouble:
    size = None
    for one in (pod.get("spec") or {}).get("containers") or ():
        if one.get("name") == container.get("name"):
            size = _bytes(((one.get("resources") or {}).get("limits") or {}).get("memory"))
    words = _OUT_OF_MEMORY.format(f" ({say.size(size)})" if size else "")
    return Trouble("out_of_memory", words, over)


def _bytes(quantity: Any) -> int | None:
    found = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|Ti|k|M|G|T|)", str(quantity or ""))
    return None if found is None else round(float(found[1]) * _UNITS[found[2]])


def _end(pod: Pod, container: Pod, finished: Pod) -> Trouble:
    if finished.get("reason") == "OOMKilled":
        return _no_memory(pod, container, over=True)
    return _end_of(finished)


def _ended(status: Mapping[str, Any]) -> Trouble | None:
    for container in _containers(status):
        finished = (container.get("state") or {}).get("terminated")
        if finished and finished.get("exitCode") != 0:
            return _end_of(finished)
    return None


def _end_of(finished: Pod) -> Trouble:
    known = _ENDS.get(str(finished.get("reason") or ""))
    if known is not None:
        return Trouble(*known, over=True)
    code = finished.get("exitCode")
    words = (
        "The server was killed." if code == _KILLED else f"The server has ended with code {code}."
    )
    return Trouble("crashed", words, over=True)


def _unscheduled(status: Mapping[str, Any]) -> Trouble | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            words = scheduler_words(str(condition.get("message") or ""))
            return Trouble("unschedulable", words, over=False)
    return None


def _waiting(status: Mapping[str, Any]) -> Trouble | None:
    for container in _containers(status):
        waits = (container.get("state") or {}).get("waiting") or {}
        reason, message = str(waits.get("reason") or ""), str(waits.get("message") or "").lower()
        found = _image(reason, str(container.get("image") or ""), message) or _setting(
            reason, message
        )
        if found is not None:
            return found
        if reason == "CrashLoopBackOff":
            words = "The server ends again as soon as it has started."
            return Trouble("crashed", words, over=False)
    return None


def _image(reason: str, image: str, message: str) -> Trouble | None:
    named = f"the image {image}" if image else "the image"
    if reason == "InvalidImageName":
        return Trouble("image", f"No image can have a name like that of {named}.", over=True)
    if reason == "ErrImageNeverPull":
        words = f"The node does not have {named}: it is not on the node, and must not be pulled."
        return Trouble("image", words, over=True)
    if reason not in (
        "ErrImagePull",
        "ImagePullBackOff",
        "ImageInspectError",
        "RegistryUnavailable",
    ):
        return None
    for pattern, meaning, over in _PULLS:
        if re.search(pattern, message):
            return Trouble("image", meaning.format(named), over)
    return Trouble("image", f"The node cannot pull {named} just now.", over=False)


def _setting(reason: str, message: str) -> Trouble | None:
    if reason not in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return None
    if "runasnonroot" in message or "non-numeric user" in message:
        return Trouble("image", "The image wants to run as root, which is not allowed.", over=True)
    if "executable file not found" in message or "no such file" in message:
        return Trouble("start", "The server's program is not in this image.", over=True)
    # Something that it needs may only be late: a secret that is just being made.
    words = "The server cannot be set up: something that its pod needs is missing or wrong."
    return Trouble("configuration", words, over=False)


def _from_events(pod: Pod, events: Sequence[Pod]) -> Trouble | None:
    """What only events tell; one that was followed by a success is over."""
    if "running" in (_main(pod).get("state") or {}):
        return None
    for event in reversed(events):
        match event.get("reason"):
            case "Started" | "Created" | "Pulled" | "Pulling":
                return None
            case "FailedMount" | "FailedAttachVolume" | "FailedMapVolume":
                return _mount(str(event.get("message") or "").lower())
            case "FailedCreatePodSandBox":
                words = "The server waits: its node cannot give it a network."
                return Trouble("network", words, over=False)
    return None


def _mount(message: str) -> Trouble:
    if "multi-attach" in message:
        why = "it is still attached to another node"
    elif "not found" in message:
        why = "something that is to be mounted does not exist"
    elif "no space left" in message:
        why = "the node has no space left"
    else:
        why = "the node cannot mount it yet"
    return Trouble("mount", f"The server waits for its disk: {why}.", over=False)


def _main(pod: Pod) -> Pod:
    """The status of the main container: the first one of the pod's specification."""
    found = (pod.get("status") or {}).get("containerStatuses") or []
    containers = (pod.get("spec") or {}).get("containers") or []
    name = containers[0].get("name") if containers else None
    empty: Pod = {}
    return next((one for one in found if one.get("name") == name), empty)


def _last(container: Pod) -> Pod | None:
    """How a container has ended the last time."""
    for state in ("state", "lastState"):
        finished: Pod | None = (container.get(state) or {}).get("terminated")
        if finished:
            return finished
    return None


def _containers(status: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()
