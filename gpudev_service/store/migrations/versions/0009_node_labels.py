"""The labels of nodes that somebody asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0009_node_labels"
down_revision: str | None = "0008_plan_count"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    op.add_column("reservations", sa.Column("node_labels", json))


def downgrade() -> None:
    op.drop_column("reservations", "node_labels")
