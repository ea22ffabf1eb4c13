"""Disks that are volumes: their size, where they can be used, and indexes of their snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006_volumes"
down_revision: str | None = "0005_images"
branch_labels: None = None
depends_on: None = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("disks", sa.Column("size_gb", sa.Integer()))
    op.add_column("disks", sa.Column("reach", _JSON))
    op.create_table(
        "listings",
        sa.Column("snapshot_id", sa.String(16), nullable=False),
        sa.Column("disk_id", sa.String(16), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("summary", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("pk_listings")),
    )
    op.create_index("ix_listings_disk_id", "listings", ["disk_id", "sequence"])
    op.create_table(
        "listing_pages",
        sa.Column("snapshot_id", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("first", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["listings.snapshot_id"],
            name=op.f("fk_listing_pages_snapshot_id_listings"),
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "number", name=op.f("pk_listing_pages")),
    )


def downgrade() -> None:
    op.drop_table("listing_pages")
    op.drop_table("listings")
    op.drop_column("disks", "reach")
    op.drop_column("disks", "size_gb")
