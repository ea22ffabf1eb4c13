"""The first tables.

A migration says what the tables were at its time: it uses nothing of the models, which go on.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001_start"
down_revision: str | None = None
branch_labels: None = None
depends_on: None = None

STATES = (
    "'scheduled', 'queued', 'preparing', 'active', 'stopping', 'expired', 'cancelled', 'failed'"
)
LIVE = "'scheduled', 'queued', 'preparing', 'active', 'stopping'"


def upgrade() -> None:
    _disks()
    _reservations()
    _leases()
    _history()
    _snapshots()
    _operators_notes()
    _own_records()


def downgrade() -> None:
    for table in (
        "loop_runs",
        "idempotency_keys",
        "maintenances",
        "node_drains",
        "snapshots",
        "history",
        "placements",
        "lease_units",
        "reservations",
        "disks",
    ):
        op.drop_table(table)


def _disks() -> None:
    op.create_table(
        "disks",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        _json("groups", nullable=False),
        _moment("created_at", nullable=False),
        _moment("last_used_at"),
        sa.Column("size_bytes", sa.BigInteger()),
        _moment("size_measured_at"),
        sa.Column("limit_bytes", sa.BigInteger()),
        _moment("deleted_at"),
        _moment("purge_after"),
        sa.Column("busy", sa.String(32)),
        sa.Column("version", sa.Integer(), nullable=False),
        _check("disks", "deletion_has_a_date", "(deleted_at IS NULL) = (purge_after IS NULL)"),
        _primary_key("disks", "id"),
    )
    _unique_where("uq_disks_user_name", "disks", ["user", "name"], "deleted_at IS NULL")


def _reservations() -> None:
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        _json("groups", nullable=False),
        sa.Column("server_name", sa.String(255), nullable=False),
        sa.Column("gpu_type", sa.String(63), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("nodes", sa.Integer(), nullable=False),
        sa.Column("units_per_node", sa.Integer(), nullable=False),
        sa.Column("hours", sa.Double(), nullable=False),
        sa.Column("duration_s", sa.Integer(), nullable=False),
        sa.Column("extension_s", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("disk_id", sa.String(16)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("target", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        _moment("submitted_at", nullable=False),
        _moment("booked_for"),
        _moment("planned_start"),
        _json("planned_nodes"),
        _moment("first_promise"),
        _moment("starts_at"),
        _moment("active_at"),
        _moment("expires_at"),
        _moment("stopping_at"),
        _moment("ended_at"),
        _moment("server_lost_at"),
        _json("server_handle"),
        _json("warned", nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        *_reservation_checks(),
        _foreign_key("reservations", "disk_id", "disks"),
        _primary_key("reservations", "id"),
    )
    op.create_index("ix_reservations_state", "reservations", ["state", "gpu_type"])
    op.create_index("ix_reservations_submitted_at", "reservations", ["submitted_at", "id"])
    op.create_index("ix_reservations_user", "reservations", ["user", "submitted_at"])
    _unique_where(
        "uq_reservations_live_disk",
        "reservations",
        ["disk_id"],
        f"disk_id IS NOT NULL AND state IN ({LIVE})",
    )
    _unique_where(
        "uq_reservations_live_server",
        "reservations",
        ["user", "server_name"],
        f"state IN ({LIVE})",
    )


def _reservation_checks() -> list[sa.CheckConstraint]:
    rules = {
        "state_known": f"state IN ({STATES})",
        "target_known": f"target IN ({STATES})",
        "gpus_not_negative": "gpus >= 0",
        "shape": "nodes >= 1 AND units_per_node >= 1",
        "duration_positive": "duration_s >= 1 AND extension_s >= 0",
        "lease_ends_after_start": (
            "expires_at IS NULL OR (starts_at IS NOT NULL AND expires_at > starts_at)"
        ),
        "lease_has_an_end": (
            "state NOT IN ('preparing', 'active', 'stopping') OR expires_at IS NOT NULL"
        ),
    }
    return [_check("reservations", name, rule) for name, rule in rules.items()]


def _leases() -> None:
    op.create_table(
        "lease_units",
        sa.Column("node", sa.String(253), nullable=False),
        sa.Column("unit", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("gpu_type", sa.String(63), nullable=False),
        sa.Column("gpu_id", sa.String(128), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("reservation_id", sa.String(16), nullable=False),
        _foreign_key("lease_units", "reservation_id", "reservations"),
        _primary_key("lease_units", "node", "unit"),
    )
    op.create_index("ix_lease_units_reservation_id", "lease_units", ["reservation_id"])
    op.create_table(
        "placements",
        sa.Column("reservation_id", sa.String(16), nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node", sa.String(253), nullable=False),
        _json("units", nullable=False),
        _json("gpu_ids", nullable=False),
        _foreign_key("placements", "reservation_id", "reservations"),
        _primary_key("placements", "reservation_id", "rank"),
    )


def _history() -> None:
    op.create_table(
        "history",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("reservation_id", sa.String(16), nullable=False),
        _moment("at", nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        _json("data", nullable=False),
        _foreign_key("history", "reservation_id", "reservations"),
        _primary_key("history", "id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_history_reservation_id", "history", ["reservation_id", "id"])


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("disk_id", sa.String(16), nullable=False),
        sa.Column("reservation_id", sa.String(16)),
        _moment("taken_at", nullable=False),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("new_bytes", sa.BigInteger()),
        sa.Column("files", sa.Integer()),
        sa.Column("note", sa.Text()),
        _check("snapshots", "state_known", "state IN ('taking', 'ready', 'failed')"),
        _foreign_key("snapshots", "disk_id", "disks"),
        _foreign_key("snapshots", "reservation_id", "reservations"),
        _primary_key("snapshots", "id"),
    )
    op.create_index("ix_snapshots_disk_id", "snapshots", ["disk_id", "taken_at"])


def _operators_notes() -> None:
    op.create_table(
        "node_drains",
        sa.Column("node", sa.String(253), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        _moment("since", nullable=False),
        _primary_key("node_drains", "node"),
    )
    op.create_table(
        "maintenances",
        sa.Column("gpu_type", sa.String(63), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        _moment("since", nullable=False),
        _primary_key("maintenances", "gpu_type"),
    )


def _own_records() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.String(255), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("request_hash", sa.String(64), nullable=False),
        _moment("created_at", nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("answer", sa.Text()),
        _primary_key("idempotency_keys", "caller", "key"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "loop_runs",
        sa.Column("name", sa.String(32), nullable=False),
        _moment("started_at", nullable=False),
        _moment("finished_at"),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text()),
        _primary_key("loop_runs", "name"),
    )


def _moment(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _json(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    kind = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    return sa.Column(name, kind, nullable=nullable)


# `op.f` marks a name as complete, so that no naming convention is applied to it again.


def _primary_key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _foreign_key(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name)


def _check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{name}"))


def _unique_where(name: str, table: str, columns: list[str], rule: str) -> None:
    condition = sa.text(rule)
    op.create_index(
        name,
        table,
        columns,
        unique=True,
        sqlite_where=condition,
        postgresql_where=condition,
    )
