"""Which form the tables of a snapshot have: the last of their migrations.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "snapshots",
        sa.Column(
            "table_migration",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Last migration of the tables that its versions have had.",
        ),
    )
    if op.get_bind().dialect.supports_comments:  # SQLite has none, and would rebuild the table for one
        op.alter_column(
            "runs",
            "kind",
            comment="init, migrate, model, ingest, entities, mark, delete, compact, repair, fit, encode, requantise, "
            "curvature, norms, index, trace or recompute.",
        )


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
