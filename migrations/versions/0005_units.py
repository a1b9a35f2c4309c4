"""Units of work, which workers lease.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "units",
        sa.Column("unit_id", sa.String(length=26), nullable=False, comment="Id of the unit."),
        sa.Column("run_id", sa.String(length=26), nullable=False, comment="Run that it is part of."),
        sa.Column("ordinal", sa.Integer(), nullable=False, comment="Its place in the run's work, from 0."),
        sa.Column("work", sa.JSON(), nullable=False, comment="Which part of the work it is."),
        sa.Column("status", sa.String(length=16), nullable=False, comment="waiting, leased, written, done or failed."),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="How often it was begun."),
        sa.Column("token", sa.String(length=32), nullable=True, comment="Drawn anew each time it is leased."),
        sa.Column("host", sa.String(length=255), nullable=True, comment="Machine of the worker."),
        sa.Column("pid", sa.Integer(), nullable=True, comment="Process id of the worker."),
        sa.Column("process_start", sa.String(length=64), nullable=True, comment="When that process began."),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it is free again unless its lease is renewed.",
        ),
        sa.Column("result", sa.JSON(), nullable=True, comment="What was written and counted, or the error."),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_units_run_id")),
        sa.PrimaryKeyConstraint("unit_id", name=op.f("pk_units")),
    )
    op.create_index(op.f("ix_units_run_id"), "units", ["run_id"])


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
