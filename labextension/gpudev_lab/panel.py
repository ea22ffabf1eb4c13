"""What the panel is told: the models of this server's own endpoints, and how they are made."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from gpudev_client.models import Collaborator, Disk, Reservation, Role, Snapshot

from .closing import SaveRequest
from .gpu import GpuFigures
from .link import Link


class Visitor(BaseModel, defer_build=True):
    """Who looks. The service decides what they may do; this only says what to offer."""

    name: str
    owner: bool


class Ssh(BaseModel, defer_build=True):
    """How this server is reached by SSH; None of it is secret."""

    host: str | None
    folder: str


class Lease(BaseModel, defer_build=True):
    """Everything that the panel shows.

    `reservation` is None on a server that stands on none, or until the service has answered for the
    first time; `away` says in a sentence why what is shown may be old.
    """

    now: datetime
    visitor: Visitor
    pages_url: str
    reservation: Reservation | None = None
    collaborators: list[Collaborator] = []
    role: Role | None = None
    disk: Disk | None = None
    snapshots: list[Snapshot] = []
    ssh: Ssh | None = None
    gpu: GpuFigures | None = None
    save: SaveRequest | None = None
    away: str | None = None


def lease(
    link: Link,
    visitor: Visitor,
    *,
    now: datetime,
    folder: str,
    pages_url: str,
    gpu: GpuFigures | None,
    save: SaveRequest | None,
) -> Lease:
    """The lease as it is known now."""
    told = Lease(now=now, visitor=visitor, pages_url=pages_url, gpu=gpu, save=save, away=link.away)
    view = link.view
    if view is None:
        return told
    roles: dict[str, Role] = {a.user: a.role for a in view.access}
    return told.model_copy(
        update={
            "reservation": view.reservation,
            "collaborators": view.reservation.collaborators,
            "role": roles.get(visitor.name),
            "disk": view.disk,
            "snapshots": view.snapshots,
            "ssh": Ssh(host=view.reservation.ssh_host, folder=folder),
        }
    )
