"""The container image that somebody asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005_images"
down_revision: str | None = "0004_inside_the_lease"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.add_column("reservations", sa.Column("image", sa.Text()))


def downgrade() -> None:
    op.drop_column("reservations", "image")
