"""What is recorded of an index: its recall for every method, curvature and number of hits.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_COMMENTS = (
    (
        "traces",
        "recall",
        "Measured recall@10 of the index, when one was used.",
        "Measured recall of the index for what was asked, the lower of both sides; null without an index.",
    ),
    (
        "index_builds",
        "kind",
        "Kind of Lance index.",
        "rq3 or rq2: codes of 3 or 2 bits a component; others are of older versions and not used.",
    ),
    (
        "index_builds",
        "settings",
        "Partitions, probes and refinement.",
        "Bits, the segments that the index had, and their bytes.",
    ),
    (
        "index_builds",
        "recall",
        "Measured recall at 10 by side, and its sample size.",
        "What recall was measured with, and of each method, curvature and k the recall of either side.",
    ),
)


def upgrade() -> None:
    # Rows from before name no segments, so none of them is taken for what was measured of an index that is there.
    if not op.get_bind().dialect.supports_comments:
        return
    for table, column, before, after in _COMMENTS:
        op.alter_column(table, column, comment=after, existing_comment=before)


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
