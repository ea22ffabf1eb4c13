"""Folders that all pods of a reservation see: one volume for a lease of several nodes.

The claim lives as long as the lease: a server that is started again finds what was there, and with
the lease it goes, unlike the disk. `ReadWriteMany`, so the class has to be one that several nodes
can mount at once.

Verbs that this needs, in the namespace of the servers: `persistentvolumeclaims`: create, list,
delete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gpudev_client.kubernetes import LABEL_MANAGED, LABEL_RESERVATION, MANAGED_BY, shared_name
from gpudev_service.kube import KubeRefused

if TYPE_CHECKING:
    from gpudev_service.kube.connection import Kube

_CONFLICT = 409


class SharedFolders:
    """The claims of one namespace, all of one storage class."""

    def __init__(self, kube: Kube, namespace: str, storage_class: str, size_gb: int) -> None:
        self._kube = kube
        self._class, self._size_gb = storage_class, size_gb
        self._path = f"/api/v1/namespaces/{quote(namespace, safe='')}/persistentvolumeclaims"

    async def ensure(self, reservation_id: str) -> str:
        """The name of the reservation's claim, which is made where it is not there.

        Raises:
            KubeAway, KubeRefused: it could not be made.
        """
        name = shared_name(reservation_id)
        try:
            await self._kube.create(self._path, self._manifest(reservation_id, name))
        except KubeRefused as refusal:
            if refusal.status != _CONFLICT:
                raise
        return name

    async def remove(self, reservation_id: str) -> None:
        """Asks for the removal of a reservation's claim, if there is one; pods that still use it
        keep it until they are gone.

        Raises:
            KubeAway, KubeRefused: it could not be asked for.
        """
        await self._kube.delete(f"{self._path}/{shared_name(reservation_id)}")

    async def reservations(self) -> set[str]:
        """Whose claims there are.

        Raises:
            KubeAway, KubeRefused: they could not be listed.
        """
        selector = f"{LABEL_MANAGED}={MANAGED_BY},{LABEL_RESERVATION}"
        found = await self._kube.get(self._path, {"labelSelector": selector})
        return {item["metadata"]["labels"][LABEL_RESERVATION] for item in found.get("items") or ()}

    def _manifest(self, reservation_id: str, name: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name,
                "labels": {LABEL_MANAGED: MANAGED_BY, LABEL_RESERVATION: reservation_id},
            },
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": self._class,
                "resources": {"requests": {"storage": f"{self._size_gb}G"}},
            },
        }
