"""The models of the REST API; the only place where they stand.

The service validates with them and renders its OpenAPI document from them, the client and the
spawner parse with them. Times are timezone-aware and UTC on the wire (ISO 8601). Hours are kept as
they were given: half an hour is `0.5`, never 0. Unknown fields of a request are refused, unknown
fields of an answer are ignored, so that an older client can talk to a newer service.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from . import limits
from .states import State

T = TypeVar("T")

TypeName = Annotated[str, StringConstraints(pattern=rf"^{limits.TYPE_NAME}$")]
DiskName = Annotated[str, StringConstraints(pattern=rf"^{limits.DISK_NAME}$")]
DisplayName = Annotated[str, StringConstraints(max_length=limits.NAME_MAX, strip_whitespace=True)]
Note = Annotated[str, StringConstraints(max_length=limits.NOTE_MAX, strip_whitespace=True)]
Hours = Annotated[float, Field(gt=0, le=limits.HOURS_MAX, allow_inf_nan=False)]


class Request(BaseModel):
    """Base of everything a caller sends: nothing unknown passes."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


class Answer(BaseModel):
    """Base of everything the service says."""

    model_config = ConfigDict(extra="ignore")


def hours_to_duration(hours: float) -> timedelta:
    """The length of `hours` as given, to the second; at least one second."""
    return timedelta(seconds=max(1, round(hours * 3600)))


def printable(text: str) -> str:
    """`text` when it is one line of printable characters, else ValueError."""
    if not text.isprintable():
        raise ValueError("use one line of printable characters")
    return text


# --- errors -----------------------------------------------------------------------------------


class ErrorBody(Answer):
    """What went wrong, in words for a person.

    `code` is stable and for programs, `field` names the offending input, `accepted` tells what
    would be accepted in its place (a list of choices, a range, a number).
    """

    code: str
    message: str
    field: str | None = None
    accepted: Any = None


class ErrorAnswer(Answer):
    error: ErrorBody


class Page(Answer, Generic[T]):
    """One page of a list. `next_cursor` is None on the last page, else the `cursor` of the next."""

    items: list[T]
    next_cursor: str | None = None


# --- GPU types and availability ---------------------------------------------------------------


class GpuType(Answer):
    """A named kind of capacity as the caller may use it.

    `counts` are the numbers of GPUs that can be asked for (`[0]` for a type without GPUs, whose
    nodes are shared by `shares_per_node` people). `cpus` and `memory_gb` are a whole node's.
    """

    name: str
    label: str
    description: str = ""
    gpus_per_node: int
    shares_per_node: int = 1
    max_nodes: int = 1
    counts: list[int]
    cpus: int
    memory_gb: int
    gpu_memory_gb: int | None = None
    min_hours: float
    max_hours: float
    default_hours: float
    maintenance: str | None = None
    simulated: bool = False


class EarliestStart(Answer):
    """The earliest start for `gpus` GPUs; None where the fleet cannot give that many."""

    gpus: int
    starts_at: AwareDatetime | None
    reason: str | None = None


class Availability(Answer):
    """What one GPU type offers now. GPUs, or shares for a type without GPUs."""

    gpu_type: str
    total: int
    free: int
    drained: int = 0
    queue_length: int
    hours: float = Field(description="The length for which `earliest` was computed.")
    earliest: list[EarliestStart]
    maintenance: str | None = None
    simulated: bool = False


# --- reservations -----------------------------------------------------------------------------


class ReservationRequest(Request):
    """A request for GPUs for a bounded time; the same for form, API, CLI and SDK.

    `gpus=None` asks for the type's smallest count. `disk` names a disk of the user, which is
    created if `create_disk` is set and there is none; None runs without a persistent home.
    `starts_at` in the future makes it a booking. `user` and `server_name` are for the Hub's spawner
    and for admins who act for somebody else.
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


class Reservation(Answer):
    """One reservation as its owner sees it.

    `promised_start` is an upper bound that only improves; `expires_at` is the lease's end.
    `extension` (only where one reservation is asked for) says how far the lease could be extended
    at this moment. `url` opens the server. Times that have not come are None.
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
    url: str | None = None
    simulated: bool = False


class HistoryEntry(Answer):
    """One line of a reservation's history: a transition, a warning, a moved promise, a note."""

    at: AwareDatetime
    kind: str
    state: State
    reason: str
    actor: str
    data: dict[str, Any] = {}


class ExtensionRequest(Request):
    hours: Hours


class ExtensionOffer(Answer):
    """How far a lease could be extended now without moving anybody's promised start."""

    possible_hours: float
    extendable_until: AwareDatetime | None
    limited_by: str | None = Field(default=None, description="In words, what is in the way.")


class Event(Answer):
    """What the event streams send. `reservation` is the whole present state, so that a reader who
    missed events has lost nothing."""

    id: int
    kind: str
    at: AwareDatetime
    message: str
    reservation: Reservation


