"""SQLAlchemy models of the catalog: small, transactional facts about what is in the lake's tables.

Notable: a snapshot is one row that names the version of every Lance table, and inserting it is the one moment at which
anything becomes visible. A publication is the journal entry that makes such a step repeatable after a crash.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Index, Integer, MetaData, String, Text, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from .settings import DEFAULT_CODES
from .tables import TABLE_MIGRATION


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, aware and in UTC on every database (SQLite keeps no time zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: object) -> datetime | None:
        """Store in UTC."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: object) -> datetime | None:
        """Read as UTC."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Base(DeclarativeBase):
    """Base of the catalog's models."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class Lock(Base):
    """Who may commit at present."""

    __tablename__ = "locks"

    name: Mapped[str] = mapped_column(String(255), primary_key=True, comment="What the lock protects.")
    token: Mapped[str] = mapped_column(String(32), comment="Drawn anew each time the lock is taken.")
    host: Mapped[str] = mapped_column(String(255), comment="Machine of the holder.")
    pid: Mapped[int] = mapped_column(comment="Process id of the holder.")
    process_start: Mapped[str] = mapped_column(String(64), comment="When that process began, since pids are reused.")
    expires_at: Mapped[datetime] = mapped_column(comment="When the lock is free unless it is renewed.")


class Run(Base):
    """One execution of a command that writes."""

    __tablename__ = "runs"

    run_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Id of the run.")
    kind: Mapped[str] = mapped_column(
        String(32),
        comment="init, migrate, model, ingest, entities, mark, delete, compact, repair, fit, encode, requantise, "
        "curvature, norms, index, trace or recompute.",
    )
    status: Mapped[str] = mapped_column(String(16), comment="running, done or failed.")
    settings: Mapped[dict[str, Any]] = mapped_column(comment="Everything that decides what the run does.")
    versions: Mapped[dict[str, Any]] = mapped_column(comment="Versions of proponent and of its libraries.")
    counts: Mapped[dict[str, Any]] = mapped_column(comment="What the run read, stored, skipped and rejected.")
    error: Mapped[str | None] = mapped_column(Text, comment="Why the run failed.")
    started_at: Mapped[datetime] = mapped_column(default=now, comment="When the run began.")
    finished_at: Mapped[datetime | None] = mapped_column(comment="When the run ended.")


class Unit(Base):
    """A piece of a run's work, for one worker at a time; it is gone when the run is over."""

    __tablename__ = "units"
    # What a worker asks, and the committer: the first of a run in some state.
    __table_args__ = (Index("ix_units_run_status_ordinal", "run_id", "status", "ordinal"),)

    unit_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Id of the unit.")
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), comment="Run that it is part of.")
    ordinal: Mapped[int] = mapped_column(comment="Its place in the run's work, from 0.")
    work: Mapped[dict[str, Any]] = mapped_column(comment="Which part of the work it is.")
    status: Mapped[str] = mapped_column(String(16), comment="waiting, leased, written, done or failed.")
    attempts: Mapped[int] = mapped_column(default=0, comment="How often it was begun.")
    token: Mapped[str | None] = mapped_column(String(32), comment="Drawn anew each time it is leased.")
    host: Mapped[str | None] = mapped_column(String(255), comment="Machine of the worker.")
    pid: Mapped[int | None] = mapped_column(comment="Process id of the worker.")
    process_start: Mapped[str | None] = mapped_column(String(64), comment="When that process began.")
    expires_at: Mapped[datetime | None] = mapped_column(comment="When it is free again unless its lease is renewed.")
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON, comment="What was written and counted, or the error.")


class Snapshot(Base):
    """A version of the whole lake."""

    __tablename__ = "snapshots"

    snapshot_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True, comment="Counts up from 1.")
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), comment="Run that published the snapshot.")
    versions: Mapped[dict[str, Any]] = mapped_column(comment="Version of every Lance table.")
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When the snapshot became visible.")
    erased_at: Mapped[datetime | None] = mapped_column(comment="When its data were erased; null while it can be read.")
    table_migration: Mapped[int] = mapped_column(
        default=TABLE_MIGRATION, server_default="0", comment="Last migration of the tables that its versions have had."
    )


