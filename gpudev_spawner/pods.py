"""KubeSpawner with what a lease needs of it, and nothing of reservations.

Its shared view of the cluster is begun anew when it has died, a stop has a bound, no refused pod is
written into the log (it holds a token), and a pod that ended by itself is only looked at: nobody
has stopped it.

Needs of the Kubernetes API, in the servers' namespace: pods get, list, watch, create, delete;
events list, watch.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any

from aiohttp import ClientConnectionError
from kubernetes_asyncio.client import ApiException, V1Pod
from kubespawner.clients import shared_client
from kubespawner.spawner import KubeSpawner
from traitlets import Bool, default

from gpudev_client import podstatus
from gpudev_client.pod_steps import event_time

Object = Mapping[str, Any]

CONFLICT, NOT_FOUND, TOO_MANY = 409, 404, 429
_SERVER_FAULT = 500
#: Seconds between two looks at pods that should go: at the cluster, and at what its watch has told,
#: which costs nothing while the next in line waits for their GPUs.
_ROUND, _GLANCE = 0.2, 0.05
#: Seconds between two tries to reach the API server, at most.
_PAUSE = 5.0


class Pods(KubeSpawner):
    """One person's pod, and whatever else carries a label of its own."""

    # Disks are the service's: nothing is made or removed here by a server's name.
    storage_pvc_ensure = Bool(False).tag(config=True)
    delete_pvc = Bool(False).tag(config=True)

    #: Seconds that pods may take to go when a server is stopped.
    stop_timeout: float

    @default("cmd")
    def _default_cmd(self) -> list[str]:
        # An image's own command would not be given the arguments.
        return ["jupyterhub-singleuser"]

    @default("uid")
    def _default_uid(self) -> int:
        return 1000

    @default("fs_gid")
    def _default_fs_gid(self) -> int:
        return 100

    # --- what is there ------------------------------------------------------------------------

    async def watching(self) -> None:
        """Sees to it that the shared watches live. KubeSpawner's give up after a minute of
        failures, and the Hub would go on with what they had last seen.

        Raises whatever the API server's absence raises; what was seen last is kept then, since a
        new watch that has seen nothing would say that nothing is there.
        """
        for kind, start in (
            ("pods", self._start_watching_pods),
            ("events", self._start_watching_events),
        ):
            if kind == "events" and not self.events_enabled:
                continue
            key = self._get_reflector_key(kind)
            known = self.reflectors.get(key)
            if known is None or not _has_died(known):
                await start()
                continue
            await self._reach_api()
            try:
                await start(replace=True)
            except BaseException:
                self.reflectors[key] = known
                raise

    async def _reach_api(self) -> None:
        """Returns if the API server answers."""
        answer = await self.api.list_namespaced_pod(
            self.namespace,
            limit=1,
            _request_timeout=self.k8s_api_request_timeout,
            _preload_content=False,
        )
        answer.release()
        if not answer.ok:
            raise ApiException(status=answer.status, reason=answer.reason)

    @property
    def sees_pods(self) -> bool:
        """Whether what the watch has is what there is: it lives."""
        known = self.reflectors.get(self._get_reflector_key("pods"))
        return known is not None and not _has_died(known)

    def pod_named(self, name: str) -> Object | None:
        """A pod as the watch has seen it last."""
        reflector = self.pod_reflector
        if reflector is None:
            return None
        found: Object | None = reflector.pods.get(f"{self.namespace}/{name}")
        return found

    def events_of(self, pod: Object | None) -> list[Object]:
        """The events about one pod (this very one, not an earlier one of its name), oldest
        first."""
        if pod is None or self.event_reflector is None:
            return []
        uid = pod["metadata"]["uid"]
        found = [
            event
            for event in list(self.event_reflector.resources.values())
            if event["involvedObject"].get("uid") == uid
        ]
        return sorted(found, key=event_time)

    # --- two forms of a pod -------------------------------------------------------------------

    def plain(self, pod: V1Pod) -> dict[str, Any]:
        """A pod in the API's own form. KubeSpawner mixes that with the client's objects."""
        document: dict[str, Any] = self.api.api_client.sanitize_for_serialization(pod)
        return document

    def typed(self, document: dict[str, Any]) -> V1Pod:
        """The client's objects, as hooks know them; security contexts stay as they are, for what
        the client does not know in them."""
        answer = SimpleNamespace(data=json.dumps(document))
        pod: V1Pod = self.api.api_client.deserialize(answer, "V1Pod")
        spec, given = pod.spec, document["spec"]
        spec.security_context = given.get("securityContext")
        for typed, plain in (
            *zip(spec.init_containers or [], given.get("initContainers", []), strict=True),
            *zip(spec.containers, given["containers"], strict=True),
        ):
            typed.security_context = plain.get("securityContext")
        return pod

    # --- making and ending --------------------------------------------------------------------

    async def _make_create_pod_request(self, pod: V1Pod, request_timeout: float) -> bool:
        """One try; False asks for another one. A pod of this name is ours, from a try whose answer
        was lost: earlier ones were removed before."""
        try:
            async with asyncio.timeout(request_timeout):
                await self.api.create_namespaced_pod(self.namespace, pod)
        except TimeoutError:
            return False
        except ClientConnectionError as error:
            self.log.warning("pod %s: %s, trying again", pod.metadata.name, _why(error))
            return False
        except ApiException as error:
            if error.status == CONFLICT:
                return True
            if _is_passing(error):
                self.log.warning("pod %s: %s, trying again", pod.metadata.name, error.reason)
                return False
            raise
        return True

    async def poll(self) -> int | None:
        """None while the pod runs, starts or is started again by its node; else its exit code.
        While the cluster cannot be asked, what ran is taken to run: a server that the Hub believes
        dead loses its route and its token."""
        try:
            await self.watching()
        except (TimeoutError, ClientConnectionError, ApiException) as error:
            if isinstance(error, ApiException) and not _is_passing(error):
                raise
            self.log.warning("%s: the cluster's API: %s", self._log_name, _why(error))
            return None
        pod = self.pod_named(self.pod_name)
        if pod is None:
            return 1
        code = podstatus.ended(pod)
        if code is not None or (pod["status"].get("phase") != "Pending" and _is_between(pod)):
            return code
        if self._start_pending or self._stop_pending:
            # KubeSpawner would also compare the pod's address with the server's, which the Hub is
            # not told before a start is over, and write down and warn of a change that is none.
            return None
        status: int | None = await super().poll()
        return status

    async def stop(self, now: bool = False) -> None:
        """Ends the pod; returns when it is gone, or after `stop_timeout`."""
        await self.watching()
        await self.end_pods([self.pod_name], 0 if now else self.delete_grace_period)

    async def end_pods(self, pods: list[str], grace: int) -> bool:
        """What a stop ends; a subclass may have more to end than one pod."""
        return await self.delete_pods(pods, grace)

    async def delete_pods(self, pods: list[str], grace: int) -> bool:
        """Deletes pods and waits until they are gone; False where that takes too long."""
        there = [
            name
            for name in pods
            if await self.delete_object("pod", name, grace_period_seconds=grace)
        ]
        try:
            async with asyncio.timeout(self.stop_timeout):
                for name in there:
                    await self._gone(name)
        except TimeoutError:
            self.log.warning("%s: pods do not go: %s", self._log_name, ", ".join(there))
            await self._start_watching_pods(replace=True)
            return all(self.pod_named(name) is None for name in pods)
        return True

    async def _gone(self, name: str) -> None:
        """Returns when the watch does not have the pod any more, and the cluster says so too: the
        watch may not have known it yet."""
        while True:
            if self.pod_named(name) is not None:
                await asyncio.sleep(_GLANCE)
            elif await self._exists(name):
                await asyncio.sleep(_ROUND)
            else:
                return

    async def _exists(self, name: str) -> bool:
        try:
            await self._call_api(self.api.read_namespaced_pod, name, self.namespace)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

    async def create_object(self, kind: str, document: dict[str, Any]) -> None:
        """Makes an object; one of its name is ours, from a try whose answer was lost."""
        make = getattr(self._api_of(kind), f"create_namespaced_{kind}")
        try:
            await self._call_api(make, self.namespace, document)
        except ApiException as error:
            if error.status != CONFLICT:
                raise

    async def delete_object(self, kind: str, name: str, **options: Any) -> bool:
        """Asks for the end of an object; False where there is none."""
        end = getattr(self._api_of(kind), f"delete_namespaced_{kind}")
        try:
            await self._call_api(end, name, self.namespace, **options)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

    async def _call_api(self, call: Any, *given: Any, **options: Any) -> None:
        """Several tries where the API does not answer, is not there (it may be starting again) or
        is busy, none after it said no."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.k8s_api_request_retry_timeout
        for attempt in count(1):
            try:
                async with asyncio.timeout(self.k8s_api_request_timeout):
                    await call(*given, **options)
            except (TimeoutError, ClientConnectionError, ApiException) as error:
                if isinstance(error, ApiException) and not _is_passing(error):
                    raise
                # A refusal comes at once; whoever gave no answer has been waited for.
                pause = 0.0 if isinstance(error, TimeoutError) else min(attempt * _ROUND, _PAUSE)
                if clock() + pause >= deadline:
                    raise
                self.log.warning("the cluster's API: %s, trying again", _why(error))
                await asyncio.sleep(pause)
            else:
                return

    def _api_of(self, kind: str) -> Any:
        return shared_client("NetworkingV1Api") if kind == "network_policy" else self.api


def _has_died(reflector: Any) -> bool:
    """Whether a watch has ended, or has never begun: its first look has failed."""
    first, task = reflector.first_load_future, reflector.watch_task
    return bool(first.done() and (task is None or task.done()))


def _is_passing(error: ApiException) -> bool:
    return error.status == TOO_MANY or (error.status or 0) >= _SERVER_FAULT


def _why(error: Exception) -> str:
    """Not the text of an answer: it may have the pod in it."""
    return str(error.reason) if isinstance(error, ApiException) else repr(error)


def _is_between(pod: Object) -> bool:
    """Whether the main container has ended and its node starts it again."""
    found = pod["status"].get("containerStatuses") or []
    return not found or any("running" not in (one.get("state") or {}) for one in found)
