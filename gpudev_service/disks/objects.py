"""The objects of the cluster that disks are made of, over the API server.

Verbs used, all in the namespace of the servers unless said otherwise: persistentvolumeclaims get,
list, create, patch, delete; volumesnapshots get, list, create, patch, delete; pods get, list,
create, delete and pods/log get (for the pods that list snapshots); events list; of the cluster
persistentvolumes get, storageclasses get and nodes list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gpudev_client.kubernetes import LABEL_DISK, LABEL_MANAGED, LABEL_STATE, MANAGED_BY
from gpudev_service.disks.base import DiskBusy, DiskError, DiskFailure, DiskFull, NoSnapshots
from gpudev_service.disks.claims import SNAPSHOT_GROUP, Claim, State, Taken, claim, taken
from gpudev_service.disks.reach import first_near, reach_of
from gpudev_service.kube import KubeAway, KubeRefused

if TYPE_CHECKING:
    from gpudev_service.kube.connection import Kube

log = logging.getLogger(__name__)

T = TypeVar("T")
Object = dict[str, Any]

_PAGE = 500
_GONE, _CONFLICT = 404, 409
#: What is asked for may well not be there, or be there already: no answer for the log.
_EXPECTED = frozenset({_GONE, _CONFLICT})
#: A 409 of a name that is taken; others say that something changed meanwhile, as quotas do.
_EXISTS = "AlreadyExists"
#: Part of the message by which a namespace's quota refuses.
_QUOTA = "exceeded quota"
#: Between calls that the API server did not answer, in seconds.
_PAUSES = (0.5, 2.0)
#: Seconds that reading a log of a few megabytes may take.
_LOG_PATIENCE = 120.0


class Refused(DiskFailure):
    """The API server said no. A failure like those of storage, so that whoever handles these
    handles it too; `said` are the API server's own words, which are for the log."""

    def __init__(self, status: int, reason: str, said: str) -> None:
        super().__init__(
            "The cluster refused what has to be done for it. Your operators find the reason in the "
            "log."
        )
        self.status, self.reason, self.said = status, reason, said

    def told(self, what: str) -> DiskError:
        """The same with what was refused."""
        if self.status in _EXPECTED:
            log.warning("the cluster refused %s: %s", what, self.said)
        if _QUOTA in self.said:
            return DiskFull(f"There is no room left for {what}: the cluster's quota is used up.")
        return DiskFailure(
            f"The cluster refused {what}. Your operators find the reason in the log."
        )

    @property
    def is_gone(self) -> bool:
        return self.status == _GONE

    @property
    def is_conflict(self) -> bool:
        return self.status == _CONFLICT


