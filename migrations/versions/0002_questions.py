"""Questions of several parts, and in a chat template.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COMMENTS = (
    ("queries", "query_id", "Hash of prompt and target.", "Hash of everything that is asked."),
    ("queries", "prompt", "What the model was given.", "What the model was given; of a mean, what it is taken over."),
    ("queries", "target", "What it said, or should say.", "What it said, or should say; several in plain words."),
    (
        "traces",
        "target_loss",
        "Summed cross-entropy of the target's tokens, in nats.",
        "Summed cross-entropy of the target's own tokens, in nats; the mean over several targets or queries.",
    ),
    ("traces", "target_tokens", "Tokens of the target.", "Tokens of the target; of several, all together."),
)


def upgrade() -> None:
    # Queries from before are plain ones, and need no parts. Plain ALTER TABLE, no batch: that would make the table
    # anew on SQLite, while traces refer to it.
    op.add_column(
        "queries",
        sa.Column(
            "parts",
            sa.JSON(),
            nullable=True,
            comment="What is summed: prompt, target, weight, the prompt as the chat template renders it, and in a "
            "mean the query that a part belongs to; null when the only part is the target after the prompt.",
        ),
    )
    op.add_column(
        "queries",
        sa.Column(
            "chat",
            sa.Boolean(),
            server_default=sa.false(),
            nullable=False,
            comment="Whether a prompt was put into the model's chat template.",
        ),
    )
    if op.get_bind().dialect.name == "sqlite":  # which keeps no comments
        return
    for table, column, before, after in _COMMENTS:
        op.alter_column(table, column, comment=after, existing_comment=before)


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
