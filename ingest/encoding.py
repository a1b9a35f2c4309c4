"""Fitting an encoder, and encoding every passage text that an encoder has not encoded yet.

Notable: a run's work is cut into units that workers write, and this process alone publishes what they wrote, every
PUBLISH_EVERY texts. A run that is killed loses at most the last of them, and starting it again goes on with what is
missing. A text that stands in many passages is encoded once.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
from sqlalchemy import select

from proponent.encode.checkpoint import Checkpoint, DeviceMap, hash_files, load_checkpoint
from proponent.encode.encoder import (
    Encoder,
    Projector,
    encoder_state,
    estimate_moments,
    factored_moments,
    fit,
    restore_encoder,
)
from proponent.encode.gradients import Example
from proponent.encode.layers import cover
from proponent.encode.moments import Moments, read_moments
from proponent.encode.tokens import passage_examples
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, LakeBusyError, MomentsError, NotFoundError, SettingsError
from proponent.schema.ids import content_id
from proponent.schema.settings import CODES, DEFAULT_CODES, EncoderSettings, require_codes
from proponent.schema.tables import encodings_table
from proponent.store.artifacts import load_artifact, save_artifact
from proponent.store.commit import Changes, committing, finish_interrupted
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease, lease
from proponent.store.runs import recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot
from proponent.store.units import add_units, remove_units, reports_of, written_units

from .encode_work import EncodeCounts, EncodeWork, UnitResult
from .engine import work_through
from .models import facts_of, require_name
from .progress import Progress, Tell, tell_nobody
from .texts import any_missing_text, list_missing_texts, sample_texts
from .worklist import fetch, give, read_list, remove_run_folder, run_folder

ENCODE_AT_ONCE: Final = 512
PUBLISH_EVERY: Final = 8192
PUBLISH_AFTER_S: Final = 120.0
"""A slow model's encodings are published after so long, however few they are."""


def resolve_settings(lake: LakeStore, settings: EncoderSettings, model: models.Model, *, name: str) -> EncoderSettings:
    """Return an encoder's settings with all that was left open.

    Blocks and side are those that the encoder of this name has already, or go by the model's layers; `auto` moments are
    the model's optimizer state, or an estimate without one.
    """
    with lake.catalog.read() as session:
        row = session.get(models.Encoder, name)
    made: dict[str, Any] = row.settings if row is not None and row.model_id == model.model_id else {}
    kept = {size: made.get(size, 0) for size in ("blocks", "side") if getattr(settings, size) == 0}
    settings = replace(settings, **kept).of_layers(model.n_layers)
    if settings.moments != "auto":
        if settings.moments in {"file", "adam"} and model.moments_path is None:
            raise MomentsError(
                f"model {model.name!r} was registered without an optimizer state; use --moments estimated"
            )
        return settings
    kind = "file" if model.moments_path else "estimated"
    return replace(settings, moments=kind)


def find_encoder(lake: LakeStore, name: str, *, encoder_id: str) -> models.Encoder | None:
    """Return the encoder of a name, or None. Raises SettingsError when the name belongs to another encoder."""
    require_name(name, what="the encoder's name")
    with lake.catalog.read() as session:
        row = session.get(models.Encoder, name)
        twin = session.scalars(select(models.Encoder).where(models.Encoder.encoder_id == encoder_id)).first()
    if row is not None and row.encoder_id != encoder_id:
        made_with = " ".join(f"--{key} {value}" for key, value in row.settings.items() if value is not None)
        raise SettingsError(
            f"encoder {name!r} was made with {made_with}, or of another model; repeat its settings to encode more "
            "passages, or name a new encoder with --encoder"
        )
    if row is None and twin is not None:
        raise SettingsError(f"these settings have an encoder already, {twin.name!r}")
    return row


def require_same_codes(row: models.Encoder, codes: str | None) -> None:
    """Raise SettingsError when another code format is asked for than an encoder has."""
    if codes is None or require_codes(codes) == row.codes:
        return
    remedy = (
        f"`proponent requantise LAKE --encoder {row.name} --codes {codes}` changes them"
        if CODES.index(codes) > CODES.index(row.codes)
        else f"finer ones need another encoder: `proponent encode LAKE --encoder NAME --seed N --codes {codes}`"
    )
    raise SettingsError(f"encoder {row.name!r} has {row.codes} codes; {remedy}")


