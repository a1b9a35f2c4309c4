"""Fitting an encoder, and encoding every passage text that an encoder has not encoded yet.

Notable: encoding is published every PUBLISH_EVERY texts, so that a killed run loses at most the last of them, and
starting it again goes on with what is missing. A text that stands in many passages is encoded once.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from sqlalchemy import select

from proponent.encode.checkpoint import Checkpoint, hash_files
from proponent.encode.encoder import Encoder, Projector, encoder_state, estimate_moments, fit
from proponent.encode.gradients import Example
from proponent.encode.layers import cover
from proponent.encode.moments import Moments, read_moments
from proponent.encode.tokens import passage_examples
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, LakeBusyError, MomentsError, NotFoundError, SettingsError
from proponent.schema.ids import content_id
from proponent.schema.settings import CODES, DEFAULT_CODES, EncoderSettings, require_codes
from proponent.schema.tables import encodings_table
from proponent.store.artifacts import save_artifact
from proponent.store.codes import codes_arrays, quantise
from proponent.store.commit import Changes, committing, finish_interrupted, write_batch
from proponent.store.fidelity import FidelitySample
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease, lease
from proponent.store.runs import recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot

from .models import require_name

ENCODE_AT_ONCE: Final = 512
PUBLISH_EVERY: Final = 8192

Progress = Callable[[int], object]


@dataclass
class EncodeCounts:
    """What became of the texts that had no encoding."""

    encoded: int = 0
    too_long: int = 0
    truncated: int = 0
    without_loss: int = 0
    not_finite: int = 0
    before: int = 0
    """Encodings that there were already."""
    fidelity: dict[str, Any] | None = field(default=None, compare=False)
    """What the catalog now says of the stored codes, where this run measured it."""


class MissingTexts(NamedTuple):
    """Distinct texts of a snapshot's passages that have no encoding yet, by their hashes."""

    hashes: pa.Array
    texts: pa.Array


def distinct_texts(lake: LakeStore, at: Snapshot) -> MissingTexts:
    """Return every distinct text of the passages, ordered by hash."""
    passages = lake.table("passages", at=at).to_table(columns=["text_hash", "text"])
    firsts = passages.group_by("text_hash").aggregate([("text", "min")]).sort_by("text_hash")
    return MissingTexts(firsts["text_hash"].combine_chunks(), firsts["text_min"].combine_chunks())


def missing_texts(lake: LakeStore, encoder: str, at: Snapshot) -> MissingTexts:
    """Return the distinct texts that an encoder has not encoded."""
    texts = distinct_texts(lake, at)
    if not at.has(encodings_table(encoder)):
        return texts
    done = lake.table(encodings_table(encoder), at=at).to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    wanted = pc.invert(pc.is_in(texts.hashes, value_set=done))
    return MissingTexts(texts.hashes.filter(wanted), texts.texts.filter(wanted))


def resolve_settings(settings: EncoderSettings, model: models.Model) -> EncoderSettings:
    """Return the settings with `auto` moments replaced: the model's optimizer state, or an estimate without one."""
    if settings.moments != "auto":
        if settings.moments in {"file", "adam"} and model.moments_path is None:
            raise MomentsError(
                f"model {model.name!r} was registered without an optimizer state; use --moments estimated"
            )
        return settings
    kind = "file" if model.moments_path else "estimated"
    return EncoderSettings(**(settings.to_dict() | {"moments": kind}))


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


