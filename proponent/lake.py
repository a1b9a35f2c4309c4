"""The public Python API: a lake, and everything one does with it.

Notable: torch and the models load when the first operation needs them, and then stay loaded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import func, select

from proponent import migrations
from proponent.schema import catalog as models
from proponent.schema.errors import SettingsError
from proponent.schema.settings import (
    BM25,
    DEFAULT_CODES,
    HYBRID,
    REFERENCE,
    SIMILAR,
    CurvatureSettings,
    EncoderSettings,
    EvaluationSettings,
    FieldMapping,
    GroupSettings,
    IngestSettings,
    NearDuplicateSettings,
    TailPatchSettings,
    TraceSettings,
)
from proponent.schema.tables import encodings_table
from proponent.store.catalog import catalog_name
from proponent.store.commit import finish_interrupted
from proponent.store.lake import DEFAULT_CATALOG, LakeStore, create_store, open_store
from proponent.store.runs import new_run
from proponent.store.snapshots import Snapshot, get_snapshot, latest_snapshot
from proponent.store.stale import encoded_texts

from .encoders import EncoderCache, encoder_row

if TYPE_CHECKING:
    from proponent.encode.checkpoint import Checkpoint
    from proponent.ingest.corpus import Counts
    from proponent.ingest.cutter import Cutter
    from proponent.ingest.encode_work import EncodeCounts
    from proponent.ingest.preview import Preview
    from proponent.ingest.progress import Tell
    from proponent.query.evaluate.results import Evaluation
    from proponent.query.evaluate.study import Tell as EvaluationTell
    from proponent.query.explain import Explanation
    from proponent.query.questions import Ask
    from proponent.query.results import Result
    from proponent.query.session import Session

StrPath = str | Path
Progress = Callable[[int], object]


def _ignore(_n: int) -> None:
    """Take no notice of progress."""


def init(path: StrPath, *, catalog: str = DEFAULT_CATALOG) -> "Lake":
    """Make a lake in a new or empty folder, or finish one whose making was cut short; return it open.

    Raises LakeError when the folder holds other things, or a lake already.
    """
    run = new_run("init", {"catalog": catalog_name(catalog)})
    run.status, run.finished_at = "done", models.now()
    return Lake(create_store(Path(path), catalog=catalog, upgrade=migrations.upgrade, run=run))


def open(path: StrPath) -> "Lake":  # noqa: A001
    """Open a lake.

    Raises LakeNotFoundError, LakeHalfMadeError or LakeVersionError, with what to do about it.
    """
    store = open_store(Path(path))
    try:
        migrations.require_current(store.catalog.engine, lake=str(path))
    except BaseException:
        store.close()
        raise
    return Lake(store)


def restore(
    backup: StrPath,
    path: StrPath,
    *,
    catalog: str = DEFAULT_CATALOG,
    accept_damage: bool = False,
    progress: Progress = _ignore,
) -> dict[str, Any]:
    """Make a lake of a backup in a new or empty folder; return the newest snapshot, files, bytes and damage.

    It is checked before it gets its name. `progress` is told bytes. Raises LakeError when the folder is not empty or
    the catalog is in use, DamagedLakeError for a backup that was cut short or changed, and, unless `accept_damage`, for
    a lake that was damaged when the backup was made.
    """
    from proponent.store.restore import restore as make

    done = make(
        Path(backup),
        Path(path),
        upgrade=migrations.upgrade,
        catalog=catalog,
        accept_damage=accept_damage,
        progress=progress,
    )
    return vars(done) | {"damage": [f"{finding.where}: {finding.what}" for finding in done.damage]}


def _several(files: StrPath | Sequence[StrPath]) -> Sequence[StrPath]:
    return [files] if isinstance(files, str | Path) else files


def _ingest_settings(corpus: str, settings: dict[str, Any]) -> IngestSettings:
    """Return the settings of an ingest, of which those that are names of fields are the mapping."""
    mapped = {name: settings[name] for name in settings if name in FieldMapping.__dataclass_fields__}
    others = {name: value for name, value in settings.items() if name not in mapped}
    explicit = frozenset(name for name, field in mapped.items() if field is not None)
    return IngestSettings(corpus=corpus, fields=FieldMapping(**mapped), explicit_fields=explicit, **others)


def _question(
    prompt: str | Sequence[Mapping[str, str]], target: str | Sequence[str] | None, instead: str | None, chat: bool
) -> dict[str, Any]:
    """Return a question as a row of a file of queries."""
    return {
        "prompt" if isinstance(prompt, str) else "messages": prompt,
        "target" if target is None or isinstance(target, str) else "targets": target,
        "instead": instead,
        "chat": chat or not isinstance(prompt, str),
    }


class Lake:
    """An open lake. Use it in a with block, or close it."""

    def __init__(self, store: LakeStore) -> None:
        self.store = store
        self._encoders = EncoderCache(store)
        self._session: tuple[tuple[int, ...], Session] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lake {self.store.root}>"

    def close(self) -> None:
        """Close the SQL session and the catalog."""
        if self._session:
            self._session[1].close()
            self._session = None
        self.store.close()

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return latest_snapshot(self.store.catalog)

    # What goes in

    def ingest(
        self,
        files: StrPath | Sequence[StrPath],
        *,
        corpus: str,
        tokenizer: StrPath | None = None,
        workers: int = 1,
        progress: "Tell | None" = None,
        **settings: Any,
    ) -> "Counts":
        """Add or update the documents of corpus files; return what became of every row.

        Files are names, patterns, folders or URLs of JSON Lines, JSON, CSV, TSV, Parquet, Arrow, text and WARC, and
        Hugging Face datasets on disk. `settings` are those of IngestSettings, and the names of fields as in
        FieldMapping (`id="key"`). Passages are measured by the tokenizer in a checkpoint's folder, by default that of
        the only registered model, and in characters where there is none. One worker is this process; more are
        processes. `progress` is told how far they are. Raises CorpusError and changes nothing when the corpus cannot
        be taken.
        """
        from proponent.ingest.corpus import ingest
        from proponent.ingest.progress import tell_nobody

        chosen = _ingest_settings(corpus, settings)
        cutter, tell = self._cutter(tokenizer, chosen), progress or tell_nobody
        return ingest(self.store, _several(files), chosen, cutter, workers=workers, tell=tell)

    def preview(
        self,
        files: StrPath | Sequence[StrPath],
        *,
        corpus: str,
        tokenizer: StrPath | None = None,
        rows: int = 10,
        **settings: Any,
    ) -> "Preview":
        """Return what `ingest` would make of the first rows, and write nothing."""
        from proponent.ingest.preview import preview

        chosen = _ingest_settings(corpus, settings)
        return preview(_several(files), chosen, self._cutter(tokenizer, chosen), rows=rows)

    def _cutter(self, tokenizer: StrPath | None, settings: IngestSettings) -> "Cutter":
        from proponent.encode.checkpoint import read_context_length
        from proponent.ingest.cutter import character_cutter, token_cutter

        if tokenizer is None:
            with self.store.catalog.read() as session:
                registered = list(session.scalars(select(models.Model)))
            if not registered:
                return character_cutter(settings.max_chars, overlap=settings.overlap)
            if len(registered) > 1:
                names = ", ".join(sorted(model.name for model in registered))
                raise SettingsError(f"several models are registered ({names}); name the folder of one with --tokenizer")
            path, context = Path(registered[0].path), registered[0].context_length
        else:
            path = Path(tokenizer)
            context = read_context_length(path)
        return token_cutter(path, budget=settings.max_tokens or context, overlap=settings.overlap)

    def extract_entities(
        self,
        gazetteer: StrPath | None = None,
        *,
        spacy: StrPath | None = None,
        name: str | None = None,
        progress: Progress = _ignore,
    ) -> dict[str, int]:
        """Find entities in the passages that were not searched for them yet; return how many there were of what.

        They are those of a gazetteer, called `names` unless it is given a name, or those that a spaCy pipeline finds:
        an installed package or a saved pipeline's folder, called after it. Another gazetteer or model of the same name
        reads all passages again and replaces what the former found. Raises CorpusError for a file that is no
        gazetteer, ModelError for a pipeline that cannot be used, and LakeBusyError while the same is done elsewhere.
        """
        from proponent.ingest.entities import extract
        from proponent.ingest.gazetteer import read_gazetteer
        from proponent.ingest.spacy_pipeline import load_spacy

        if gazetteer is not None and spacy is None:
            counts = extract(self.store, read_gazetteer(Path(gazetteer)), name=name or "names", progress=progress)
        elif spacy is not None and gazetteer is None:
            counts = extract(self.store, load_spacy(spacy), name=name or Path(spacy).name, progress=progress)
        else:
            raise SettingsError("give either a gazetteer or the spaCy pipeline that finds the entities")
        return vars(counts).copy()

    def mark(self, where: str, *, trained_on: bool | None, dry_run: bool = False) -> dict[str, int]:
        """Say of the documents that have a passage which passes a filter whether the model was trained on them.

        None says that nobody knows. Returns how many documents are meant, and how many of them said something else
        before. A dry run only counts. Raises FilterError, and LakeBusyError while the documents are being ingested.
        """
        from proponent.ingest.marks import mark
        from proponent.query.search import documents_passing

        found = documents_passing(self._current_session(), where)
        return vars(mark(self.store, found, trained_on=trained_on, where=where, dry_run=dry_run)).copy()

    def mark_near_duplicates(self, *, threshold: float = SIMILAR, progress: Progress = _ignore) -> dict[str, int]:
        """Mark documents that say nearly the same as another one in relation `near_duplicates`; return how many.

        `threshold` is the least share of their shingles that both have. All documents are compared, and earlier marks
        replaced. Raises SettingsError for a threshold below 0.5 or above 1, LakeBusyError during an ingest.
        """
        from proponent.ingest.near_duplicates import mark_near_duplicates

        settings = NearDuplicateSettings(threshold=threshold)
        return vars(mark_near_duplicates(self.store, settings, progress=progress)).copy()

    def delete(self, where: str, *, reason: str | None = None, dry_run: bool = False) -> dict[str, int]:
        """Withdraw the documents that have a passage which passes a filter; return what that touched.

        They are in no snapshot from then on and hidden in those before, with their passages, mentions, hits, and the
        encodings of texts that no other document has. A dry run only counts. Raises FilterError, and LakeBusyError
        while the documents are being ingested or passages encoded.
        """
        from proponent.ingest.withdrawals import withdraw
        from proponent.query.search import documents_passing

        found = documents_passing(self._current_session(), where)
        return vars(withdraw(self.store, found, reason=reason, dry_run=dry_run))

    def compact(self, *, forget: bool = False, dry_run: bool = False, progress: Progress = _ignore) -> dict[str, Any]:
        """Write tables of many small files anew, and remove files that no snapshot needs; return what that did.

        With `forget`, what is left of withdrawn documents is erased, and the snapshots that have them cannot be read
        any more. A dry run only says what would go. Raises LakeBusyError while anybody writes to the lake; a run that
        was cut short is finished by the next.
        """
        from proponent.store.compaction import compact

        done = vars(compact(self.store, forget=forget, dry_run=dry_run, progress=progress))
        if not dry_run:
            self._measure_indexes()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in done.items()}

    def check(
        self, *, deep: bool = False, repair: bool = False, go_back: bool = False, progress: Progress = _ignore
    ) -> list[dict[str, str]]:
        """Compare all that is stored with what is said of it; return what is wrong: grade, table, where, what, remedy.

        Grades are `damage`, `leftover` of dead processes, and `note`, which is nothing wrong. `deep` reads the files of
        earlier snapshots, too. `repair` mends what can be mended without guessing, which is `mended`, and returns what
        is left. `go_back` first puts damaged documents back to the newest snapshot that has them whole. Raises
        LakeBusyError while the lake is compacted or, with `repair` and `go_back`, written, and DamagedLakeError when
        there is nothing to go back to.
        """
        from proponent.store import check as checking
        from proponent.store.check.going_back import go_back as put_back
        from proponent.store.check.repair import repair as mend

        find = mend if repair else checking.check
        went = [put_back(self.store, progress=progress)] if go_back else []
        found = went + find(self.store, deep=deep, progress=progress)
        columns = ("grade", "table", "where", "what", "remedy")
        return [{name: getattr(finding, name) for name in columns} for finding in found]

    def backup(self, folder: StrPath, *, progress: Progress = _ignore) -> dict[str, int]:
        """Copy the lake as it is at one moment into a folder, or bring the backup there up to date.

        Others may read and write meanwhile. `progress` is told bytes. Returns the newest snapshot, files, bytes, and
        how many files were copied. Raises LakeError for a folder that holds other things, LakeBusyError while the
        lake is compacted.
        """
        from proponent.store.backup import back_up

        return vars(back_up(self.store, Path(folder), upgrade=migrations.upgrade, progress=progress)).copy()

    def add_model(
        self, path: StrPath, *, name: str, moments: StrPath | None = None, context_length: int | None = None
    ) -> dict[str, Any]:
        """Register a checkpoint of transformers, with its optimizer's second moments if there are any.

        A checkpoint is a folder, of a model or of adapters, or a GGUF file.
        """
        from proponent.ingest.models import add_model, describe

        moments = Path(moments) if moments else None
        return describe(add_model(self.store, Path(path), name=name, moments=moments, context_length=context_length))

    def coverage(self, model: str | None = None) -> list[dict[str, Any]]:
        """Return which parameters of a registered model its encoders see, kind by kind, without loading it."""
        from proponent.encode.checkpoint import skeleton
        from proponent.encode.layers import coverage_by_kind
        from proponent.ingest.models import facts_of, get_model

        return coverage_by_kind(skeleton(facts_of(get_model(self.store, model))))

    def model(self, name: str | None = None) -> "Checkpoint":
        """Return a registered model with its tokenizer, loaded, by default the only one."""
        from proponent.ingest.models import get_model

        return self._encoders.checkpoint(get_model(self.store, name))

    def encode(
        self,
        model: str | None = None,
        *,
        encoder: str | None = None,
        settings: EncoderSettings | None = None,
        codes: str | None = None,
        truncate: bool = False,
        only: str | None = None,
        workers: int = 1,
        progress: "Tell | None" = None,
    ) -> "EncodeCounts":
        """Fit the model's encoder where there is none yet, then encode every passage that it has not encoded.

        `only` is a filter on passages. The encoder is called after its model unless it is given a name. `codes` is the
        format that a new encoder's vectors are stored in: float16, int8 (the default) or int4. Raises SettingsError
        for another format than an encoder has.
        """
        from proponent.ingest.encoding import (
            encode_missing,
            find_encoder,
            fit_encoder,
            require_encodings,
            require_same_codes,
            resolve_settings,
        )
        from proponent.ingest.models import get_model, model_of_encoder
        from proponent.ingest.progress import Progress as RunProgress
        from proponent.ingest.progress import tell_nobody
        from proponent.query.search import passing

        tell = progress or tell_nobody
        if model is None and encoder is not None:
            model = model_of_encoder(self.store, encoder)
        registered = get_model(self.store, model)
        name = encoder or registered.name
        resolved = resolve_settings(settings or EncoderSettings(), registered)
        row = find_encoder(self.store, name, encoder_id=resolved.encoder_id(model_id=registered.model_id))
        keys = passing(self._current_session(), only)["text_hash"].combine_chunks() if only else None
        if row is None:
            checkpoint = self._encoders.checkpoint(registered, precision=resolved.precision)
            row, fitted = fit_encoder(
                self.store, registered, checkpoint, resolved, name=name, codes=codes or DEFAULT_CODES, tell=tell
            )
            self._encoders.keep(row, fitted)
        require_same_codes(row, codes)
        made = row
        counts = encode_missing(
            self.store,
            name,
            lambda: self._encoders.encoder(made),
            truncate=truncate,
            only=keys,
            workers=workers,
            tell=tell,
        )
        require_encodings(counts, encoder=name)
        self._keep_sums(made, progress=lambda n: tell(RunProgress("summing groups", n, 0)))
        return counts

    def requantise(self, encoder: str | None = None, *, codes: str, progress: Progress = _ignore) -> dict[str, Any]:
        """Store an encoder's vectors in a coarser format, without its model; return what that loses.

        The order of formats is float16, int8, int4. Earlier snapshots keep the finer vectors. Raises SettingsError for
        a format that is not coarser than the present one.
        """
        from proponent.store.requantise import requantise

        row = requantise(self.store, encoder_row(self.store, encoder), codes, progress=progress)
        self._keep_sums(row)
        return {"encoder": row.name, "codes": row.codes, "fidelity": row.fidelity}

    def index(
        self, encoder: str | None = None, *, kind: str | None = None, progress: Progress = _ignore
    ) -> dict[str, Any]:
        """Build or update the vector index of an encoder; return its size and its measured recall.

        `kind` is `rq3` or `rq2`, by default that of the present index. `measured` has a row for each method, curvature
        and k: the recall of either side, and how many candidates the index proposes for each hit.
        """
        from proponent.query.recall import describe, measure_index
        from proponent.store.indexes import build_index

        row = encoder_row(self.store, encoder)
        at = build_index(self.store, row, kind=kind, progress=progress)
        return describe(measure_index(self.store, at, row))

    def require_encoder(self, name: str | None = None) -> str:
        """Return the name of an encoder, by default of the only one. Raises NotFoundError when there is no such one."""
        return encoder_row(self.store, name).name

    def encoders(self) -> list[str]:
        """Return the names of the encoders that have encoded something."""
        at = self.snapshot
        with self.store.catalog.read() as session:
            names = session.scalars(select(models.Encoder.name).order_by(models.Encoder.name))
            return [name for name in names if at.has(encodings_table(name))]

    def index_columns(self) -> dict[str, int]:
        """Index the columns that SQL and filters look single rows up by; return the rows added, by table."""
        from proponent.store.column_indexes import build_column_indexes

        return build_column_indexes(self.store)

    def _measure_indexes(self) -> None:
        """Measure the indexes that were built without that, by a compaction."""
        from proponent.query.recall import measure_index, unmeasured

        for row in unmeasured(self.store, self.snapshot):
            measure_index(self.store, self.snapshot, row)

    def index_text(self) -> dict[str, int]:
        """Build the full-text index, or add the passages that arrived since; return how many it covers and added.

        Methods `bm25` and `hybrid` search it. Raises NotFoundError for a lake without passages.
        """
        from proponent.store.full_text import build_full_text

        return vars(build_full_text(self.store)).copy()

    def fit_curvature(
        self,
        questions: Iterable["tuple[str, str] | Mapping[str, Any] | Ask"],
        *,
        name: str,
        encoder: str | None = None,
        mixing: float | None = None,
        query_set: str | None = None,
        progress: Progress = _ignore,
    ) -> dict[str, Any]:
        """Fit the curvature of a task on its queries with their true targets, for `trace(curvature=name)`.

        A query is a pair of prompt and target, or has the fields of a file of queries.
        `mixing` is lambda; without it a rule chooses it. Returns lambda, how it was chosen, and rank and k behind it.
        Fitting the same again changes nothing. Raises SettingsError when the name belongs to another curvature.
        """
        from proponent.query.curvatures import describe, fit_curvature
        from proponent.query.questions import resolve_all

        settings = CurvatureSettings(name=name, mixing=mixing)
        row = encoder_row(self.store, encoder)
        loaded = self._encoders.encoder(row)
        asked = resolve_all(questions, loaded, query_set=query_set, average=False)
        fitted = fit_curvature(self.store, asked, settings, encoder_row=row, encoder=loaded, progress=progress)
        self._keep_sums(row, name)
        return describe(fitted)

    def _keep_sums(self, row: models.Encoder, curvature: str = REFERENCE, *, progress: Progress = _ignore) -> None:
        """Bring the group sums under a curvature up to date, so that nobody who asks has to wait for them."""
        from proponent.query.curvatures import find_curvature
        from proponent.query.groups import keep_sums

        keep_sums(self.store, find_curvature(self.store, row, None, curvature), row, progress)

    # What comes out

    def trace(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        target: str | Sequence[str] | None = None,
        *,
        instead: str | None = None,
        chat: bool = False,
        encoder: str | None = None,
        at: int | None = None,
        **settings: Any,
    ) -> "Result":
        """Find the passages that moved the model towards or away from a target; without one, the model completes.

        Several targets are one question whose loss is the mean of theirs. `instead` asks why the target and not that.
        `chat` puts the prompt into the model's chat template as a user's turn; a list of messages (`role` and
        `content`) goes into it as it is. `settings` are those of TraceSettings: k, method, curvature, filter,
        approximate, min_recall, fuse, rank_constant, memory, threads. Method `bm25` compares words and needs a target,
        but no encoder. `at` is the snapshot that is searched, by default the newest. Returns rows of relation
        `influence`.
        """
        question = _question(prompt, target, instead, chat)
        return self.hits(self.trace_all([question], encoder=encoder, at=at, **settings), at=at)

    def trace_all(
        self,
        questions: Iterable["tuple[str, str | None] | Mapping[str, Any] | Ask"],
        *,
        encoder: str | None = None,
        query_set: str | None = None,
        average: bool = False,
        at: int | None = None,
        progress: Progress = _ignore,
        **settings: Any,
    ) -> list[str]:
        """Trace many questions in one pass over the encodings; return the traces' ids in order.

        A question is a pair of prompt and target, or has the fields of a file of queries. With `average` all of them
        are one trace, whose score of a passage is the mean of the scores that each question alone gives. `at` is the
        snapshot that is searched, without what was withdrawn since.
        """
        from proponent.encode.methods import METHODS
        from proponent.query.hybrid import trace_hybrid
        from proponent.query.lexical import trace_words
        from proponent.query.questions import resolve_all
        from proponent.query.trace import trace

        chosen = TraceSettings(encoder=encoder, **settings)
        if chosen.method == BM25:
            asked = resolve_all(questions, None, query_set=query_set, average=average)
            finish_interrupted(self.store)
            with self._session_at(at) as session:
                return trace_words(self.store, session, session.at, asked, chosen)
        row = encoder_row(self.store, encoder, with_moments=METHODS[chosen.influence].needs_moments)
        loaded = self._encoders.encoder(row)
        asked = resolve_all(questions, loaded, query_set=query_set, average=average)
        finish_interrupted(self.store)
        search = trace_hybrid if chosen.method == HYBRID else trace
        with self._session_at(at) as session:
            return search(
                self.store, session, session.at, asked, chosen, encoder_row=row, encoder=loaded, progress=progress
            )

    def group_influence(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        target: str | Sequence[str] | None = None,
        *,
        by: str = "source",
        instead: str | None = None,
        chat: bool = False,
        **settings: Any,
    ) -> "Result":
        """Return how much whole groups of passages influence an answer: all their passages, and not only the hits.

        Groups are `by` source, entity, month or corpus. A question is asked as of `trace`, and `settings` are those of
        `group_influence_all`, which says what is returned.
        """
        return self.group_influence_all([_question(prompt, target, instead, chat)], by=by, **settings)

    def group_influence_all(
        self,
        questions: Iterable["tuple[str, str | None] | Mapping[str, Any] | Ask"],
        *,
        by: str = "source",
        names: Iterable[str | None] | None = None,
        k: int | None = None,
        at: int | None = None,
        encoder: str | None = None,
        average: bool = False,
        progress: Progress = _ignore,
        **settings: Any,
    ) -> "Result":
        """Return the influence of groups on many questions, which are asked as of `trace_all`; nothing is stored.

        Columns are `prompt, target, kind, name` (None: passages without a source or date), `n_passages`, `influence`
        (the sum of their scores), `mean` (of a passage), `share` (of all groups' influences without their signs; none
        where groups overlap, as entities do), `passage_share` (of all passages) and `others`: in a last row, how many
        groups have no sum of their own. `names` are the only groups wanted, those without a sum among them. `k` leaves
        that many of highest and of lowest influence. `settings` are method and curvature, as of `trace`.
        """
        from proponent.encode.methods import METHODS
        from proponent.query.groups import groups_for
        from proponent.query.questions import resolve_all
        from proponent.query.results import Result

        wanted = GroupSettings(by=by, names=None if names is None else tuple(names), k=k)
        chosen = TraceSettings(encoder=encoder, **settings)
        if chosen.method not in METHODS:
            raise SettingsError(f"groups are weighed by one of {', '.join(METHODS)}, not by {chosen.method!r}")
        row = encoder_row(self.store, encoder, with_moments=METHODS[chosen.method].needs_moments)
        loaded = self._encoders.encoder(row)
        asked = resolve_all(questions, loaded, query_set=None, average=average)
        found = groups_for(
            self.store, self._state(at), asked, wanted, chosen, encoder_row=row, encoder=loaded, progress=progress
        )
        return Result(found)

    def group_influence_of(
        self,
        trace: str,
        *,
        by: str = "source",
        names: Iterable[str | None] | None = None,
        k: int | None = None,
        at: int | None = None,
    ) -> "Result":
        """Return the influence of groups on what a stored trace asked, without loading the model.

        `trace` is an id, the beginning of one, or `last`; its method and curvature are taken, and its filter is not.
        """
        from proponent.query.groups import groups_for_trace
        from proponent.query.results import Result
        from proponent.query.stored import resolve_trace

        wanted = GroupSettings(by=by, names=None if names is None else tuple(names), k=k)
        return Result(groups_for_trace(self.store, self._state(at), resolve_trace(self.store, trace), wanted))

    def _state(self, at: int | None) -> Snapshot:
        """Return a snapshot by its number, or the newest after what was cut short is finished."""
        if at is not None:
            return get_snapshot(self.store.catalog, at)
        finish_interrupted(self.store)
        return self.snapshot

    def complete(
        self, prompt: str, *, encoder: str | None = None, chat: bool = False, max_tokens: int | None = None
    ) -> str:
        """Return the model's greedy completion of a prompt, or its answer in a chat."""
        from proponent.encode.tokens import chat_prompt, completion

        loaded = self._encoders.encoder(encoder_row(self.store, encoder))
        checkpoint = loaded.projector.checkpoint
        text = chat_prompt(checkpoint.tokenizer, [{"role": "user", "content": prompt}]) if chat else prompt
        return completion(
            checkpoint.model,
            checkpoint.tokenizer,
            text,
            rendered=chat,
            max_tokens=max_tokens,
            context_length=loaded.context_length,
        )

    def explain(self, trace: str, passage: str) -> "Explanation":
        """Split the score of a passage under a stored trace into shares of its tokens.

        `trace` is an id, the beginning of one, or `last`; `passage` is an id, or the rank of a proponent. Raises
        NotFoundError for a passage that the trace's encoder has not encoded, SettingsError for a trace whose scores
        are not of gradients.
        """
        from proponent.query.explain import explain

        trace_id, row = self._trace_of_gradients(trace)
        loaded = self._encoders.encoder(row)
        return explain(self.store, self._current_session(), trace_id, passage, encoder_row=row, encoder=loaded)

    def recompute(self, trace: str, n: int | None = None, *, progress: Progress = _ignore) -> list[dict[str, Any]]:
        """Score a stored trace's n first hits of each side again with full gradients; return how their order changes.

        By default all of its hits. `tau` is Kendall's tau-b of the trace's order and that of gradients in float32
        without codes, curvature and projection; `tau_codes`, `tau_curvature` and `tau_projection` tell what each of
        these changes. The passages' scores are in relation `recomputed`. Raises SettingsError for a trace whose scores
        are not of gradients.
        """
        from proponent.query.recompute import describe, recompute

        trace_id, row = self._trace_of_gradients(trace)
        loaded, session = self._encoders.in_full_precision(row), self._current_session()
        rows = recompute(self.store, session, trace_id, n=n, encoder_row=row, encoder=loaded, progress=progress)
        return [describe(row) for row in rows]

    def _trace_of_gradients(self, name: str) -> tuple[str, models.Encoder]:
        """Return the id of a stored trace, and its encoder."""
        from proponent.query.stored import require_gradients, resolve_trace

        trace_id = resolve_trace(self.store, name)
        with self.store.catalog.read() as session:
            stored = session.get_one(models.Trace, trace_id)
        require_gradients(trace_id, stored.method)
        return trace_id, encoder_row(self.store, stored.encoder)

    def evaluate(
        self,
        facts: "StrPath | Iterable[Mapping[str, Any]]",
        *,
        output: StrPath | None = None,
        at: int | None = None,
        tell: "EvaluationTell | None" = None,
        tail_patch: int | TailPatchSettings = 0,
        **settings: Any,
    ) -> "Evaluation":
        """Measure whether methods find the passages that state facts, and whether what they find moves the model.

        Facts are a file, or rows with the fields of one (`docs/evaluate.md`). `settings` are those of
        EvaluationSettings: methods, filter, depth, seed, resamples, confidence. `tail_patch` is on how many facts
        influence is measured, or its settings. The folder `output` gets results.json, results.md and results.html,
        and what it has already is not computed again. Raises InputError for facts that are none, and what `trace_all`
        raises.
        """
        from proponent.query.evaluate.facts import read_facts
        from proponent.query.evaluate.results import Evaluation
        from proponent.query.evaluate.study import evaluate, tell_nobody

        from .rows import rows_of

        rows, origin = (rows_of(Path(facts)), str(facts)) if isinstance(facts, str | Path) else (facts, "facts")
        patching = TailPatchSettings(facts=tail_patch) if isinstance(tail_patch, int) else tail_patch
        chosen = EvaluationSettings(tail_patch=patching, **settings)
        folder = None if output is None else Path(output)
        with self._session_at(at) as session:
            found = evaluate(
                self.store,
                session,
                session.at,
                read_facts(rows, origin=origin),
                chosen,
                loader=self._encoders,
                output=folder,
                tell=tell or tell_nobody,
            )
        evaluation = Evaluation(found)
        if folder is not None:
            evaluation.write(folder)
        return evaluation

    def hits(
        self, trace_ids: Sequence[str], *, at: int | None = None, fused: bool = False, recomputed: int | None = None
    ) -> "Result":
        """Return the rows of relation `influence` for some traces, proponents first, best first.

        Passages and documents are as they are at present, or as they were at snapshot `at`. `fused` adds the rank and
        score that hits of hybrid traces have in each of the two orders, `recomputed` what `recompute` found for so
        many hits of each side.
        """
        from proponent.query.hits import hits_of

        then = None if at is None else get_snapshot(self.store.catalog, at)
        return hits_of(self.store, self.snapshot, trace_ids, documents=then, fused=fused, recomputed=recomputed)

    def sql(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None, *, at: int | None = None
    ) -> "Result":
        """Run one SELECT over the lake, by default at its newest snapshot. Parameters bind to `?` or `$name`."""
        with self._session_at(at) as session:
            return session.sql(query, parameters)

    @contextmanager
    def _session_at(self, at: int | None) -> "Iterator[Session]":
        """Give a session at a snapshot, by default the newest. Raises NotFoundError when there is none."""
        if at is None:
            yield self._current_session()
            return
        from proponent.query.session import Session

        with Session(self.store, get_snapshot(self.store.catalog, at)) as session:
            yield session

    def _current_session(self) -> "Session":
        from proponent.query.session import Session

        newest = self.snapshot
        with self.store.catalog.read() as session:
            # Whatever changes the catalog without a new snapshot is a run.
            n_runs, n_finished = session.execute(select(func.count(), func.count(models.Run.finished_at))).one()
        state = (newest.snapshot_id, n_runs, n_finished)
        if self._session is None or self._session[0] != state:
            memo = None
            if self._session is not None:
                self._session[1].close()
                memo = self._session[1].memo
            self._session = (state, Session(self.store, newest, memo=memo))
        return self._session[1]

    def history(self) -> "Result":
        """Return what changed the lake, newest first: snapshot, time, command, subject, status and counts."""
        from proponent.query.results import Result

        return Result(self._current_session().trusted("history"))

    def report(self, trace_ids: str | Sequence[str], path: StrPath, *, title: str | None = None) -> Path:
        """Write a report of some traces, as HTML or Markdown by the file's suffix; return its path."""
        from proponent.query.report.build import build_report, write_report

        ids = [trace_ids] if isinstance(trace_ids, str) else list(trace_ids)
        return write_report(build_report(self.store, self._current_session(), ids, title=title), Path(path))

    def status(self) -> dict[str, Any]:
        """Return what is in the lake, at its newest snapshot."""
        at = self.snapshot
        tables = {name: self.store.table(name, at=at).count_rows() for name in sorted(at.versions)}
        with self.store.catalog.read() as session:
            encoders = [
                {
                    "encoder": row.name,
                    "dim": row.dim,
                    "codes": row.codes,
                    "fidelity": row.fidelity,
                    "moments": row.moments,
                    "coverage": row.coverage,
                    "encodings": len(encoded_texts(self.store, at, row.name)),
                    "index": self._index_of(row.name, at),
                }
                for row in session.scalars(select(models.Encoder).order_by(models.Encoder.name))
            ]
            return {
                "lake": str(self.store.root),
                "format": self.store.config.format,
                "snapshot": at.snapshot_id,
                "published": at.created_at.isoformat(timespec="seconds"),
                "corpora": list(session.scalars(select(models.Corpus.name).order_by(models.Corpus.name))),
                "models": list(session.scalars(select(models.Model.name).order_by(models.Model.name))),
                "encoders": encoders,
                "traces": session.scalar(select(func.count()).select_from(models.Trace)),
                "rows": tables,
                "bytes": sum(file.stat().st_size for file in self.store.root.rglob("*") if file.is_file()),
            }

    def _index_of(self, encoder: str, at: Snapshot) -> dict[str, Any] | None:
        from proponent.query.recall import describe
        from proponent.store.indexes import built_index, recorded_index

        built = built_index(self.store, at, encoder)
        row = recorded_index(self.store, built) if built else None
        return describe(row) if row else None