class Publication(Base):
    """The journal of one publishing step: planned before the tables are touched, done with the snapshot."""

    __tablename__ = "publications"

    publication_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Key in the Lance transactions.")
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), comment="Run that publishes.")
    plan: Mapped[dict[str, Any]] = mapped_column(comment="For each table: base version, rows to delete, fragments.")
    snapshot_id: Mapped[int | None] = mapped_column(
        ForeignKey("snapshots.snapshot_id"), index=True, comment="The snapshot, once it is published."
    )
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When the publication was planned.")


class Batch(Base):
    """Rows that were written to a Lance table together, with a hash to find flipped bytes by."""

    __tablename__ = "batches"

    batch_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Id of the batch.")
    publication_id: Mapped[str] = mapped_column(
        ForeignKey("publications.publication_id"), index=True, comment="Publication that made it visible."
    )
    table_name: Mapped[str] = mapped_column(String(128), comment="Lance table that it is in.")
    files: Mapped[list[Any]] = mapped_column(comment="Data files that hold its rows.")
    n_rows: Mapped[int] = mapped_column(BigInteger, comment="Rows written.")
    content_hash: Mapped[str] = mapped_column(String(26), comment="Hash of the rows as Arrow data.")


class StoredFile(Base):
    """A file that a version of a table names beside its rows: manifest, deleted rows, index; hashed as it lies."""

    __tablename__ = "stored_files"

    table_name: Mapped[str] = mapped_column(String(128), primary_key=True, comment="Lance table that it belongs to.")
    path: Mapped[str] = mapped_column(String(255), primary_key=True, comment="Its path in the table's folder.")
    size: Mapped[int] = mapped_column(BigInteger, comment="Its bytes.")
    content_hash: Mapped[str] = mapped_column(String(26), comment="Hash of its bytes.")


class Corpus(Base):
    """A named collection of documents."""

    __tablename__ = "corpora"

    name: Mapped[str] = mapped_column(String(128), primary_key=True, comment="Name of the corpus.")
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was first ingested.")


class Withdrawal(Base):
    """A document that was withdrawn: it is in no snapshot since, and hidden in those before."""

    __tablename__ = "withdrawals"

    withdrawal_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Id of the withdrawal.")
    doc_id: Mapped[str] = mapped_column(String(26), index=True, comment="Document that was withdrawn.")
    doc_key: Mapped[str | None] = mapped_column(
        Text, comment="The corpus's own id of the document; null once it is forgotten."
    )
    corpus: Mapped[str] = mapped_column(String(128), comment="Corpus that it belonged to.")
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), index=True, comment="Run that withdrew it.")
    reason: Mapped[str | None] = mapped_column(Text, comment="Why, in the words of who withdrew it.")
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was withdrawn.")


class Model(Base):
    """A registered checkpoint."""

    __tablename__ = "models"

    model_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Hash of weights, tokenizer, moments.")
    name: Mapped[str] = mapped_column(String(64), unique=True, comment="Name given at registration.")
    path: Mapped[str] = mapped_column(Text, comment="Folder of the checkpoint.")
    architecture: Mapped[str] = mapped_column(String(128), comment="Class of the model in transformers.")
    n_parameters: Mapped[int] = mapped_column(BigInteger, comment="Parameters of the model.")
    n_layers: Mapped[int] = mapped_column(comment="Transformer layers of the model.")
    context_length: Mapped[int] = mapped_column(comment="Most tokens that the model reads at once.")
    weights_hash: Mapped[str] = mapped_column(String(26), comment="Hash of configuration and weights.")
    tokenizer_hash: Mapped[str] = mapped_column(String(26), comment="Hash of the tokenizer.")
    moments_path: Mapped[str | None] = mapped_column(Text, comment="File of the optimizer's second moments.")
    moments_hash: Mapped[str | None] = mapped_column(String(26), comment="Hash of that file.")
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was registered.")


