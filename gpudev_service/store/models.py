"""The tables. What must never be wrong is a constraint here where the database can see it, so that
wrong code is refused; `invariants` names what holds and which constraints hold it. One more: a user
has one disk of a name among those that are not deleted, by a partial unique index.

Rows are named `...Row` to keep them apart from the API's models. Datetimes are aware and UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.elements import conv

from gpudev_client.states import LIVE, State

from .invariants import Invariant
from .types import Json, UtcDateTime

# Named constraints, so that migrations can address them on both databases.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def _refused(invariant: Invariant) -> list[conv]:
    """What the constraints are called that refuse the contrary of an invariant."""
    return [conv(name) for name in invariant.constraints]


_STATE_KNOWN, _TARGET_KNOWN = _refused(Invariant.STATES_ARE_TOLD)
_HAS_AN_END, _ENDS_AFTER_START = _refused(Invariant.LEASES_END)
[LIVE_DISK] = _refused(Invariant.ONE_LIVE_PER_DISK)
[LIVE_SERVER] = _refused(Invariant.ONE_LIVE_PER_SERVER)

# Literals, since an index's condition must be a constant; built from the enum, not typed again.
_STATES = ", ".join(f"'{state}'" for state in State)
_LIVE = ", ".join(f"'{state}'" for state in State if state in LIVE)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[Any]: Json}


class ReservationRow(Base):
    """One reservation from submission to its end.

    `target` is what `state` should become (`active`, or a final state while it is being stopped).
    `duration_s` is the length that was asked for, `extension_s` what was added. `groups` are the
    owner's Hub groups at submission, for policy and group admins. `planned_start` and
    `planned_nodes` are the slot that the planner last promised; `first_promise` never changes.
    `server_handle` is how the server is found and stopped without the Hub.
    """

    __tablename__ = "reservations"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    user: Mapped[str] = mapped_column(String(255))
    groups: Mapped[list[Any]] = mapped_column(default=list)
    server_name: Mapped[str] = mapped_column(String(255))
    gpu_type: Mapped[str] = mapped_column(String(63))
    gpus: Mapped[int] = mapped_column(Integer)
    nodes: Mapped[int] = mapped_column(Integer, default=1)
    units_per_node: Mapped[int] = mapped_column(Integer)
    hours: Mapped[float] = mapped_column(Double)
    duration_s: Mapped[int] = mapped_column(Integer)
    extension_s: Mapped[int] = mapped_column(Integer, default=0)
    priority: Mapped[int] = mapped_column(Integer, default=0)
    disk_id: Mapped[str | None] = mapped_column(ForeignKey("disks.id"))

    state: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)

    submitted_at: Mapped[datetime]
    booked_for: Mapped[datetime | None]
    planned_start: Mapped[datetime | None]
    planned_nodes: Mapped[list[Any] | None]
    first_promise: Mapped[datetime | None]
    starts_at: Mapped[datetime | None]
    active_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    stopping_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    server_lost_at: Mapped[datetime | None]
    server_handle: Mapped[dict[str, Any] | None]
    #: Minutes before the end for which the warning has been given, for this `expires_at`.
    warned: Mapped[list[Any]] = mapped_column(default=list)
    #: Counts every change of the row: the guard of updates that worked outside a transaction.
    version: Mapped[int] = mapped_column(Integer, default=1)
    #: What the server last said of its use, and when; the warning and "keep it" since the last use.
    activity: Mapped[list[Any] | None]
    activity_at: Mapped[datetime | None]
    idle_warned_at: Mapped[datetime | None]
    idle_kept_at: Mapped[datetime | None]
    idle_keeps: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    #: The container image that was asked for in place of the Hub's.
    image: Mapped[str | None] = mapped_column(Text)
    #: The labels that its nodes must have; None for any nodes.
    node_labels: Mapped[dict[str, Any] | None]

    # Where the database has a default, too, we give the value ourselves: what is written needs not
    # be read again, which would make one long statement of many new rows.
    __mapper_args__ = {"version_id_col": version, "eager_defaults": False}
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name=_STATE_KNOWN),
        CheckConstraint(f"target IN ({_STATES})", name=_TARGET_KNOWN),
        CheckConstraint("gpus >= 0", name="gpus_not_negative"),
        CheckConstraint("nodes >= 1 AND units_per_node >= 1", name="shape"),
        CheckConstraint("duration_s >= 1 AND extension_s >= 0", name="duration_positive"),
        CheckConstraint(
            "expires_at IS NULL OR (starts_at IS NOT NULL AND expires_at > starts_at)",
            name=_ENDS_AFTER_START,
        ),
        CheckConstraint(
            "state NOT IN ('preparing', 'active', 'stopping') OR expires_at IS NOT NULL",
            name=_HAS_AN_END,
        ),
        Index(
            LIVE_DISK,
            "disk_id",
            unique=True,
            sqlite_where=text(f"disk_id IS NOT NULL AND state IN ({_LIVE})"),
            postgresql_where=text(f"disk_id IS NOT NULL AND state IN ({_LIVE})"),
        ),
        Index(
            LIVE_SERVER,
            "user",
            "server_name",
            unique=True,
            sqlite_where=text(f"state IN ({_LIVE})"),
            postgresql_where=text(f"state IN ({_LIVE})"),
        ),
        Index("ix_reservations_state", "state", "gpu_type"),
        Index("ix_reservations_user", "user", "submitted_at"),
        Index("ix_reservations_submitted_at", "submitted_at", "id"),
        Index("ix_reservations_ended_at", "ended_at"),
        Index("ix_reservations_expires_at", "state", "expires_at"),
        # Not in PostgreSQL, where each start that moves would then be a new entry in each index.
        Index("ix_reservations_planned_start", "state", "planned_start").ddl_if(dialect="sqlite"),
        Index(
            "ix_reservations_server_lost_at",
            "state",
            "server_lost_at",
            sqlite_where=text("server_lost_at IS NOT NULL"),
            postgresql_where=text("server_lost_at IS NOT NULL"),
        ),
    )


class LeaseUnitRow(Base):
    """One GPU (or share) that a lease holds. The row exists exactly as long as it is held."""

    __tablename__ = "lease_units"

    node: Mapped[str] = mapped_column(String(253), primary_key=True)
    unit: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    gpu_type: Mapped[str] = mapped_column(String(63))
    gpu_id: Mapped[str] = mapped_column(String(128))
    rank: Mapped[int] = mapped_column(Integer, default=0)
    reservation_id: Mapped[str] = mapped_column(ForeignKey("reservations.id"), index=True)


class PlacementRow(Base):
    """Where a lease ran, kept after its end (`lease_units` is emptied then)."""

    __tablename__ = "placements"

    reservation_id: Mapped[str] = mapped_column(ForeignKey("reservations.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    node: Mapped[str] = mapped_column(String(253))
    units: Mapped[list[Any]]
    gpu_ids: Mapped[list[Any]]


class HistoryRow(Base):
    """What happened to a reservation; also the event that the streams send (`id` is its cursor)."""

    __tablename__ = "history"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    reservation_id: Mapped[str] = mapped_column(ForeignKey("reservations.id"))
    at: Mapped[datetime]
    #: `transition`, `promise`, `warning`, `extension`, `server`, `collaborator`, `access`, `idle`,
    #: `closing`, `snapshot`, `milestones`, `note`.
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(255))
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)

    __table_args__ = (
        Index("ix_history_reservation_id", "reservation_id", "id"),
        # Without it SQLite gives the highest id again after its row was deleted: a cursor that
        # a stream already holds would then pass over the new event.
        {"sqlite_autoincrement": True},
    )


class CollaboratorRow(Base):
    """Somebody who is invited to a reservation, or was and may still be in the Hub's shares.

    `until` is None for as long as the lease. `share` is what the Hub was last told: `making` before
    it is asked, so that a share which a crash left is found and revoked.
    """

    __tablename__ = "collaborators"

    reservation_id: Mapped[str] = mapped_column(ForeignKey("reservations.id"), primary_key=True)
    user: Mapped[str] = mapped_column(String(255), primary_key=True)
    role: Mapped[str] = mapped_column(String(8))
    since: Mapped[datetime]
    until: Mapped[datetime | None]
    invited_by: Mapped[str] = mapped_column(String(255))
    removed_at: Mapped[datetime | None]
    share: Mapped[str] = mapped_column(String(8), default="no")

    __table_args__ = (
        CheckConstraint("role IN ('view', 'use')", name="role_known"),
        CheckConstraint("share IN ('no', 'making', 'yes')", name="share_known"),
        Index("ix_collaborators_user", "user"),
        Index(
            "ix_collaborators_until",
            "until",
            sqlite_where=text("until IS NOT NULL AND removed_at IS NULL"),
            postgresql_where=text("until IS NOT NULL AND removed_at IS NULL"),
        ),
    )


class SshHostRow(Base):
    """How a reservation's server is reached by SSH, as it has published it."""

    __tablename__ = "ssh_hosts"

    reservation_id: Mapped[str] = mapped_column(ForeignKey("reservations.id"), primary_key=True)
    host_keys: Mapped[list[Any]]
    login: Mapped[str] = mapped_column(String(64))
    home: Mapped[str | None] = mapped_column(Text)