class ServerReport(Request):
    """What the Hub's spawner says about a reservation's server.

    `starting` carries the `handle` by which the server can be stopped without the Hub (a process
    id with its creation time, or a pod); `running` ends the preparation; `failed` gives the GPUs
    back; `stopped` means that a person gave them back; `left` that they left the queue.
    """

    status: Literal["starting", "running", "failed", "stopped", "left"]
    message: Note | None = None
    handle: dict[str, str | int | float] | None = None


class ServerLaunch(Answer):
    """What the spawner needs to start a reservation's server: environment and home directory."""

    reservation: Reservation
    environment: dict[str, str]
    home: str | None = Field(description="Directory of the disk, or a scratch directory; local.")


# --- disks ------------------------------------------------------------------------------------


class Disk(Answer):
    name: str
    user: str
    created_at: AwareDatetime
    last_used_at: AwareDatetime | None = None
    size_bytes: int | None = None
    size_measured_at: AwareDatetime | None = None
    limit_bytes: int | None = None
    in_use_by: str | None = Field(default=None, description="Id of the live reservation.")
    snapshots: int = 0
    last_snapshot_at: AwareDatetime | None = None
    deleted_at: AwareDatetime | None = None
    purged_after: AwareDatetime | None = None
    busy: str | None = Field(default=None, description="Long work under way, with its progress.")


class DiskRequest(Request):
    name: DiskName


class Snapshot(Answer):
    id: str
    disk: str
    taken_at: AwareDatetime
    cause: str
    state: Literal["taking", "ready", "failed"]
    size_bytes: int | None = None
    new_bytes: int | None = None
    files: int | None = None
    progress: str | None = None
    note: str | None = None


class SnapshotRequest(Request):
    note: Note | None = None


class CloneRequest(Request):
    """A new disk `name` from the disk's present state, or from one of its snapshots: by id, or the
    newest one taken at or before `at`."""

    name: DiskName
    snapshot: str | None = None
    at: AwareDatetime | None = None


class RestoreRequest(Request):
    """Puts a disk back to a snapshot (by id, or the newest at or before `at`); the present state is
    snapshotted first. For a deleted disk, without either: undoes the deletion."""

    snapshot: str | None = None
    at: AwareDatetime | None = None


class DiskEntry(Answer):
    """One name in a directory. Bytes of a name that are not UTF-8 are escaped reversibly."""

    name: str
    kind: Literal["file", "directory", "symlink", "other"]
    size_bytes: int
    modified_at: AwareDatetime


# --- fleet ------------------------------------------------------------------------------------


class UnitUse(Answer):
    """Who holds one GPU (or share). Names and ids only where the caller may see them."""

    unit: int
    until: AwareDatetime
    reservation: str | None = None
    user: str | None = None
    mine: bool = False


class NodeView(Answer):
    """A node and who holds what of it. `units` are its GPUs, or its shares where `shares` is set:
    on a node without GPUs."""

    name: str
    gpu_type: str
    units: int
    shares: bool = False
    free: int
    drained: bool = False
    reason: str | None = None
    simulated: bool = False
    held: list[UnitUse] = []


class QueueEntry(Answer):
    """One who waits. `user`, `reservation` and `name` only where the caller may see them."""

    position: int
    gpu_type: str
    gpus: int
    hours: float
    promised_start: AwareDatetime | None
    reservation: str | None = None
    user: str | None = None
    name: str | None = None
    mine: bool = False


class Cluster(Answer):
    nodes: list[NodeView]
    queue: list[QueueEntry]
    simulated: bool
    at: AwareDatetime


class DrainRequest(Request):
    reason: Note


class MaintenanceRequest(Request):
    message: Note


# --- service ----------------------------------------------------------------------------------


class LoopHealth(Answer):
    name: str
    last_run_at: AwareDatetime | None
    ok: bool
    message: str | None = None


class Health(Answer):
    """`status` is `ok`, or `degraded` with the failing parts named in `loops` and `database`."""

    status: Literal["ok", "degraded"]
    version: str
    database: bool = True
    loops: list[LoopHealth] = []


class Me(Answer):
    """The caller as the service sees them, with the limits that policy sets."""

    name: str
    kind: str
    admin: bool
    groups: list[str]
    scopes: list[str]
    policy: PolicyView


class PolicyView(Answer):
    """The limits of one user, the most generous of their groups. None means no limit."""

    max_hours: float
    max_extension_hours: float
    max_total_hours: float
    max_reservations: int | None
    max_gpus: int | None
    max_disks: int | None
    priority: int
    disk_retention_days: int
    snapshots_kept: int


class CliTokenRequest(Request):
    """Trades the one-time code of a browser login for a token; `verifier` is PKCE's (S256)."""

    code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22,128}$")]
    verifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{43,128}$")]


class CliToken(Answer):
    """A token for the command line: whose it is, what it may do, until when (None: no end)."""

    token: str = Field(repr=False)
    name: str
    scopes: list[str] = []
    expires_at: AwareDatetime | None = None


def as_utc(moment: datetime) -> datetime:
    """`moment` in UTC; ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a time needs its time zone")
    return moment.astimezone(UTC)


Reservation.model_rebuild()
Me.model_rebuild()
