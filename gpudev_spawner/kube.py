"""Servers as pods of a Kubernetes cluster.

Everything that operators configure on KubeSpawner works; a reservation adds to the pod that these
settings make (`manifest`). The form is gpudev's. `profile_list` adds settings by GPU type: the
profile whose slug is the type's name is applied, else the one that is marked as the default. People
do not choose it, so a start by the service and one after a restart of the Hub are the same.

What this needs of the Kubernetes API stands in `pods` and `workers`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jupyterhub.utils import maybe_future
from kubernetes_asyncio.client import V1Pod
from traitlets import Bool, Float, List, TraitError, Unicode, validate

from gpudev_client import kubernetes as names
from gpudev_client import pod_steps, podstatus
from gpudev_client.models import Milestone, PodLaunch, ServerLaunch, ServerReport

from . import gang, manifest, moves, pod_failures
from .mixin import GpuDevMixin
from .pods import Pods
from .progress import Phase
from .refusals import SpawnRefused


class GpuDevKubeSpawner(GpuDevMixin, Pods):
    """Reservations whose servers are pods."""

    read_only_root = Bool(
        True,
        help="""Whether servers may write to their home, /tmp and what else is mounted, and nowhere
        else. What people install then goes to their home, and is there in the next lease.""",
    ).tag(config=True)

    shared_memory = Bool(
        True,
        help="""Whether /dev/shm may be as large as the pod's memory (it counts as memory), and not
        64 MB, which is too little for data loaders.""",
    ).tag(config=True)

    shared_path = Unicode(
        "/shared",
        help="Where a volume that several nodes share is mounted, for types that have one.",
    ).tag(config=True)

    profiling_capabilities = List(
        Unicode(),
        ["SYS_ADMIN"],
        help="""Linux capabilities of servers on GPU types that allow profiling. A process that is
        not root gets them by a program's file capabilities only; letting everybody read the
        counters by the driver's option NVreg_RestrictProfilingToAdminUsers=0 is simpler.""",
    ).tag(config=True)

    service_url_in_pods = Unicode(
        help="""Address of the reservation service as servers reach it, with its prefix. Empty: the
        one that the service gives."""
    ).tag(config=True)

    stop_timeout = Float(
        60.0,
        help="""Seconds that pods may take to go when a server is stopped. What is there then (its
        node does not answer, for example) is left to the service, which verifies the end of every
        lease.""",
    ).tag(config=True)

    look_interval = Float(
        0.5, help="Seconds between two looks at a pod that starts; the cluster is not asked."
    ).tag(config=True)

    ask_interval = Float(
        20.0,
        help="""Seconds between two questions, while a pod starts, whether its node can still take
        it. Where it cannot, the reservation is planned again and keeps its place. Where the pod
        itself says that its node is in the way, it is asked sooner.""",
    ).tag(config=True)

    _look: pod_failures.Look | None = None
    _steps_done: list[Milestone]
    _restarts = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._steps_done = []
        self._gang = gang.Gang(self)

    @validate("enable_user_namespaces")
    def _one_namespace(self, proposal: Any) -> bool:
        if proposal["value"]:
            raise TraitError(
                "gpudev keeps servers and disks in one namespace: enable_user_namespaces is not "
                "possible with it"
            )
        return False

    # --- what the mixin asks ------------------------------------------------------------------

    async def apply_launch(self, launch: ServerLaunch) -> None:
        plan, key = self._plan(launch), launch.reservation.id
        self._steps_done, self._restarts = [], 0
        self._look = pod_failures.Look(self.ask_interval)
        self.pod_name = names.worker_name(key, 0)
        self.dns_name = self.dns_name_template.format(namespace=self.namespace, name=self.pod_name)
        await self.watching()
        # A Hub that was killed during a start has forgotten its pods, and two servers must not
        # share the GPUs of one lease. Of a reservation that this start has made there are none.
        if not self._new and not await self._gang.end(key, len(plan.nodes), grace=0):
            raise SpawnRefused(
                "What an earlier start has left does not go. Tell an administrator.", status=409
            )

    async def run_server(self) -> Any:
        """The pods of the reservation; ends as soon as it is known that they will not run."""
        launch = self._launch
        assert launch is not None and launch.pods is not None  # noqa: PT018, S101 - apply_launch
        assert self._look is not None  # noqa: S101 - the same
        starting = asyncio.ensure_future(super().run_server())
        beside = asyncio.create_task(self._gang.start(launch.reservation.id, launch.pods))
        try:
            while not (starting.done() and beside.done()):
                running = [task for task in (starting, beside) if not task.done()]
                await asyncio.wait(
                    running, timeout=self.look_interval, return_when=asyncio.FIRST_COMPLETED
                )
                for task in (starting, beside):
                    if task.done():
                        await task  # its failure is the start's
                if self.sees_pods:
                    self._look_at(launch.reservation.id, launch.pods)
                if self._look.asks(asyncio.get_running_loop().time()):
                    await moves.check(self.connection, launch.reservation)
        finally:
            for task in (starting, beside):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        self._note_steps(launch.pods)
        return starting.result()

    def server_handle(self) -> dict[str, str | int | float]:
        pod = self.pod_named(self.pod_name)
        return {
            "kind": "pod",
            "namespace": self.namespace,
            "name": self.pod_name,
            "uid": "" if pod is None else str(pod["metadata"]["uid"]),
        }

    def failure_reason(self, error: Exception) -> str | None:
        return pod_failures.reason(error, self._look, self.pod_named(self.pod_name), self._limit)

    def is_by_the_node(self, error: Exception) -> bool:
        return isinstance(error, pod_failures.PodFailed) and error.trouble.by_the_node

    def stage(self) -> pod_steps.Stage | None:
        return None if self._look is None else self._look.stage

    def milestones(self) -> list[Milestone]:
        return self._steps_done

    # --- the pod ------------------------------------------------------------------------------

    async def get_pod_manifest(self) -> V1Pod:
        """The server's pod; without a reservation what KubeSpawner makes."""
        return await self.rank_pod(0)

    async def rank_pod(self, rank: int) -> V1Pod:
        """The pod of one rank, before the operator's `modify_pod_hook`."""
        pod: V1Pod = await super().get_pod_manifest()
        if self._launch is None:
            return pod
        plan, key = self._plan(self._launch), self._launch.reservation.id
        document = manifest.placed(self.plain(pod), key, plan, self._settings(), rank)
        return self.typed(gang.joined(document, key, plan, rank))

    def get_env(self) -> dict[str, Any]:
        env = manifest.without_devices(super().get_env())
        env["GPUDEV_POD"] = "1"
        if self.service_url_in_pods and "GPUDEV_URL" in env:
            env["GPUDEV_URL"] = self.service_url_in_pods.rstrip("/")
        return env

    def get_service_manifest(self, owner_reference: Any, port: int) -> Any:
        """Of several pods the server's alone."""
        service = super().get_service_manifest(owner_reference, port)
        service.spec.selector = {**service.spec.selector, names.LABEL_RANK: "0"}
        return service

    async def load_user_options(self) -> None:
        """The profile of the GPU type. Options are a reservation's, not a profile's, whatever they
        are called."""
        given, self.user_options = self.user_options, {}
        try:
            profiles = self._sorted_dict_values(self.profile_list)
            if callable(profiles):
                profiles = await maybe_future(profiles(self))
            profiles = self._get_initialized_profile_list(profiles)
            kind = None if self._launch is None else self._launch.reservation.gpu_type
            slug = next((one["slug"] for one in profiles or [] if one["slug"] == kind), None)
            if profiles:
                self._load_profile(slug, profiles)
        finally:
            self.user_options = given

    def _settings(self) -> manifest.Settings:
        return manifest.Settings(
            home=(self._launch and self._launch.home) or names.POD_HOME,
            read_only_root=self.read_only_root,
            shared_memory=self.shared_memory,
            shared_path=self.shared_path,
            profiling_capabilities=tuple(self.profiling_capabilities),
        )

    def _plan(self, launch: ServerLaunch) -> PodLaunch:
        if launch.pods is None:
            raise SpawnRefused(
                "The reservation service is not set up for servers as pods. An administrator can "
                "change that: `fleet` of the service, or `spawner_class` of the Hub.",
                status=409,
            )
        return launch.pods

    # --- watching -----------------------------------------------------------------------------

    def _look_at(self, key: str, plan: PodLaunch) -> None:
        """What has changed with the pods since the last look.

        Raises:
            PodFailed: waiting does not help any more.
        """
        assert self._look is not None  # noqa: S101 - set by apply_launch
        pods = [self.pod_named(names.worker_name(key, rank)) for rank in range(len(plan.nodes))]
        if self._look.at(pods, plan.nodes, self.events_of, asyncio.get_running_loop().time()):
            self._move(self._phase)

    def _note_steps(self, plan: PodLaunch) -> None:
        pod = self.pod_named(self.pod_name)
        if pod is not None:
            self._steps_done = pod_steps.milestones(pod, self.events_of(pod))
        if len(plan.nodes) > 1:
            self._steps_done.append(Milestone(step="workers", at=datetime.now(UTC)))

    async def poll(self) -> int | None:
        """None while the server runs. One that ends before it was ready has failed, though its node
        would start it again."""
        status = await super().poll()
        reservation, pod = self._reservation, self.pod_named(self.pod_name)
        if self._phase is Phase.STARTING and status is None and pod is not None:
            return podstatus.last_exit(pod)
        if reservation is not None and self._phase is Phase.UP and self.sees_pods:
            for sentence in self._gang.news(reservation):
                report = ServerReport(status="note", message=sentence)
                self.connection.later(self.connection.report(reservation.id, report))
        return status

    async def stop(self, now: bool = False) -> None:
        if asyncio.current_task() is self._start_future:
            # KubeSpawner cleans up behind a start that fails; nobody has given anything back.
            await Pods.stop(self, now)
            return
        await super().stop(now)

    async def end_pods(self, pods: list[str], grace: int) -> bool:
        """With the server's pod go all of its reservation's."""
        reservation = self._reservation
        own = reservation is not None and self.pod_name == names.worker_name(reservation.id, 0)
        if reservation is None or not own:
            return await super().end_pods(pods, grace)
        return await self._gang.end(reservation.id, reservation.nodes, grace)

    # --- across restarts of the Hub -----------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "gpudev_gang": self._gang.told()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._gang.remember(state.get("gpudev_gang") or {})

    def clear_state(self) -> None:
        super().clear_state()
        self._gang.remember({})
