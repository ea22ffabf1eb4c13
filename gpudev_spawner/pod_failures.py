"""What becomes of pods that start: how far they are, and why they will not run.

Pure but for what `Look` remembers. Kubernetes' own messages are never passed on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubernetes_asyncio.client import ApiException

from gpudev_client import podstatus, words
from gpudev_client.pod_steps import Stage, stage
from gpudev_client.podstatus import Trouble

from .failures import ServerDied

Object = Mapping[str, Any]

#: Seconds after which, and between which, events are looked through: there are many, and what they
#: alone tell (a volume that is not attached) takes longer than that.
_EVENTS_FROM, _EVENTS_EVERY = 3.0, 2.0
#: Seconds for which a node may be in the way before it is asked whether it still is the right one.
_ASK_SOON = 3.0
_FORBIDDEN, _INVALID, _TOO_MANY = 403, 422, 429

_ADVICE: Mapping[str, str] = {
    "image": "Check the image's name, or leave it out.",
    "start": "JupyterLab and gpudev have to be in it; check the image, or leave it out.",
    "out_of_memory": "",  # the words say it
    "evicted": "Start it again.",
    "preempted": "Start it again.",
    "node_lost": "Start it again; tell an administrator if it happens twice.",
    "no_room": "Start it again; tell an administrator if it happens twice.",
    "deleted": "Start it again.",
}
_ADMIN = "An administrator finds more in the cluster's events."


class PodFailed(Exception):  # noqa: N818 - what happened
    """A pod will not run, whatever time it is given."""

    def __init__(self, trouble: Trouble, who: str) -> None:
        super().__init__(trouble.code)
        self.trouble, self.who = trouble, who


class Look:
    """What is known of the pods of one start. Rank 0 is the server's.

    Args:
        ask_every: seconds between two questions whether the nodes are still the right ones.

    Attributes:
        stage: how far the start is.
        trouble: what is in the way at the moment, and may pass.
    """

    def __init__(self, ask_every: float = math.inf) -> None:
        self._ask_every = ask_every
        self._asked: float | None = None
        self.stage: Stage | None = None
        self.trouble: Trouble | None = None
        self._seen: set[int] = set()
        self._began: float | None = None
        self._events_at = 0.0

    def at(
        self,
        pods: Sequence[Object | None],
        nodes: Sequence[str],
        events_of: Callable[[Object | None], Sequence[Object]],
        now: float,
    ) -> bool:
        """Takes in the pods as they are, by rank; whether there is something new to say.

        Args:
            pods: as the watch has them; None where there is none.
            nodes: where they are planned.
            events_of: the events about a pod.
            now: seconds of a monotonic clock.

        Raises:
            PodFailed: one of them will not run.
        """
        before, self.trouble = (self.stage, self.trouble), None
        with_events = self._with_events(now)
        for rank, pod in enumerate(pods):
            self._one(rank, pod, nodes[rank], events_of if with_events else _none)
        if with_events or self.stage is None or self.trouble is None:
            self.stage = _stage(pods, events_of if with_events else _none, self.stage)
        return (self.stage, self.trouble) != before

    def asks(self, now: float) -> bool:
        """Whether it is time to ask if the nodes can still take the pods, which do not tell of a
        node that is gone or silent: each `ask_every` seconds, and sooner where one is in the way.

        Args:
            now: seconds of a monotonic clock.
        """
        since = now if self._asked is None else self._asked
        in_the_way = self.trouble is not None and self.trouble.by_the_node
        due = now - since >= min(self._ask_every, _ASK_SOON if in_the_way else math.inf)
        if due or self._asked is None:
            self._asked = now
        return due

    def _one(
        self,
        rank: int,
        pod: Object | None,
        node: str,
        events_of: Callable[[Object | None], Sequence[Object]],
    ) -> None:
        who = "The server" if rank == 0 else f"The worker on {node}"
        if pod is None:
            if rank in self._seen:
                raise PodFailed(podstatus.vanished(), who)
            return
        self._seen.add(rank)
        if podstatus.is_ready(pod) and not podstatus.restarts(pod):
            return
        found = podstatus.trouble(pod, events_of(pod)) or podstatus.last_end(pod)
        if found is not None and found.over:
            raise PodFailed(found, who)
        self.trouble = self.trouble or found

    def _with_events(self, now: float) -> bool:
        self._began = now if self._began is None else self._began
        if now - self._began < _EVENTS_FROM or now - self._events_at < _EVENTS_EVERY:
            return False
        self._events_at = now
        return True


def reason(error: Exception, look: Look | None, pod: Object | None, limit: float) -> str | None:
    """Why a start has failed, for its owner; None for words that fit everything.

    Args:
        error: what it failed with.
        look: what was known of it.
        pod: the server's, if it is still there.
        limit: seconds that it had.
    """
    if isinstance(error, PodFailed):
        return f"{error.who} did not start. {_advised(error.trouble, error.who)}"
    if isinstance(error, ServerDied) and pod is not None:
        found = podstatus.trouble(pod) or podstatus.last_end(pod)
        return None if found is None else f"The server did not start. {_advised(found)}"
    if isinstance(error, TimeoutError):
        return _late(look, limit)
    if isinstance(error, ApiException):
        return _refused(error)
    return None


def _advised(trouble: Trouble, who: str = "The server") -> str:
    return f"{trouble.about(who)} {_ADVICE.get(trouble.code, _ADMIN)}".strip()


def _late(look: Look | None, limit: float) -> str | None:
    late = f"The server was not up within {limit:g} seconds"
    if look is not None and look.trouble is not None:
        return f"{late}. {_advised(look.trouble)}"
    if look is not None and look.stage is not None:
        return f"{late}; it was at: {look.stage.words}. {_ADMIN}"
    return None


def _refused(error: ApiException) -> str | None:
    """The cluster's no to a pod. Its text is for administrators and stands in the Hub's log."""
    body = error.body or ""
    said = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    if error.status == _FORBIDDEN and "exceeded quota" in said:
        return (
            "The cluster's quota for this Hub is used up. Try again when others have stopped, or "
            "ask an administrator."
        )
    if error.status == _FORBIDDEN and "violates PodSecurity" in said:
        return (
            "The cluster does not allow a server with these settings here. An administrator "
            "finds the setting at fault in the Hub's log."
        )
    if error.status in (_FORBIDDEN, _INVALID):
        return "The cluster refused the server's pod. An administrator finds why in the Hub's log."
    return None


def _stage(
    pods: Sequence[Object | None],
    events_of: Callable[[Object | None], Sequence[Object]],
    before: Stage | None,
) -> Stage:
    first = pods[0]
    now = stage(first, events_of(first))
    waited = sum(1 for pod in pods[1:] if pod is None or not podstatus.is_ready(pod))
    if first is not None and podstatus.is_ready(first) and waited:
        return Stage(f"waiting for {words.counted(waited, 'more node')}", 75)
    # Without events the pulling of an image looks like any other preparation.
    if events_of is _none and before is not None and before.progress > now.progress:
        return before if first is not None and not podstatus.is_ready(first) else now
    return now


def _none(pod: Object | None) -> Sequence[Object]:
    return ()
