"""Reservations, from the request to the history."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints, field_validator

from gpudev_client import limits
from gpudev_client.states import State

from .activity import IdleVerdict
from .base import Answer, DiskName, Hours, Note, Request, SomeLabels, TypeName, printable
from .people import Collaborator
from .pods import PodLaunch


class ReservationRequest(Request):
    """A request for GPUs for a bounded time; the same for form, API, CLI and SDK.

    `gpus=None` asks for the type's smallest count. `disk` names a disk of the user, which is
    created if `create_disk` is set and there is none; None runs without a persistent home.
    `starts_at` in the future makes it a booking. `user` and `server_name` are for the Hub's spawner
    and for admins who act for somebody else; `owner_groups`, the user's groups in the Hub, is the
    spawner's alone. `image` is a container image in place of the Hub's, where servers are pods and
    policy allows it. With `node_labels` it is placed only on nodes that have all of these labels.
    """

    gpu_type: TypeName
    gpus: int | None = Field(default=None, ge=0, le=100_000)
    hours: Hours
    disk: DiskName | None = None
    create_disk: bool = False
    name: (
        Annotated[str, StringConstraints(max_length=limits.NAME_MAX, strip_whitespace=True)] | None
    ) = None
    starts_at: AwareDatetime | None = None
    user: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    server_name: Annotated[str, StringConstraints(max_length=255)] | None = None
    owner_groups: (
        Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=255)]],
            Field(max_length=limits.OWNER_GROUPS_MAX),
        ]
        | None
    ) = None
    image: Annotated[str, StringConstraints(pattern=rf"^{limits.IMAGE}$")] | None = None
    node_labels: SomeLabels | None = None

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        return None if not value else printable(value)


class NodePlacement(Answer):
    """The part of a lease on one node: GPU indices there (or share indices without GPUs).

    `gpu_ids` are what `CUDA_VISIBLE_DEVICES` takes: UUIDs of real GPUs, indices of simulated ones.
    """

    node: str
    units: list[int]
    gpu_ids: list[str]


class Plan(Answer):
    """When a request would start, had it been submitted now. Nothing is stored."""

    starts_at: AwareDatetime
    expires_at: AwareDatetime
    starts_now: bool
    position: int = Field(description="Place in the queue of its type; 0 when it starts now.")
    nodes: list[str]
    gpu_type: str
    gpus: int
    hours: float


class ExtensionRequest(Request):
    hours: Hours


class ExtensionOffer(Answer):
    """How far a lease could be extended now without moving anybody's promised start."""

    possible_hours: float
    extendable_until: AwareDatetime | None
    limited_by: str | None = Field(default=None, description="In words, what is in the way.")


class Notice(Answer):
    """What has happened to a server that its people should know of, in words, and when."""

    text: str
    at: AwareDatetime


class Reservation(Answer):
    """One reservation as its owner sees it.

    `promised_start` is an upper bound that only improves; `expires_at` is the lease's end. Only
    where one reservation is asked for: `extension` and `idle` say how far the lease could be
    extended at this moment, and whether it is used, where policy looks at that; `notice` says what
    has happened last to its server in the present lease (killed, lost, started again). `url` opens
    the server. Times that have not come are None. `ssh_host` is the name of the server for SSH,
    once it can be reached that way.
    """

    id: str
    name: str
    user: str
    server_name: str
    gpu_type: str
    gpus: int
    nodes: int = 1
    hours: float
    disk: str | None
    state: State
    reason: str | None = None
    submitted_at: AwareDatetime
    booked_for: AwareDatetime | None = None
    position: int | None = None
    promised_start: AwareDatetime | None = None
    first_promised_start: AwareDatetime | None = None
    starts_at: AwareDatetime | None = None
    active_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    server_lost_at: AwareDatetime | None = None
    restart_until: AwareDatetime | None = Field(
        default=None, description="Until when a server that crashed can be started again."
    )
    placement: list[NodePlacement] = []
    extended_hours: float = 0.0
    extension: ExtensionOffer | None = None
    idle: IdleVerdict | None = None
    notice: Notice | None = None
    url: str | None = None
    collaborators: list[Collaborator] = []
    ssh_host: str | None = None
    image: str | None = None
    node_labels: dict[str, str] = {}
    limited_by: str | None = Field(
        default=None, description="In words, which limit of policy keeps it waiting."
    )
    simulated: bool = False


class HistoryEntry(Answer):
    """One line of a reservation's history: a transition, a warning, a moved promise, a note."""

    at: AwareDatetime
    kind: str
    state: State
    reason: str
    actor: str
    data: dict[str, Any] = {}


class Event(Answer):
    """What the event streams send. `reservation` is the whole present state, so that a reader who
    missed events has lost nothing."""

    id: int
    kind: str
    at: AwareDatetime
    message: str
    reservation: Reservation


class Milestone(Request):
    """A step of a server's start, and when it was done."""

    step: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,30}$")]
    at: AwareDatetime


class ServerReport(Request):
    """What the Hub's spawner says about a reservation's server.

    `starting` carries the `handle` by which the server can be stopped without the Hub (a process
    id with its creation time, or a pod), and comes again when the server answers; `running` ends
    the preparation, once the server can be reached through the Hub; `failed` gives the GPUs back;
    `stopped` means that a person gave them back; `left` that they left the queue; `note` is a line
    for the history and changes nothing. `milestones` are the steps of the start that were done.
    """

    status: Literal["starting", "running", "failed", "stopped", "left", "note"]
    message: Note | None = None
    handle: dict[str, str | int | float] | None = None
    milestones: list[Milestone] = Field(default=[], max_length=20)


class ServerLaunch(Answer):
    """What the spawner needs to start a reservation's server: environment and home directory, and
    where servers are pods how these are made."""

    reservation: Reservation
    environment: dict[str, str]
    home: str | None = Field(
        description="Directory of the disk, or a scratch directory; in a pod where it is mounted."
    )
    pods: PodLaunch | None = None