class Objects:
    """Claims, snapshots and pods of one namespace, in the values of `claims`."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        here = f"/namespaces/{namespace}"
        self._claims = f"/api/v1{here}/persistentvolumeclaims"
        self._pods = f"/api/v1{here}/pods"
        self._events = f"/api/v1{here}/events"
        self._snapshots = f"/apis/{SNAPSHOT_GROUP}/v1{here}/volumesnapshots"

    # --- claims -----------------------------------------------------------------------------------

    async def claims(self, disk_id: str | None = None) -> list[Claim]:
        """All claims of a disk, or of all disks; those of pods of ours too, which name no disk."""
        return [claim(found) for found in await self._list(self._claims, disk_id)]

    async def claim(self, name: str) -> Claim | None:
        found = await self._get(f"{self._claims}/{name}")
        return None if found is None else claim(found)

    async def create_claim(self, manifest: Object) -> Claim:
        """Raises Refused, with `is_conflict` where there is one of that name."""
        return claim(await self._create(self._claims, manifest))

    async def patch_claim(
        self,
        name: str,
        *,
        version: str | None = None,
        state: State | None = None,
        notes: Mapping[str, str] | None = None,
        size_bytes: int | None = None,
    ) -> Claim:
        """Changes a claim; with `version` only if it is still that one, else Refused."""
        meta: Object = {}
        if version is not None:
            meta["resourceVersion"] = version
        if state is not None:
            meta["labels"] = {LABEL_STATE: str(state)}
        if notes is not None:
            meta["annotations"] = dict(notes)
        body: Object = {"metadata": meta}
        if size_bytes is not None:
            body["spec"] = {"resources": {"requests": {"storage": str(size_bytes)}}}
        return claim(await self._patch(f"{self._claims}/{name}", body))

    async def delete_claim(self, name: str, version: str | None = None) -> None:
        """Asks for its removal; one that is gone, or has another version, is left alone."""
        await self._delete(f"{self._claims}/{name}", version)

    async def trouble(self, name: str) -> str | None:
        """The newest warning about a claim, in the storage's words."""
        about = f"involvedObject.kind=PersistentVolumeClaim,involvedObject.name={name},type=Warning"
        found = await self._pages(self._events, fields=about)
        found.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return str(found[-1].get("message") or "") if found else None

    async def volume(self, name: str) -> Object | None:
        return await self._get(f"/api/v1/persistentvolumes/{name}")

    async def waits_for_first_user(self, storage_class: str | None) -> bool:
        """Whether volumes of the class are made only when something uses them."""
        if storage_class is None:
            return False
        found = await self._get(f"/apis/storage.k8s.io/v1/storageclasses/{storage_class}")
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    async def node_near(self, claim: Claim) -> str | None:
        """A node that can use the claim's volume, where the class waits for somebody to choose one:
        so a restored disk stays where it was, and has its bytes before the old state goes."""
        if not await self.waits_for_first_user(claim.storage_class):
            return None
        volume = await self.volume(claim.volume) if claim.volume else None
        reach = None if volume is None else reach_of(volume)
        return first_near(await self._pages("/api/v1/nodes"), reach)

    # --- snapshots --------------------------------------------------------------------------------

    async def require_snapshots(self) -> None:
        """Raises NoSnapshots where the cluster has no such objects."""
        try:
            await self._tried(partial(self._kube.get, self._snapshots, {"limit": "1"}))
        except Refused as refused:
            if refused.is_gone:
                raise no_snapshots() from refused
            raise

    async def snapshots(self, disk_id: str | None = None) -> list[Taken]:
        """All snapshots of a disk, or of all; none where the cluster has no such objects."""
        try:
            found = await self._list(self._snapshots, disk_id)
        except Refused as refused:
            if refused.is_gone:
                return []
            raise
        return [taken(each) for each in found]

    async def snapshot(self, name: str) -> Taken | None:
        found = await self._get(f"{self._snapshots}/{name}")
        return None if found is None else taken(found)

    async def create_snapshot(self, manifest: Object) -> Taken:
        """Raises NoSnapshots where the cluster has no such objects."""
        try:
            return taken(await self._create(self._snapshots, manifest))
        except Refused as refused:
            if refused.is_gone:
                raise no_snapshots() from refused
            raise

    async def patch_snapshot(
        self, name: str, *, state: State | None = None, notes: Mapping[str, str] | None = None
    ) -> None:
        meta: Object = {}
        if state is not None:
            meta["labels"] = {LABEL_STATE: str(state)}
        if notes is not None:
            meta["annotations"] = dict(notes)
        await self._patch(f"{self._snapshots}/{name}", {"metadata": meta})

    async def delete_snapshot(self, name: str) -> None:
        await self._delete(f"{self._snapshots}/{name}", None)

    # --- pods -------------------------------------------------------------------------------------

    async def create_pod(self, manifest: Object) -> Object:
        return await self._create(self._pods, manifest)

    async def pod(self, name: str) -> Object | None:
        return await self._get(f"{self._pods}/{name}")

    async def pods(self, state: State) -> list[Object]:
        return await self._pages(self._pods, f"{LABEL_MANAGED}={MANAGED_BY},{LABEL_STATE}={state}")

    async def log(self, name: str, most: int) -> str:
        """What the pod's only container has written, up to `most` bytes."""

        async def read() -> str:
            asked = {"limitBytes": most}
            async with self._kube.lines(f"{self._pods}/{name}/log", asked) as lines:
                async with asyncio.timeout(_LOG_PATIENCE):
                    return b"".join([line async for line in lines]).decode()

        try:
            return await self._tried(read)
        except TimeoutError as late:
            raise DiskBusy("the cluster does not hand over the listing in time") from late

    async def delete_pod(self, name: str) -> None:
        await self._delete(f"{self._pods}/{name}", None)

    # --- calls ------------------------------------------------------------------------------------

    async def _list(self, path: str, disk_id: str | None) -> list[Object]:
        selector = f"{LABEL_MANAGED}={MANAGED_BY}"
        return await self._pages(
            path, selector if disk_id is None else f"{selector},{LABEL_DISK}={disk_id}"
        )

    async def _pages(self, path: str, labels: str = "", fields: str = "") -> list[Object]:
        items: list[Object] = []
        following = ""
        while True:
            query = {
                "limit": str(_PAGE),
                "labelSelector": labels,
                "fieldSelector": fields,
                "continue": following,
            }
            asked = {key: value for key, value in query.items() if value}
            page = await self._tried(partial(self._kube.get, path, asked))
            items += page["items"]
            following = page["metadata"].get("continue") or ""
            if not following:
                return items

    async def _get(self, path: str) -> Object | None:
        try:
            return await self._tried(partial(self._kube.get, path))
        except Refused as refused:
            if refused.is_gone:
                return None
            raise

    async def _create(self, path: str, manifest: Object) -> Object:
        # Not tried again: whether an answer that was lost had made it is the caller's to find out.
        try:
            return await self._told(partial(self._kube.create, path, manifest))
        except Refused as refused:
            if refused.is_conflict and refused.reason != _EXISTS:
                raise DiskBusy("the cluster is busy with other changes; try again later") from None
            raise

    async def _patch(self, path: str, change: Object) -> Object:
        return await self._tried(partial(self._kube.patch, path, change))

    async def _delete(self, path: str, version: str | None) -> None:
        options: Object = {"propagationPolicy": "Background"}
        if version is not None:
            options["preconditions"] = {"resourceVersion": version}
        try:
            await self._tried(partial(self._kube.delete, path, options))
        except Refused as refused:
            if not refused.is_conflict:
                raise

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call that may be repeated, a few times: an API server that begins anew is away for a
        moment."""
        for pause in _PAUSES:
            try:
                return await self._told(call)
            except DiskBusy:
                await asyncio.sleep(pause)
        return await self._told(call)

    async def _told(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call with its errors as they are known here.

        Raises:
            Refused: the API server said no.
            DiskBusy: it cannot be reached.
        """
        try:
            return await call()
        except KubeAway as away:
            raise DiskBusy("the cluster does not answer at the moment; try again later") from away
        except KubeRefused as refusal:
            if refusal.status not in _EXPECTED:
                log.warning("the cluster refused: %s", refusal)
            raise Refused(refusal.status, refusal.reason, str(refusal)) from refusal


def no_snapshots() -> NoSnapshots:
    return NoSnapshots("This cluster takes no snapshots of disks.")
