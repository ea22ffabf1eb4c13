"""Whether a lease is used: what its server says, and what followed from it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002_idle"
down_revision: str | None = "0001_start"
branch_labels: None = None
depends_on: None = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    for column in (
        sa.Column("activity", _JSON),
        sa.Column("activity_at", sa.DateTime(timezone=True)),
        sa.Column("idle_warned_at", sa.DateTime(timezone=True)),
        sa.Column("idle_kept_at", sa.DateTime(timezone=True)),
        sa.Column("idle_keeps", sa.Integer(), nullable=False, server_default="0"),
    ):
        op.add_column("reservations", column)


def downgrade() -> None:
    # Newest first. SQLite copies a table to drop a column; each statement here drops one in place.
    for name in ("idle_keeps", "idle_kept_at", "idle_warned_at", "activity_at", "activity"):
        op.drop_column("reservations", name)
