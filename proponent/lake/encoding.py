"""Models, encoders, curvatures and indexes of a lake."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from proponent.encoders import encoder_row
from proponent.schema import catalog as models
from proponent.schema.settings import (
    DEFAULT_CODES,
    REFERENCE,
    CurvatureSettings,
    EncoderSettings,
)
from proponent.schema.tables import encodings_table

from .base import LakeBase, Progress, StrPath, ignore

if TYPE_CHECKING:
    from proponent.encode.checkpoint import Checkpoint
    from proponent.ingest.encode_work import EncodeCounts
    from proponent.ingest.progress import Tell
    from proponent.query.questions import Ask


class Encoding(LakeBase):
    """From passages to vectors that can be searched."""

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
        workers: int | None = None,
        progress: "Tell | None" = None,
    ) -> "EncodeCounts":
        """Fit the model's encoder where there is none yet, then encode every passage that it has not encoded.

        `only` is a filter on passages. The encoder is called after its model unless it is given a name. `codes` is the
        format that a new encoder's vectors are stored in: float16, int8 (the default) or int4. One worker is this
        process, more are processes; on a cluster there are by default as many as it has GPUs, or CPUs. Raises
        SettingsError for another format than an encoder has.
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
        resolved = resolve_settings(self.store, settings or EncoderSettings(), registered, name=name)
        row = find_encoder(self.store, name, encoder_id=resolved.encoder_id(model_id=registered.model_id))
        keys = passing(self._current_session(), only)["text_hash"].combine_chunks() if only else None
        if row is None:
            load = partial(self._encoders.checkpoint, registered, precision=resolved.precision)
            row, fitted = fit_encoder(
                self.store,
                registered,
                load,
                resolved,
                name=name,
                codes=codes or DEFAULT_CODES,
                device_map=self._encoders.device_map,
                tell=tell,
            )
            if fitted is not None:
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
            device_map=self._encoders.device_map,
            tell=tell,
        )
        require_encodings(counts, encoder=name)
        self._keep_sums(made, progress=lambda n: tell(RunProgress("summing groups", n, 0)))
        return counts

    def requantise(self, encoder: str | None = None, *, codes: str, progress: Progress = ignore) -> dict[str, Any]:
        """Store an encoder's vectors in a coarser format, without its model; return what that loses.

        The order of formats is float16, int8, int4. Earlier snapshots keep the finer vectors. Raises SettingsError for
        a format that is not coarser than the present one.
        """
        from proponent.store.requantise import requantise

        row = requantise(self.store, encoder_row(self.store, encoder), codes, progress=progress)
        self._keep_sums(row)
        return {"encoder": row.name, "codes": row.codes, "fidelity": row.fidelity}

    def index(
        self, encoder: str | None = None, *, kind: str | None = None, progress: Progress = ignore
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
        progress: Progress = ignore,
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

    def _keep_sums(self, row: models.Encoder, curvature: str = REFERENCE, *, progress: Progress = ignore) -> None:
        """Bring the group sums under a curvature up to date, so that nobody who asks has to wait for them."""
        from proponent.query.curvatures import find_curvature
        from proponent.query.groups import keep_sums

        keep_sums(self.store, find_curvature(self.store, row, None, curvature), row, progress)