class Fitted(NamedTuple):
    """What came of fitting an encoder, as the catalog keeps it."""

    artifact: str
    moments: str
    projection_hash: str
    coverage: float
    uncovered: list[str]
    diagnostics: dict[str, Any]


def fit_encoder(
    lake: LakeStore,
    model: models.Model,
    load: Callable[[], Checkpoint],
    settings: EncoderSettings,
    *,
    name: str,
    codes: str = DEFAULT_CODES,
    device_map: DeviceMap | None = None,
    tell: Tell = tell_nobody,
) -> tuple[models.Encoder, Encoder | None]:
    """Fit an encoder on a random sample of the lake's passages and register it with its reference curvature.

    It is fitted in this process, with the model that `load` gives, and returned; or, where the lake has a cluster, on
    one of its nodes, with the model loaded by `device_map`. Raises NotFoundError when the lake has no passages to fit
    on, LakeBusyError while, or when, another process fits it.
    """
    encoder_id = settings.encoder_id(model_id=model.model_id)
    described = settings.to_dict() | {"model": model.name, "encoder": name, "codes": require_codes(codes)}
    with lease(lake.catalog, f"encode {name}", wait_s=5), recorded_run(lake.catalog, "fit", described) as run:
        finish_interrupted(lake)
        if find_encoder(lake, name, encoder_id=encoder_id) is not None:
            raise LakeBusyError(f"another process has just made encoder {name!r}; start again to use it")
        encoder: Encoder | None = None
        if lake.cluster is None:
            fitted, encoder = _fit(lake, model, load(), settings, tell)
        else:
            fitted = lake.cluster.do(
                _fit_on_node, model.model_id, settings, device_map, tell=tell, spread=device_map is not None
            )
        diagnostics = fitted.diagnostics
        row = models.Encoder(
            name=name,
            encoder_id=encoder_id,
            model_id=model.model_id,
            dim=settings.dim,
            codes=codes,
            moments=fitted.moments,
            settings=settings.to_dict(),
            projection_hash=fitted.projection_hash,
            coverage=fitted.coverage,
            uncovered=fitted.uncovered,
            artifact=fitted.artifact,
        )
        curvature = models.Curvature(
            curvature_id=content_id("curvature", encoder_id, "reference"),
            encoder=name,
            name="reference",
            n_rows=diagnostics["sample"],
            mixing=0.0,
            diagnostics=diagnostics,
        )
        run.counts = {"sample": diagnostics["sample"]}
        with lake.catalog.write() as session:
            session.add(row)
            session.flush()
            session.add(curvature)
    return row, encoder


def _fit(
    lake: LakeStore, model: models.Model, checkpoint: Checkpoint, settings: EncoderSettings, tell: Tell
) -> tuple[Fitted, Encoder]:
    """Fit an encoder, and write its state, which nobody knows of before the catalog names it."""
    examples = _sample(lake, checkpoint, settings)
    moments = _moments(model, checkpoint, settings, examples)
    projector = Projector(checkpoint, settings, moments)
    encoder, diagnostics = fit(projector, examples, progress=_told_of_fit(tell, len(examples)))
    fitted = Fitted(
        artifact=save_artifact(lake.artifacts_dir, encoder_state(encoder)),
        moments=moments.kind if moments else "none",
        projection_hash=projector.projection_hash,
        coverage=projector.coverage.share,
        uncovered=list(projector.coverage.uncovered),
        diagnostics=diagnostics,
    )
    return fitted, encoder


def _fit_on_node(
    lake: LakeStore, model_id: str, settings: EncoderSettings, device_map: DeviceMap | None, tell: Tell
) -> Fitted:
    with lake.catalog.read() as session:
        model = session.get_one(models.Model, model_id)
    checkpoint = load_checkpoint(facts_of(model), precision=settings.precision, device_map=device_map)
    return _fit(lake, model, checkpoint, settings, tell)[0]


def _told_of_fit(tell: Tell, total: int) -> Callable[[int], None]:
    done = 0

    def progress(n: int) -> None:
        nonlocal done
        done += n
        tell(Progress("fitting", min(done, total), total))

    return progress


def _sample(lake: LakeStore, checkpoint: Checkpoint, settings: EncoderSettings) -> list[Example]:
    at = latest_snapshot(lake.catalog)
    texts = sample_texts(lake, at, size=settings.sample_size, seed=settings.seed)
    if not texts:
        raise NotFoundError("the lake has no passages to fit an encoder on; ingest a corpus first")
    examples = passage_examples(checkpoint.tokenizer, texts)
    return [example for example in examples if len(example.token_ids) <= checkpoint.facts.context_length]


