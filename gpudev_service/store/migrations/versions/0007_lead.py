"""Which replica of the service leads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0007_lead"
down_revision: str | None = "0006_volumes"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "lead",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acts_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("good_until", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_lead_only_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lead")),
    )


def downgrade() -> None:
    op.drop_table("lead")
