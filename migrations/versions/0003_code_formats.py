"""The format of an encoder's stored vectors, and how well it keeps the order of scores.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("encoders", schema=None) as batch_op:
        batch_op.add_column(
            # Every encoder of before has int8 codes, and nobody measured them.
            sa.Column(
                "codes",
                sa.String(length=16),
                server_default="int8",
                nullable=False,
                comment="Format of the stored vectors: float16, int8 or int4.",
            )
        )
        batch_op.add_column(
            sa.Column(
                "fidelity",
                sa.JSON(),
                nullable=True,
                comment="How well the codes keep the order of scores, measured on a sample.",
            )
        )
    if op.get_bind().dialect.supports_comments:  # SQLite has none, and would rebuild the table for one
        op.alter_column("runs", "kind", comment="init, model, ingest, fit, encode, requantise, index or trace.")


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
