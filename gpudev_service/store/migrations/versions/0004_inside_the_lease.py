"""Collaborators, people's SSH keys, and how servers are reached by SSH."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004_inside_the_lease"
down_revision: str | None = "0003_kept"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "collaborators",
        sa.Column("reservation_id", sa.String(16), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        _moment("since", nullable=False),
        _moment("until"),
        sa.Column("invited_by", sa.String(255), nullable=False),
        _moment("removed_at"),
        sa.Column("share", sa.String(8), nullable=False),
        _check("collaborators", "role_known", "role IN ('view', 'use')"),
        _check("collaborators", "share_known", "share IN ('no', 'making', 'yes')"),
        _of_reservation("collaborators"),
        _primary_key("collaborators", "reservation_id", "user"),
    )
    op.create_index("ix_collaborators_user", "collaborators", ["user"])
    op.create_table(
        "ssh_hosts",
        sa.Column("reservation_id", sa.String(16), nullable=False),
        sa.Column(
            "host_keys",
            sa.JSON().with_variant(postgresql.JSONB(), "postgresql"),
            nullable=False,
        ),
        sa.Column("login", sa.String(64), nullable=False),
        sa.Column("home", sa.Text()),
        _of_reservation("ssh_hosts"),
        _primary_key("ssh_hosts", "reservation_id"),
    )
    op.create_table(
        "ssh_keys",
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        _moment("added_at", nullable=False),
        _primary_key("ssh_keys", "user", "fingerprint"),
    )


def downgrade() -> None:
    for table in ("ssh_keys", "ssh_hosts", "collaborators"):
        op.drop_table(table)


def _moment(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


# `op.f` marks a name as complete, so that no naming convention is applied to it again.


def _primary_key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _of_reservation(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_reservation_id_reservations")
    return sa.ForeignKeyConstraint(["reservation_id"], ["reservations.id"], name=name)


def _check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{name}"))
