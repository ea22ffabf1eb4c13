"""What the loops look for at each change has an index: the next end of a lease, and servers that
were lost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0010_ends"
down_revision: str | None = "0009_node_labels"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_index("ix_reservations_expires_at", "reservations", ["state", "expires_at"])
    lost = sa.text("server_lost_at IS NOT NULL")
    op.create_index(
        "ix_reservations_server_lost_at",
        "reservations",
        ["state", "server_lost_at"],
        sqlite_where=lost,
        postgresql_where=lost,
    )


def downgrade() -> None:
    op.drop_index("ix_reservations_server_lost_at", "reservations")
    op.drop_index("ix_reservations_expires_at", "reservations")
