"""How many transactions have changed what plans are made from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0008_plan_count"
down_revision: str | None = "0007_lead"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    table = op.create_table(
        "plan_count",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_plan_count_only_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_count")),
    )
    op.bulk_insert(table, [{"id": 1, "count": 0}])


def downgrade() -> None:
    op.drop_table("plan_count")
