"""units of a run by their state.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_units_run_id", "units")
    op.create_index("ix_units_run_status_ordinal", "units", ["run_id", "status", "ordinal"])


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
