"""Snapshots whose data were erased, and withdrawals that no longer say of what.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE, no batch: that would make the table anew on SQLite, while traces refer to it.
    op.add_column(
        "snapshots",
        sa.Column(
            "erased_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its data were erased; null while it can be read.",
        ),
    )
    with op.batch_alter_table("withdrawals", schema=None) as batch_op:
        batch_op.alter_column(
            "doc_key",
            existing_type=sa.Text(),
            nullable=True,
            existing_nullable=False,
            comment="The corpus's own id of the document; null once it is forgotten.",
            existing_comment="The corpus's own id of the document.",
        )
    if op.get_bind().dialect.supports_comments:  # SQLite has none, and would rebuild the table for one
        op.alter_column(
            "runs",
            "kind",
            comment="init, model, ingest, entities, mark, delete, compact, fit, encode, requantise, curvature, norms, "
            "index or trace.",
        )


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