class SshKeyRow(Base):
    """A public SSH key of a user; the fingerprint as the key: none stands twice."""

    __tablename__ = "ssh_keys"

    user: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    type: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(Text)
    comment: Mapped[str] = mapped_column(Text)
    added_at: Mapped[datetime]


class DiskRow(Base):
    """A named persistent home of one user. `busy` names long work that is under way on it."""

    __tablename__ = "disks"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    user: Mapped[str] = mapped_column(String(255))
    groups: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    size_measured_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    purge_after: Mapped[datetime | None]
    busy: Mapped[str | None] = mapped_column(String(32))
    version: Mapped[int] = mapped_column(Integer, default=1)
    #: Its own size, where disks have one; where it can be used (`Reach`), None for everywhere.
    size_gb: Mapped[int | None] = mapped_column(Integer)
    reach: Mapped[dict[str, Any] | None]

    __mapper_args__ = {"version_id_col": version}
    __table_args__ = (
        Index(
            "uq_disks_user_name",
            "user",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        CheckConstraint("(deleted_at IS NULL) = (purge_after IS NULL)", name="deletion_has_a_date"),
    )


class SnapshotRow(Base):
    """A point-in-time copy of a disk; `taking` until its bytes are complete."""

    __tablename__ = "snapshots"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    disk_id: Mapped[str] = mapped_column(ForeignKey("disks.id"))
    reservation_id: Mapped[str | None] = mapped_column(ForeignKey("reservations.id"), index=True)
    taken_at: Mapped[datetime]
    #: `end` of a lease, `person` asked, `safety` before a restoration or deletion.
    cause: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    new_bytes: Mapped[int | None] = mapped_column(BigInteger)
    files: Mapped[int | None] = mapped_column(Integer)
    note: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("state IN ('taking', 'ready', 'failed')", name="state_known"),
        Index("ix_snapshots_disk_id", "disk_id", "taken_at"),
    )


