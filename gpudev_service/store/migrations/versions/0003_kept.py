"""Ended reservations go after a time: what finds them and what refers to them gets an index. A
disk's limit is what the configuration says, at every moment, and no longer stands in its row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0003_kept"
down_revision: str | None = "0002_idle"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_index("ix_reservations_ended_at", "reservations", ["ended_at"])
    op.create_index("ix_snapshots_reservation_id", "snapshots", ["reservation_id"])
    op.drop_column("disks", "limit_bytes")


def downgrade() -> None:
    op.add_column("disks", sa.Column("limit_bytes", sa.BigInteger()))
    op.drop_index("ix_snapshots_reservation_id", "snapshots")
    op.drop_index("ix_reservations_ended_at", "reservations")