def _moments(
    model: models.Model, checkpoint: Checkpoint, settings: EncoderSettings, examples: Sequence[Example]
) -> Moments | None:
    if settings.moments == "none":
        return None
    if settings.moments == "estimated":
        return estimate_moments(checkpoint, examples)
    return moments_of_model(model, checkpoint, settings)


def moments_of_model(model: models.Model, checkpoint: Checkpoint, settings: EncoderSettings) -> Moments:
    """Read the second moments that a model was registered with.

    Raises MomentsError when the file has changed since, or does not fit.
    """
    path = Path(model.moments_path or "")
    layers = cover(checkpoint.model, blocks=1).layers
    if path.is_file() and hash_files([path]) != model.moments_hash:  # it may also be damaged, which says less
        raise MomentsError(f"{path} has changed since the model was registered; register the model anew")
    return read_moments(path, checkpoint.model, layers, elementwise=settings.moments == "adam")


def load_encoder(
    lake: LakeStore,
    row: models.Encoder,
    checkpoint: Checkpoint | None = None,
    *,
    device_map: DeviceMap | None = None,
) -> Encoder:
    """Load a fitted encoder, and its model, by a device map if that is given, unless that is loaded already.

    Raises ModelMismatchError when the model's files have changed, MomentsError when those of its moments have.
    """
    with lake.catalog.read() as session:
        model = session.get_one(models.Model, row.model_id)
    settings = EncoderSettings(**row.settings)
    checkpoint = checkpoint or load_checkpoint(facts_of(model), precision=settings.precision, device_map=device_map)
    state = load_artifact(lake.artifacts_dir, row.artifact)
    moments: Moments | None = None
    if row.moments == "adam":
        moments = moments_of_model(model, checkpoint, settings)
    elif row.moments != "none":
        moments = factored_moments(row.moments, state)
    return restore_encoder(checkpoint, settings, moments=moments, state=state, projection_hash=row.projection_hash)


def encode_missing(
    lake: LakeStore,
    name: str,
    load: Callable[[], Encoder],
    *,
    truncate: bool = False,
    only: pa.Array | None = None,
    workers: int | None = None,
    device_map: DeviceMap | None = None,
    tell: Tell = tell_nobody,
) -> EncodeCounts:
    """Encode every distinct text that an encoder has not encoded yet, and publish the encodings.

    `only` restricts it to some text hashes. Texts longer than the model's context are counted and left out unless
    `truncate`. One worker is this process, with the encoder that `load` gives; more are processes that load it
    themselves, by `device_map` if that is given, and so are those of a cluster. Raises LakeBusyError while another
    process encodes with the same encoder, WorkerError when a worker cannot work.
    """
    counts = EncodeCounts()
    with lease(lake.catalog, f"encode {name}", wait_s=5) as held:
        finish_interrupted(lake)
        _forget_dead_runs(lake, name)
        at = latest_snapshot(lake.catalog)
        if at.has(encodings_table(name)):
            counts.before = lake.table(encodings_table(name), at=at).count_rows()
        if not any_missing_text(lake, name, at, only=only):
            return counts
        described: dict[str, Any] = {"encoder": name, "truncate": truncate, "workers": workers}
        described |= {} if device_map is None else {"device_map": device_map}
        with recorded_run(lake.catalog, "encode", described) as run:
            job = _EncodeRun(lake, name, run.run_id, held=held, counts=counts, tell=tell)
            try:
                with job.units_of(at, only=only):
                    here = partial(encode_work, lake, run, load)
                    work_through(lake, run.run_id, workers=workers, here=here, collect=job.collect)
            finally:
                run.counts = dict(vars(counts))
    return counts


def encode_work(lake: LakeStore, run: models.Run, load: Callable[[], Encoder] | None = None) -> EncodeWork:
    """Return the work of an encoding run, whose encoder is loaded from the lake unless `load` gives it."""
    with lake.catalog.read() as session:
        row = session.get_one(models.Encoder, run.settings["encoder"])
    fetch(lake, run.run_id, "texts.arrow")
    texts = read_list(run_folder(lake, run.run_id), "texts")
    encoder = load() if load else load_encoder(lake, row, device_map=run.settings.get("device_map"))
    return EncodeWork(lake, row, encoder, run.settings["truncate"], texts)


