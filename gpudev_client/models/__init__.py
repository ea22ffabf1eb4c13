"""The models of the REST API; the only place where they stand.

The service validates with them and renders its OpenAPI document from them, the client and the
spawner parse with them. Times are timezone-aware and UTC on the wire (ISO 8601). Hours are kept as
they were given: half an hour is `0.5`, never 0. Unknown fields of a request are refused, unknown
fields of an answer are ignored, so that an older client can talk to a newer service.

Belongs here: one module for each kind of thing; everything is imported from this package.
Never here: behaviour beyond checking a value's shape.
"""

from __future__ import annotations

from .activity import (
    ActivityReport,
    ActivitySource,
    IdleState,
    IdleVerdict,
    SourceName,
)
from .base import (
    Answer,
    DiskName,
    DisplayName,
    Hours,
    Labels,
    Note,
    Page,
    Request,
    TypeName,
    as_utc,
    hours_to_duration,
    printable,
)
from .capacity import (
    Availability,
    EarliestStart,
    GpuType,
)
from .disks import (
    CloneRequest,
    Disk,
    DiskChange,
    DiskContents,
    DiskEntry,
    DiskRequest,
    RestoreRequest,
    SizeGb,
    Snapshot,
    SnapshotRequest,
)
from .errors import (
    ErrorAnswer,
    ErrorBody,
)
from .fleet import (
    Cluster,
    DrainRequest,
    MaintenanceRequest,
    NodeView,
    QueueEntry,
    UnitUse,
)
from .lab import (
    ClosingReport,
    ClosingTimes,
    LabAccess,
    LabView,
    SshAccess,
    SshHostReport,
    TicketHolder,
    TicketRequest,
)
from .people import (
    Collaborator,
    CollaboratorRequest,
    Role,
    SshKey,
    SshKeyLine,
    SshKeys,
    SshKeysRequest,
)
from .pods import (
    PodLaunch,
)
from .reservations import (
    Event,
    ExtensionOffer,
    ExtensionRequest,
    HistoryEntry,
    Milestone,
    NodePlacement,
    Notice,
    Plan,
    Reservation,
    ReservationRequest,
    ServerLaunch,
    ServerReport,
)
from .service import (
    CliToken,
    CliTokenRequest,
    Health,
    LoopHealth,
    Me,
    PolicyView,
)

__all__ = [
    "ActivityReport",
    "ActivitySource",
    "Answer",
    "Availability",
    "CliToken",
    "CliTokenRequest",
    "CloneRequest",
    "ClosingReport",
    "ClosingTimes",
    "Cluster",
    "Collaborator",
    "CollaboratorRequest",
    "Disk",
    "DiskChange",
    "DiskContents",
    "DiskEntry",
    "DiskName",
    "DiskRequest",
    "DisplayName",
    "DrainRequest",
    "EarliestStart",
    "ErrorAnswer",
    "ErrorBody",
    "Event",
    "ExtensionOffer",
    "ExtensionRequest",
    "GpuType",
    "Health",
    "HistoryEntry",
    "Hours",
    "IdleState",
    "IdleVerdict",
    "LabAccess",
    "LabView",
    "Labels",
    "LoopHealth",
    "MaintenanceRequest",
    "Me",
    "Milestone",
    "NodePlacement",
    "NodeView",
    "Note",
    "Notice",
    "Page",
    "Plan",
    "PodLaunch",
    "PolicyView",
    "QueueEntry",
    "Request",
    "Reservation",
    "ReservationRequest",
    "RestoreRequest",
    "Role",
    "ServerLaunch",
    "ServerReport",
    "SizeGb",
    "Snapshot",
    "SnapshotRequest",
    "SourceName",
    "SshAccess",
    "SshHostReport",
    "SshKey",
    "SshKeyLine",
    "SshKeys",
    "SshKeysRequest",
    "TicketHolder",
    "TicketRequest",
    "TypeName",
    "UnitUse",
    "as_utc",
    "hours_to_duration",
    "printable",
]
