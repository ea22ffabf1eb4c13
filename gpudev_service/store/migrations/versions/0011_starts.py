"""The next promised start and the next end of an invitation, for which the loops look at each
change, have indexes. That of starts is for SQLite alone: PostgreSQL would write a new entry in each
index of the table for each start that moves, and it answers in a process of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0011_starts"
down_revision: str | None = "0010_ends"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    lasts = sa.text("until IS NOT NULL AND removed_at IS NULL")
    op.create_index(
        "ix_collaborators_until",
        "collaborators",
        ["until"],
        sqlite_where=lasts,
        postgresql_where=lasts,
    )
    if op.get_context().dialect.name == "sqlite":
        op.create_index("ix_reservations_planned_start", "reservations", ["state", "planned_start"])


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.drop_index("ix_reservations_planned_start", "reservations")
    op.drop_index("ix_collaborators_until", "collaborators")