class ListingRow(Base):
    """The index of the files of a snapshot that cannot be looked at. It comes and goes with the
    bytes and not with the rows of disks and snapshots, to which it refers by id only."""

    __tablename__ = "listings"

    snapshot_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    disk_id: Mapped[str] = mapped_column(String(16))
    taken_at: Mapped[datetime]
    #: The place of the snapshot among those of its disk.
    sequence: Mapped[int] = mapped_column(Integer)
    summary: Mapped[dict[str, Any]]

    __table_args__ = (Index("ix_listings_disk_id", "disk_id", "sequence"),)


class ListingPageRow(Base):
    """A piece of an index, compressed; `first` is the key at which it begins."""

    __tablename__ = "listing_pages"

    snapshot_id: Mapped[str] = mapped_column(ForeignKey("listings.snapshot_id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    first: Mapped[bytes] = mapped_column(LargeBinary)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class NodeDrainRow(Base):
    """A node on which nothing new is placed. Its running leases go on to their end."""

    __tablename__ = "node_drains"

    node: Mapped[str] = mapped_column(String(253), primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(255))
    since: Mapped[datetime]


class MaintenanceRow(Base):
    """A GPU type that takes no new reservations, with the operator's message."""

    __tablename__ = "maintenances"

    gpu_type: Mapped[str] = mapped_column(String(63), primary_key=True)
    message: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(255))
    since: Mapped[datetime]


class IdempotencyRow(Base):
    """The answer to a mutating call, given again when the caller repeats its key.

    `request_hash` tells a retry from another request under the same key.
    """

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[int | None] = mapped_column(Integer)
    answer: Mapped[str | None] = mapped_column(Text)


class LoopRunRow(Base):
    """When a loop last ran, for readiness and for whoever looks after a crash."""

    __tablename__ = "loop_runs"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    ok: Mapped[bool]
    message: Mapped[str | None] = mapped_column(Text)


class LeadRow(Base):
    """Which replica of the service leads: the one row, by which leaders follow each other.

    `epoch` is one higher for each leader, and fences the writes of those before. By the database's
    clock: after `acts_until` the leader does nothing outside the database without another sign of
    life, and after `good_until` somebody else may lead.
    """

    __tablename__ = "lead"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str] = mapped_column(String(255))
    address: Mapped[str] = mapped_column(String(255))
    since: Mapped[datetime]
    acts_until: Mapped[datetime]
    good_until: Mapped[datetime]

    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)


class PlanCountRow(Base):
    """How many transactions have changed what plans are made from: the one row, by which a process
    notices that another one has (see `store.memory`)."""

    __tablename__ = "plan_count"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    count: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)
