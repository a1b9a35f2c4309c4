"""Documents that were withdrawn.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "withdrawals",
        sa.Column("withdrawal_id", sa.String(length=26), nullable=False, comment="Id of the withdrawal."),
        sa.Column("doc_id", sa.String(length=26), nullable=False, comment="Document that was withdrawn."),
        sa.Column("doc_key", sa.Text(), nullable=False, comment="The corpus's own id of the document."),
        sa.Column("corpus", sa.String(length=128), nullable=False, comment="Corpus that it belonged to."),
        sa.Column("run_id", sa.String(length=26), nullable=False, comment="Run that withdrew it."),
        sa.Column("reason", sa.Text(), nullable=True, comment="Why, in the words of who withdrew it."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was withdrawn."),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_withdrawals_run_id")),
        sa.PrimaryKeyConstraint("withdrawal_id", name=op.f("pk_withdrawals")),
    )
    op.create_index(op.f("ix_withdrawals_doc_id"), "withdrawals", ["doc_id"])
    op.create_index(op.f("ix_withdrawals_run_id"), "withdrawals", ["run_id"])
    if op.get_bind().dialect.supports_comments:  # SQLite has none, and would rebuild the table for one
        op.alter_column(
            "runs",
            "kind",
            comment="init, model, ingest, delete, fit, encode, requantise, curvature, norms, index or trace.",
        )


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