class Encoder(Base):
    """Everything that decides an encoding. Encodings of different encoders are never compared."""

    __tablename__ = "encoders"

    name: Mapped[str] = mapped_column(String(128), primary_key=True, comment="Name of the encoder.")
    encoder_id: Mapped[str] = mapped_column(String(26), unique=True, comment="Hash of model and settings.")
    model_id: Mapped[str] = mapped_column(ForeignKey("models.model_id"), comment="Model whose gradients it takes.")
    dim: Mapped[int] = mapped_column(comment="Components of an encoding.")
    codes: Mapped[str] = mapped_column(
        String(16), server_default=DEFAULT_CODES, comment="Format of the stored vectors: float16, int8 or int4."
    )
    fidelity: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True), comment="How well the codes keep the order of scores, measured on a sample."
    )
    moments: Mapped[str] = mapped_column(String(32), comment="Kind of second moments that correct the gradients.")
    settings: Mapped[dict[str, Any]] = mapped_column(comment="Blocks, projection sizes, seed, precision, shrinkage.")
    projection_hash: Mapped[str] = mapped_column(String(26), comment="Hash of the random projections.")
    coverage: Mapped[float] = mapped_column(comment="Share of the model's parameters that the encoder sees.")
    uncovered: Mapped[list[Any]] = mapped_column(comment="Parameters that it does not see.")
    artifact: Mapped[str] = mapped_column(Text, comment="Fitted state in artifacts/.")
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was fitted.")


class Curvature(Base):
    """A Hessian approximation that scores are taken under."""

    __tablename__ = "curvatures"

    curvature_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Id of the curvature.")
    encoder: Mapped[str] = mapped_column(ForeignKey("encoders.name"), comment="Encoder that it belongs to.")
    name: Mapped[str] = mapped_column(String(64), comment="'reference' is the corpus's own, fitted with the encoder.")
    n_rows: Mapped[int] = mapped_column(BigInteger, comment="Passages, or a task's queries, that it was fitted on.")
    mixing: Mapped[float] = mapped_column(comment="Weight of the queries' curvature (lambda); 0 for the reference.")
    diagnostics: Mapped[dict[str, Any]] = mapped_column(comment="Shrinkage, ranks and spectra, block by block.")
    artifact: Mapped[str | None] = mapped_column(
        Text, comment="Fitted state of a task's in artifacts/; the reference is part of its encoder's."
    )
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was fitted.")


class Query(Base):
    """A prompt and the target whose loss is taken, or a weighted sum or a mean of such."""

    __tablename__ = "queries"

    query_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Hash of everything that is asked.")
    prompt: Mapped[str] = mapped_column(Text, comment="What the model was given; of a mean, what it is taken over.")
    target: Mapped[str] = mapped_column(Text, comment="What it said, or should say; several in plain words.")
    parts: Mapped[list[Any] | None] = mapped_column(
        JSON(none_as_null=True),
        comment="What is summed: prompt, target, weight, the prompt as the chat template renders it, and in a "
        "mean the query that a part belongs to; null when the only part is the target after the prompt.",
    )
    chat: Mapped[bool] = mapped_column(
        server_default=false(), comment="Whether a prompt was put into the model's chat template."
    )
    query_set: Mapped[str | None] = mapped_column(String(128), comment="Set that the query belongs to.")
    facts: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", JSON(none_as_null=True), comment="Every other field of the query's row in a file of queries."
    )
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was first asked.")