def _forget_dead_runs(lake: LakeStore, encoder: str) -> None:
    """Remove what runs of an encoder left behind that were killed: under its lock, no other run is alive."""
    with lake.catalog.read() as session:
        with_units = select(models.Run).where(
            models.Run.kind == "encode", models.Run.run_id.in_(select(models.Unit.run_id))
        )
        dead = [run.run_id for run in session.scalars(with_units) if run.settings["encoder"] == encoder]
    for run_id in dead:
        remove_units(lake.catalog, [run_id])
        remove_run_folder(lake, run_id)


class _EncodeRun:
    """An encoding run: cuts the work into units, and publishes what workers have written."""

    def __init__(
        self, lake: LakeStore, name: str, run_id: str, *, held: Lease, counts: EncodeCounts, tell: Tell
    ) -> None:
        self._lake = lake
        self._name = name
        self._run_id = run_id
        self._held = held
        self._counts = counts
        self._tell = tell
        self._changes = Changes()
        self._collected: list[models.Unit] = []
        self._unpublished = 0
        self._published_at = time.monotonic()
        self._n_texts = 0
        self._n_done = 0
        with committing(lake):
            lake.create_table(encodings_table(name))

    @contextmanager
    def units_of(self, at: Snapshot, *, only: pa.Array | None) -> Iterator[None]:
        """Lay the work out for the length of a with block; however that ends, what was written is published."""
        folder = run_folder(self._lake, self._run_id)
        try:
            self._n_texts = n = list_missing_texts(self._lake, self._name, at, folder, only=only)
            give(self._lake, self._run_id, "texts.arrow")
            works = [{"start": at, "stop": min(at + ENCODE_AT_ONCE, n)} for at in range(0, n, ENCODE_AT_ONCE)]
            add_units(self._lake.catalog, self._run_id, works)
            yield
        finally:
            self._gather()
            self.publish()
            remove_units(self._lake.catalog, [self._run_id])
            remove_run_folder(self._lake, self._run_id)

    def collect(self) -> None:
        """Take in what workers have written, and publish when it is enough."""
        self._gather()
        waited = time.monotonic() - self._published_at
        if self._unpublished >= PUBLISH_EVERY or (self._unpublished and waited > PUBLISH_AFTER_S):
            self.publish()

    def _gather(self) -> None:
        known = {unit.unit_id for unit in self._collected}
        for unit in written_units(self._lake.catalog, self._run_id, known=known):
            self._take(unit)
        under_way = sum(report["texts"] for report in reports_of(self._lake.catalog, self._run_id))
        done = min(self._n_done + under_way, self._n_texts)
        self._tell(Progress("encoding", done, self._n_texts, {"tokens": self._counts.tokens}))

    def _take(self, unit: models.Unit) -> None:
        assert unit.result is not None
        result = UnitResult.from_json(unit.result)
        self._collected.append(unit)
        self._counts.add(result.counts)
        self._counts.fidelity = result.fidelity or self._counts.fidelity
        if result.batch is not None:
            self._changes.append(result.batch)
            self._unpublished += result.batch.n_rows
        self._n_done += unit.work["stop"] - unit.work["start"]

    def publish(self) -> None:
        """Make what was written visible, with the fidelity of its codes."""
        changes = self._changes.take()
        if changes:
            amend: list[models.Base] = [models.Unit(unit_id=unit.unit_id, status="done") for unit in self._collected]
            found = [unit.result["fidelity"] for unit in self._collected if unit.result and unit.result["fidelity"]]
            amend += [models.Encoder(name=self._name, fidelity=measured) for measured in found]
            with committing(self._lake, under=[self._held]) as committer:
                committer.publish(self._run_id, changes, amend=amend)
            self._collected = []
        self._unpublished = 0
        self._published_at = time.monotonic()


def require_encodings(counts: EncodeCounts, *, encoder: str) -> None:
    """Raise EncodingError when the encoder has encoded nothing at all, now or before."""
    if not counts.encoded + counts.before and (counts.too_long or counts.not_finite or counts.without_loss):
        raise EncodingError(
            f"encoder {encoder!r} could encode nothing: {counts.too_long} passages too long (see --truncate), "
            f"{counts.not_finite} not finite, {counts.without_loss} without a loss"
        )
