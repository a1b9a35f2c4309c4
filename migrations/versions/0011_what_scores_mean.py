"""What random texts score for a trace's query, and what else a file of queries says of a query.

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
    # Traces from before have no sample, and no z-scores. Plain ALTER TABLE, which keeps what refers to the tables.
    for name, kind, comment in (
        (
            "score_mean",
            sa.Double(),
            "Mean score of a random sample of encoded texts; null for bm25, hybrid and traces of older versions.",
        ),
        ("score_sd", sa.Double(), "Standard deviation of the sample's scores."),
        ("score_sample", sa.Integer(), "Texts of the sample."),
    ):
        op.add_column("traces", sa.Column(name, kind, nullable=True, comment=comment))
    op.add_column(
        "queries",
        sa.Column(
            "metadata",
            sa.JSON(),
            nullable=True,
            comment="Every other field of the query's row in a file of queries.",
        ),
    )


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