class Trace(Base):
    """One search for the passages that moved the model towards or away from a target."""

    __tablename__ = "traces"

    trace_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Id of the trace.")
    query_id: Mapped[str] = mapped_column(ForeignKey("queries.query_id"), index=True, comment="What was asked.")
    encoder: Mapped[str | None] = mapped_column(
        ForeignKey("encoders.name"), comment="Encoder of query and passages; null for bm25."
    )
    curvature: Mapped[str | None] = mapped_column(String(64), comment="Curvature of the score; null for bm25.")
    method: Mapped[str] = mapped_column(
        String(32),
        comment="Attribution method: trackstar, logra, trak, gradcos or graddot, whose scores are influence; bm25, "
        "which compares words; hybrid, which joins the ranks of one of those with bm25's.",
    )
    filter: Mapped[str | None] = mapped_column(Text, comment="Predicate applied before the search.")
    snapshot: Mapped[int] = mapped_column(ForeignKey("snapshots.snapshot_id"), comment="Snapshot that was searched.")
    k: Mapped[int] = mapped_column(comment="Hits asked for on each side.")
    exact: Mapped[bool] = mapped_column(comment="Whether every candidate was scored.")
    recall: Mapped[float | None] = mapped_column(
        comment="Measured recall of the index for what was asked, the lower of both sides; null without an index."
    )
    n_candidates: Mapped[int] = mapped_column(
        BigInteger, comment="Passages that passed the filter and could be scored."
    )
    score_mean: Mapped[float | None] = mapped_column(
        comment="Mean score of a random sample of encoded texts; null for bm25, hybrid and traces of older versions."
    )
    score_sd: Mapped[float | None] = mapped_column(comment="Standard deviation of the sample's scores.")
    score_sample: Mapped[int | None] = mapped_column(comment="Texts of the sample.")
    target_loss: Mapped[float | None] = mapped_column(
        comment="Summed cross-entropy of the target's own tokens, in nats; the mean over several targets or queries; "
        "null for bm25, which reads no model."
    )
    target_tokens: Mapped[int | None] = mapped_column(
        comment="Tokens of the target; of several, all together; null for bm25."
    )
    completed: Mapped[bool] = mapped_column(comment="Whether the model chose the target itself.")
    settings: Mapped[dict[str, Any]] = mapped_column(comment="Versions and settings that reproduce the trace.")
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was asked.")


class Recomputation(Base):
    """How the order of a trace's first hits changes when their gradients are compared in full."""

    __tablename__ = "recomputations"

    trace_id: Mapped[str] = mapped_column(ForeignKey("traces.trace_id"), primary_key=True, comment="The trace.")
    side: Mapped[str] = mapped_column(String(16), primary_key=True, comment="proponent or opponent.")
    n: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, comment="So many first hits were asked for; a side may have fewer."
    )
    n_texts: Mapped[int] = mapped_column(comment="Different texts among them, which are what is ordered.")
    tau: Mapped[float | None] = mapped_column(
        comment="Kendall's tau-b of the trace's order and that of the full gradients; null where one has no order."
    )
    tau_codes: Mapped[float | None] = mapped_column(comment="The same, of what storing vectors in codes changes.")
    tau_curvature: Mapped[float | None] = mapped_column(comment="The same, of what leaving out the curvature changes.")
    tau_projection: Mapped[float | None] = mapped_column(
        comment="The same, of what leaving out the projection changes."
    )
    scores: Mapped[list[Any]] = mapped_column(
        comment="Every hit's passage_id with its scores: stored, exact, unwhitened and full."
    )
    versions: Mapped[dict[str, Any]] = mapped_column(comment="Versions of proponent and of its libraries.")
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was computed.")


class IndexBuild(Base):
    """A vector index over an encoder's encodings, with the recall that was measured on them."""

    __tablename__ = "index_builds"

    index_id: Mapped[str] = mapped_column(String(26), primary_key=True, comment="Id of the build.")
    encoder: Mapped[str] = mapped_column(ForeignKey("encoders.name"), comment="Encoder whose encodings it covers.")
    kind: Mapped[str] = mapped_column(
        String(32), comment="rq3 or rq2: codes of 3 or 2 bits a component; others are of older versions and not used."
    )
    settings: Mapped[dict[str, Any]] = mapped_column(comment="Bits, the segments that the index had, and their bytes.")
    encodings_version: Mapped[int] = mapped_column(comment="Version of the encodings table that it covers.")
    n_rows: Mapped[int] = mapped_column(BigInteger, comment="Encodings that it covers.")
    recall: Mapped[dict[str, Any]] = mapped_column(
        comment="What recall was measured with, and of each method, curvature and k the recall of either side."
    )
    created_at: Mapped[datetime] = mapped_column(default=now, comment="When it was built.")
