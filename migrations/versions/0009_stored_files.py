"""Hashes of the files that tables have beside their rows.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stored_files",
        sa.Column("table_name", sa.String(length=128), nullable=False, comment="Lance table that it belongs to."),
        sa.Column("path", sa.String(length=255), nullable=False, comment="Its path in the table's folder."),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="Its bytes."),
        sa.Column("content_hash", sa.String(length=26), nullable=False, comment="Hash of its bytes."),
        sa.PrimaryKeyConstraint("table_name", "path", name=op.f("pk_stored_files")),
    )
    if op.get_bind().dialect.supports_comments:  # SQLite has none, and would rebuild the table for one
        op.alter_column(
            "runs",
            "kind",
            comment="init, model, ingest, entities, mark, delete, compact, repair, fit, encode, requantise, curvature, "
            "norms, index, trace or recompute.",
        )


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
