"""The first catalog.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "corpora",
        sa.Column("name", sa.String(length=128), nullable=False, comment="Name of the corpus."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was first ingested."),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_corpora")),
    )
    op.create_table(
        "locks",
        sa.Column("name", sa.String(length=255), nullable=False, comment="What the lock protects."),
        sa.Column("token", sa.String(length=32), nullable=False, comment="Drawn anew each time the lock is taken."),
        sa.Column("host", sa.String(length=255), nullable=False, comment="Machine of the holder."),
        sa.Column("pid", sa.Integer(), nullable=False, comment="Process id of the holder."),
        sa.Column(
            "process_start",
            sa.String(length=64),
            nullable=False,
            comment="When that process began, since pids are reused.",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the lock is free unless it is renewed.",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_locks")),
    )
    op.create_table(
        "models",
        sa.Column("model_id", sa.String(length=26), nullable=False, comment="Hash of weights, tokenizer, moments."),
        sa.Column("name", sa.String(length=64), nullable=False, comment="Name given at registration."),
        sa.Column("path", sa.Text(), nullable=False, comment="Folder of the checkpoint."),
        sa.Column("architecture", sa.String(length=128), nullable=False, comment="Class of the model in transformers."),
        sa.Column("n_parameters", sa.BigInteger(), nullable=False, comment="Parameters of the model."),
        sa.Column("n_layers", sa.Integer(), nullable=False, comment="Transformer layers of the model."),
        sa.Column("context_length", sa.Integer(), nullable=False, comment="Most tokens that the model reads at once."),
        sa.Column("weights_hash", sa.String(length=26), nullable=False, comment="Hash of configuration and weights."),
        sa.Column("tokenizer_hash", sa.String(length=26), nullable=False, comment="Hash of the tokenizer."),
        sa.Column("moments_path", sa.Text(), nullable=True, comment="File of the optimizer's second moments."),
        sa.Column("moments_hash", sa.String(length=26), nullable=True, comment="Hash of that file."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was registered."),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", name=op.f("uq_models_name")),
    )
    op.create_table(
        "queries",
        sa.Column("query_id", sa.String(length=26), nullable=False, comment="Hash of prompt and target."),
        sa.Column("prompt", sa.Text(), nullable=False, comment="What the model was given."),
        sa.Column("target", sa.Text(), nullable=False, comment="What it said, or should say."),
        sa.Column("query_set", sa.String(length=128), nullable=True, comment="Set that the query belongs to."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was first asked."),
        sa.PrimaryKeyConstraint("query_id", name=op.f("pk_queries")),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(length=26), nullable=False, comment="Id of the run."),
        sa.Column(
            "kind", sa.String(length=32), nullable=False, comment="init, model, ingest, fit, encode, index or trace."
        ),
        sa.Column("status", sa.String(length=16), nullable=False, comment="running, done or failed."),
        sa.Column("settings", sa.JSON(), nullable=False, comment="Everything that decides what the run does."),
        sa.Column("versions", sa.JSON(), nullable=False, comment="Versions of proponent and of its libraries."),
        sa.Column("counts", sa.JSON(), nullable=False, comment="What the run read, stored, skipped and rejected."),
        sa.Column("error", sa.Text(), nullable=True, comment="Why the run failed."),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, comment="When the run began."),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True, comment="When the run ended."),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_table(
        "encoders",
        sa.Column("name", sa.String(length=128), nullable=False, comment="Name of the encoder."),
        sa.Column("encoder_id", sa.String(length=26), nullable=False, comment="Hash of model and settings."),
        sa.Column("model_id", sa.String(length=26), nullable=False, comment="Model whose gradients it takes."),
        sa.Column("dim", sa.Integer(), nullable=False, comment="Components of an encoding."),
        sa.Column(
            "moments",
            sa.String(length=32),
            nullable=False,
            comment="Kind of second moments that correct the gradients.",
        ),
        sa.Column(
            "settings", sa.JSON(), nullable=False, comment="Blocks, projection sizes, seed, precision, shrinkage."
        ),
        sa.Column("projection_hash", sa.String(length=26), nullable=False, comment="Hash of the random projections."),
        sa.Column(
            "coverage", sa.Double(), nullable=False, comment="Share of the model's parameters that the encoder sees."
        ),
        sa.Column("uncovered", sa.JSON(), nullable=False, comment="Parameters that it does not see."),
        sa.Column("artifact", sa.Text(), nullable=False, comment="Fitted state in artifacts/."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was fitted."),
        sa.ForeignKeyConstraint(["model_id"], ["models.model_id"], name=op.f("fk_encoders_model_id")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_encoders")),
        sa.UniqueConstraint("encoder_id", name=op.f("uq_encoders_encoder_id")),
    )
    op.create_table(
        "snapshots",
        sa.Column("snapshot_id", sa.Integer(), autoincrement=True, nullable=False, comment="Counts up from 1."),
        sa.Column("run_id", sa.String(length=26), nullable=False, comment="Run that published the snapshot."),
        sa.Column("versions", sa.JSON(), nullable=False, comment="Version of every Lance table."),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, comment="When the snapshot became visible."
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_snapshots_run_id")),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("pk_snapshots")),
    )
    op.create_table(
        "curvatures",
        sa.Column("curvature_id", sa.String(length=26), nullable=False, comment="Id of the curvature."),
        sa.Column("encoder", sa.String(length=128), nullable=False, comment="Encoder that it belongs to."),
        sa.Column(
            "name",
            sa.String(length=64),
            nullable=False,
            comment="'reference' is the corpus's own, fitted with the encoder.",
        ),
        sa.Column("n_rows", sa.BigInteger(), nullable=False, comment="Passages that it was fitted on."),
        sa.Column(
            "mixing",
            sa.Double(),
            nullable=False,
            comment="Weight of the queries' curvature (lambda); 0 for the reference.",
        ),
        sa.Column("diagnostics", sa.JSON(), nullable=False, comment="Shrinkage, ranks and spectra, block by block."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was fitted."),
        sa.ForeignKeyConstraint(["encoder"], ["encoders.name"], name=op.f("fk_curvatures_encoder")),
        sa.PrimaryKeyConstraint("curvature_id", name=op.f("pk_curvatures")),
    )
    op.create_table(
        "index_builds",
        sa.Column("index_id", sa.String(length=26), nullable=False, comment="Id of the build."),
        sa.Column("encoder", sa.String(length=128), nullable=False, comment="Encoder whose encodings it covers."),
        sa.Column("kind", sa.String(length=32), nullable=False, comment="Kind of Lance index."),
        sa.Column("settings", sa.JSON(), nullable=False, comment="Partitions, probes and refinement."),
        sa.Column(
            "encodings_version", sa.Integer(), nullable=False, comment="Version of the encodings table that it covers."
        ),
        sa.Column("n_rows", sa.BigInteger(), nullable=False, comment="Encodings that it covers."),
        sa.Column("recall", sa.JSON(), nullable=False, comment="Measured recall at 10 by side, and its sample size."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was built."),
        sa.ForeignKeyConstraint(["encoder"], ["encoders.name"], name=op.f("fk_index_builds_encoder")),
        sa.PrimaryKeyConstraint("index_id", name=op.f("pk_index_builds")),
    )
    op.create_table(
        "publications",
        sa.Column("publication_id", sa.String(length=26), nullable=False, comment="Key in the Lance transactions."),
        sa.Column("run_id", sa.String(length=26), nullable=False, comment="Run that publishes."),
        sa.Column(
            "plan", sa.JSON(), nullable=False, comment="For each table: base version, rows to delete, fragments."
        ),
        sa.Column("snapshot_id", sa.Integer(), nullable=True, comment="The snapshot, once it is published."),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, comment="When the publication was planned."
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_publications_run_id")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.snapshot_id"], name=op.f("fk_publications_snapshot_id")),
        sa.PrimaryKeyConstraint("publication_id", name=op.f("pk_publications")),
    )
    with op.batch_alter_table("publications", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_publications_snapshot_id"), ["snapshot_id"], unique=False)

    op.create_table(
        "traces",
        sa.Column("trace_id", sa.String(length=26), nullable=False, comment="Id of the trace."),
        sa.Column("query_id", sa.String(length=26), nullable=False, comment="What was asked."),
        sa.Column("encoder", sa.String(length=128), nullable=False, comment="Encoder of query and passages."),
        sa.Column("curvature", sa.String(length=64), nullable=False, comment="Curvature of the score."),
        sa.Column("method", sa.String(length=32), nullable=False, comment="Attribution method."),
        sa.Column("filter", sa.Text(), nullable=True, comment="Predicate applied before the search."),
        sa.Column("snapshot", sa.Integer(), nullable=False, comment="Snapshot that was searched."),
        sa.Column("k", sa.Integer(), nullable=False, comment="Hits asked for on each side."),
        sa.Column("exact", sa.Boolean(), nullable=False, comment="Whether every candidate was scored."),
        sa.Column("recall", sa.Double(), nullable=True, comment="Measured recall@10 of the index, when one was used."),
        sa.Column(
            "n_candidates",
            sa.BigInteger(),
            nullable=False,
            comment="Passages that passed the filter and could be scored.",
        ),
        sa.Column(
            "target_loss", sa.Double(), nullable=False, comment="Summed cross-entropy of the target's tokens, in nats."
        ),
        sa.Column("target_tokens", sa.Integer(), nullable=False, comment="Tokens of the target."),
        sa.Column("completed", sa.Boolean(), nullable=False, comment="Whether the model chose the target itself."),
        sa.Column("settings", sa.JSON(), nullable=False, comment="Versions and settings that reproduce the trace."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was asked."),
        sa.ForeignKeyConstraint(["encoder"], ["encoders.name"], name=op.f("fk_traces_encoder")),
        sa.ForeignKeyConstraint(["query_id"], ["queries.query_id"], name=op.f("fk_traces_query_id")),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot_id"], name=op.f("fk_traces_snapshot")),
        sa.PrimaryKeyConstraint("trace_id", name=op.f("pk_traces")),
    )
    with op.batch_alter_table("traces", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_traces_query_id"), ["query_id"], unique=False)

    op.create_table(
        "batches",
        sa.Column("batch_id", sa.String(length=26), nullable=False, comment="Id of the batch."),
        sa.Column("publication_id", sa.String(length=26), nullable=False, comment="Publication that made it visible."),
        sa.Column("table_name", sa.String(length=128), nullable=False, comment="Lance table that it is in."),
        sa.Column("files", sa.JSON(), nullable=False, comment="Data files that hold its rows."),
        sa.Column("n_rows", sa.BigInteger(), nullable=False, comment="Rows written."),
        sa.Column("content_hash", sa.String(length=26), nullable=False, comment="Hash of the rows as Arrow data."),
        sa.ForeignKeyConstraint(
            ["publication_id"], ["publications.publication_id"], name=op.f("fk_batches_publication_id")
        ),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_batches")),
    )
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_batches_publication_id"), ["publication_id"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("a downgrade is a restore from a backup")
