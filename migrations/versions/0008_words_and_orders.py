"""Traces by words, which need no encoder, and what full gradients make of an order.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # On SQLite this makes the table anew, so nothing may refer to it yet.
    with op.batch_alter_table("traces", schema=None) as batch_op:
        batch_op.alter_column(
            "encoder",
            existing_type=sa.String(length=128),
            nullable=True,
            comment="Encoder of query and passages; null for bm25.",
        )
        batch_op.alter_column(
            "curvature",
            existing_type=sa.String(length=64),
            nullable=True,
            comment="Curvature of the score; null for bm25.",
        )
        batch_op.alter_column(
            "method",
            existing_type=sa.String(length=32),
            existing_nullable=False,
            comment="Attribution method: trackstar, logra, trak, gradcos or graddot, whose scores are influence; bm25, "
            "which compares words; hybrid, which joins the ranks of one of those with bm25's.",
        )
        batch_op.alter_column(
            "target_loss",
            existing_type=sa.Double(),
            nullable=True,
            comment="Summed cross-entropy of the target's own tokens, in nats; the mean over several targets or "
            "queries; null for bm25, which reads no model.",
        )
        batch_op.alter_column(
            "target_tokens",
            existing_type=sa.Integer(),
            nullable=True,
            comment="Tokens of the target; of several, all together; null for bm25.",
        )
    op.create_table(
        "recomputations",
        sa.Column("trace_id", sa.String(length=26), nullable=False, comment="The trace."),
        sa.Column("side", sa.String(length=16), nullable=False, comment="proponent or opponent."),
        sa.Column(
            "n",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="So many first hits were asked for; a side may have fewer.",
        ),
        sa.Column(
            "n_texts",
            sa.Integer(),
            nullable=False,
            comment="Different texts among them, which are what is ordered.",
        ),
        sa.Column(
            "tau",
            sa.Double(),
            nullable=True,
            comment="Kendall's tau-b of the trace's order and that of the full gradients; null where one has no order.",
        ),
        sa.Column(
            "tau_codes", sa.Double(), nullable=True, comment="The same, of what storing vectors in codes changes."
        ),
        sa.Column(
            "tau_curvature", sa.Double(), nullable=True, comment="The same, of what leaving out the curvature changes."
        ),
        sa.Column(
            "tau_projection",
            sa.Double(),
            nullable=True,
            comment="The same, of what leaving out the projection changes.",
        ),
        sa.Column(
            "scores",
            sa.JSON(),
            nullable=False,
            comment="Every hit's passage_id with its scores: stored, exact, unwhitened and full.",
        ),
        sa.Column("versions", sa.JSON(), nullable=False, comment="Versions of proponent and of its libraries."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was computed."),
        sa.ForeignKeyConstraint(["trace_id"], ["traces.trace_id"], name=op.f("fk_recomputations_trace_id")),
        sa.PrimaryKeyConstraint("trace_id", "side", "n", name=op.f("pk_recomputations")),
    )
    if op.get_bind().dialect.supports_comments:  # SQLite has none, and would rebuild the table for one
        op.alter_column(
            "runs",
            "kind",
            comment="init, model, ingest, entities, mark, delete, compact, fit, encode, requantise, curvature, norms, "
            "index, trace or recompute.",
        )


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
