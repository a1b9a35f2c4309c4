"""Curvatures of tasks, whose fitted state is a file of its own.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "curvatures",
        sa.Column(
            "artifact",
            sa.Text(),
            nullable=True,
            comment="Fitted state of a task's in artifacts/; the reference is part of its encoder's.",
        ),
    )
    if op.get_bind().dialect.name == "sqlite":
        return  # it keeps no comments
    op.alter_column(
        "curvatures",
        "n_rows",
        existing_type=sa.BigInteger(),
        existing_nullable=False,
        comment="Passages, or a task's queries, that it was fitted on.",
        existing_comment="Passages that it was fitted on.",
    )
    op.alter_column(
        "runs",
        "kind",
        existing_type=sa.String(length=32),
        existing_nullable=False,
        comment="init, model, ingest, fit, encode, requantise, curvature, norms, index or trace.",
        existing_comment="init, model, ingest, fit, encode, requantise, index or trace.",
    )


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