def fit_encoder(
    lake: LakeStore,
    model: models.Model,
    checkpoint: Checkpoint,
    settings: EncoderSettings,
    *,
    name: str,
    codes: str = DEFAULT_CODES,
    progress: Progress = lambda _n: None,
) -> tuple[models.Encoder, Encoder]:
    """Fit an encoder on a random sample of the lake's passages and register it with its reference curvature.

    Raises NotFoundError when the lake has no passages to fit on, LakeBusyError while, or when, another process fits it.
    """
    encoder_id = settings.encoder_id(model_id=model.model_id)
    described = settings.to_dict() | {"model": model.name, "encoder": name, "codes": require_codes(codes)}
    with lease(lake.catalog, f"encode {name}", wait_s=5), recorded_run(lake.catalog, "fit", described) as run:
        finish_interrupted(lake)
        if find_encoder(lake, name, encoder_id=encoder_id) is not None:
            raise LakeBusyError(f"another process has just made encoder {name!r}; start again to use it")
        examples = _sample(lake, checkpoint, settings)
        moments = _moments(model, checkpoint, settings, examples)
        projector = Projector(checkpoint, settings, moments)
        encoder, diagnostics = fit(projector, examples, progress=progress)
        row = models.Encoder(
            name=name,
            encoder_id=encoder_id,
            model_id=model.model_id,
            dim=settings.dim,
            codes=codes,
            moments=moments.kind if moments else "none",
            settings=settings.to_dict(),
            projection_hash=projector.projection_hash,
            coverage=projector.coverage.share,
            uncovered=list(projector.coverage.uncovered),
            artifact=save_artifact(lake.artifacts_dir, encoder_state(encoder)),
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


def _sample(lake: LakeStore, checkpoint: Checkpoint, settings: EncoderSettings) -> list[Example]:
    texts = distinct_texts(lake, latest_snapshot(lake.catalog))
    if not len(texts.hashes):
        raise NotFoundError("the lake has no passages to fit an encoder on; ingest a corpus first")
    # Drawn by a hash of seed and text, the sample depends on nothing but the corpus's content.
    draw = [
        hashlib.blake2b(f"{settings.seed}/{key}".encode(), digest_size=8).digest() for key in texts.hashes.to_pylist()
    ]
    chosen = sorted(range(len(draw)), key=draw.__getitem__)[: settings.sample_size]
    examples = passage_examples(checkpoint.tokenizer, texts.texts.take(pa.array(chosen)).to_pylist())
    return [example for example in examples if len(example.token_ids) <= checkpoint.facts.context_length]


def _moments(
    model: models.Model, checkpoint: Checkpoint, settings: EncoderSettings, examples: Sequence[Example]
) -> Moments | None:
    if settings.moments == "none":
        return None
    if settings.moments == "estimated":
        return estimate_moments(checkpoint, settings, examples)
    return moments_of_model(model, checkpoint, settings)


def moments_of_model(model: models.Model, checkpoint: Checkpoint, settings: EncoderSettings) -> Moments:
    """Read the second moments that a model was registered with.

    Raises MomentsError when the file has changed since, or does not fit.
    """
    path = Path(model.moments_path or "")
    layers = cover(checkpoint.model, blocks=settings.blocks).layers
    moments = read_moments(path, checkpoint.model, layers, elementwise=settings.moments == "adam")
    if hash_files([path]) != model.moments_hash:
        raise MomentsError(f"{path} has changed since the model was registered; register the model anew")
    return moments


def encode_missing(
    lake: LakeStore,
    name: str,
    encoder: Encoder,
    *,
    truncate: bool = False,
    only: pa.Array | None = None,
    progress: Progress = lambda _n: None,
) -> EncodeCounts:
    """Encode every distinct text that the encoder has not encoded yet, and publish the encodings.

    `only` restricts it to some text hashes. Texts longer than the model's context are counted and left out unless
    `truncate`. Raises LakeBusyError while another process encodes with the same encoder.
    """
    counts = EncodeCounts()
    with lease(lake.catalog, f"encode {name}", wait_s=5) as held:
        finish_interrupted(lake)
        at = latest_snapshot(lake.catalog)
        if at.has(encodings_table(name)):
            counts.before = lake.table(encodings_table(name), at=at).count_rows()
        texts = missing_texts(lake, name, at)
        if only is not None:
            wanted = pc.is_in(texts.hashes, value_set=only)
            texts = MissingTexts(texts.hashes.filter(wanted), texts.texts.filter(wanted))
        if not len(texts.hashes):
            return counts
        with recorded_run(lake.catalog, "encode", {"encoder": name, "truncate": truncate}) as run:
            job = _Encoding(lake, name, encoder, truncate=truncate, run_id=run.run_id, held=held, counts=counts)
            try:
                for hashes, some in _slices(texts):
                    job.take(hashes, some)
                    progress(len(hashes))
                job.publish()
            finally:
                run.counts = dict(vars(counts))
    return counts


def _slices(texts: MissingTexts) -> Iterator[tuple[list[str], list[str]]]:
    for start in range(0, len(texts.hashes), ENCODE_AT_ONCE):
        yield (
            texts.hashes.slice(start, ENCODE_AT_ONCE).to_pylist(),
            texts.texts.slice(start, ENCODE_AT_ONCE).to_pylist(),
        )


class _Encoding:
    """The state of one encoding run."""

    def __init__(
        self,
        lake: LakeStore,
        name: str,
        encoder: Encoder,
        *,
        truncate: bool,
        run_id: str,
        held: Lease,
        counts: EncodeCounts,
    ) -> None:
        self._lake = lake
        self._name = name
        self._table = encodings_table(name)
        self._encoder = encoder
        self._truncate = truncate
        self._run_id = run_id
        self._held = held
        self._counts = counts
        self._changes = Changes()
        self._unpublished = 0
        self._sample = FidelitySample()
        with lake.catalog.read() as session:
            row = session.get_one(models.Encoder, name)
        self._codes = row.codes
        self._measured_on = row.fidelity["sample"] if row.fidelity else 0
        with committing(lake):
            lake.create_table(self._table)

    def take(self, hashes: list[str], texts: list[str]) -> None:
        """Encode some texts and write them, unseen until the next `publish`."""
        examples = passage_examples(self._encoder.projector.checkpoint.tokenizer, texts)
        kept = [(key, example) for key, example in zip(hashes, map(self._fit, examples), strict=True) if example]
        encoded = self._encoder.encode([example for _, example in kept])
        norms = encoded.vectors.norm(dim=1)
        sound = torch.isfinite(norms) & torch.isfinite(encoded.losses) & (norms > 0)
        self._counts.not_finite += int((~sound).sum())
        places = torch.nonzero(sound).flatten().tolist()
        if not places:
            return
        unit = (encoded.vectors[places] / norms[places, None]).numpy()
        data = pa.table(
            {
                "text_hash": [kept[place][0] for place in places],
                "norm": norms[places].numpy(),
                "loss": encoded.losses[places].numpy(),
                "n_tokens": np.array([len(kept[place][1].token_ids) for place in places], dtype=np.int32),
                **codes_arrays(quantise(unit, self._codes)),
            }
        )
        self._sample.offer(unit)
        self._changes.append(write_batch(self._lake, self._table, data))
        self._counts.encoded += len(places)
        self._unpublished += len(places)
        if self._unpublished >= PUBLISH_EVERY:
            self.publish()

    def _fit(self, example: Example) -> Example | None:
        if len(example.token_ids) > self._encoder.context_length:
            if not self._truncate:
                self._counts.too_long += 1
                return None
            self._counts.truncated += 1
            example = Example(example.token_ids[: self._encoder.context_length])
        if example.n_loss < 1:
            self._counts.without_loss += 1
            return None
        return example

    def publish(self) -> None:
        """Make what was written visible, with the fidelity of its codes."""
        changes = self._changes.take()
        if changes:
            found = self._sample.measure(self._codes, against="float32", at_least=self._measured_on)
            self._counts.fidelity = found or self._counts.fidelity
            amend = [models.Encoder(name=self._name, fidelity=found)] if found else []
            with committing(self._lake, under=[self._held]) as committer:
                committer.publish(self._run_id, changes, amend=amend)
        self._unpublished = 0


def require_encodings(counts: EncodeCounts, *, encoder: str) -> None:
    """Raise EncodingError when the encoder has encoded nothing at all, now or before."""
    if not counts.encoded + counts.before and (counts.too_long or counts.not_finite or counts.without_loss):
        raise EncodingError(
            f"encoder {encoder!r} could encode nothing: {counts.too_long} passages too long (see --truncate), "
            f"{counts.not_finite} not finite, {counts.without_loss} without a loss"
        )
