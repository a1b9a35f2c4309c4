"""What goes into a lake: documents, entities, marks; and what is withdrawn from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import SettingsError
from proponent.schema.settings import (
    SIMILAR,
    FieldMapping,
    IngestSettings,
    NearDuplicateSettings,
)

from .base import LakeBase, Progress, StrPath, ignore

if TYPE_CHECKING:
    from proponent.ingest.corpus import Counts
    from proponent.ingest.cutter import Cutter
    from proponent.ingest.preview import Preview
    from proponent.ingest.progress import Tell


def _several(files: StrPath | Sequence[StrPath]) -> Sequence[StrPath]:
    return [files] if isinstance(files, str | Path) else files


def _ingest_settings(corpus: str, settings: dict[str, Any]) -> IngestSettings:
    """Return the settings of an ingest, of which those that are names of fields are the mapping."""
    mapped = {name: settings[name] for name in settings if name in FieldMapping.__dataclass_fields__}
    others = {name: value for name, value in settings.items() if name not in mapped}
    explicit = frozenset(name for name, field in mapped.items() if field is not None)
    return IngestSettings(corpus=corpus, fields=FieldMapping(**mapped), explicit_fields=explicit, **others)


class Ingesting(LakeBase):
    """Documents in and out."""

    def ingest(
        self,
        files: StrPath | Sequence[StrPath],
        *,
        corpus: str,
        tokenizer: StrPath | None = None,
        workers: int | None = None,
        progress: "Tell | None" = None,
        **settings: Any,
    ) -> "Counts":
        """Add or update the documents of corpus files; return what became of every row.

        Files are names, patterns, folders or URLs of JSON Lines, JSON, CSV, TSV, Parquet, Arrow, text and WARC, and
        Hugging Face datasets on disk. `settings` are those of IngestSettings, and the names of fields as in
        FieldMapping (`id="key"`). Passages are measured by the tokenizer in a checkpoint's folder, by default that of
        the only registered model, and in characters where there is none. One worker is this process; more are
        processes; on a cluster there are by default as many as it has CPUs. `progress` is told how far they are. Raises
        CorpusError and changes nothing when the corpus cannot be taken.
        """
        from proponent.ingest.corpus import ingest
        from proponent.ingest.progress import tell_nobody

        chosen = _ingest_settings(corpus, settings)
        cutter, tell = self._cutter(tokenizer, chosen), progress or tell_nobody
        return ingest(self.store, _several(files), chosen, cutter, workers=workers, tell=tell)

    def work(self, *, workers: int = 1, wait: float = 0.0) -> dict[str, Any]:
        """Help, in some processes, with ingests and encodings that other machines have begun; return the runs' ids.

        It ends when none of them has had anything to do for `wait` seconds. `runs` are those that were worked on,
        `left_alone` those that were not, each with the reason. What is done is published by who began the run.
        """
        from proponent.ingest.helping import help_out

        return vars(help_out(self.store, workers=workers, wait_s=wait)).copy()

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
        progress: Progress = ignore,
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

    def mark_near_duplicates(self, *, threshold: float = SIMILAR, progress: Progress = ignore) -> dict[str, int]:
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
