"""The next end of an invitation, for which the loops look at each change, has an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0011_invitations"
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


def downgrade() -> None:
    op.drop_index("ix_collaborators_until", "collaborators")
