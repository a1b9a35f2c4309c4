"""A task's curvature: fitted on the task's questions, kept by name, and found again for a trace.

Notable: a curvature's id is a hash of the encoder's fitted state, its name, the questions and lambda, so that the norms
kept under it can only be its own. Fitting the same again changes nothing; the same name for anything else is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sqlalchemy import select

from proponent.encode.curvature import Curvature, IdentityCurvature, ReferenceCurvature, TaskCurvature, fit_task
from proponent.encode.encoder import Encoder, restore_whitening
from proponent.encode.methods import METHODS, Method, require_moments
from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError, SettingsError
from proponent.schema.ids import content_id, identity_curvature_id
from proponent.schema.settings import IDENTITY, REFERENCE, CurvatureSettings, TraceSettings
from proponent.store.artifacts import load_artifact, save_artifact
from proponent.store.curvatures import fill_norms, known_norms, stored_norms
from proponent.store.lake import LakeStore
from proponent.store.leases import lease
from proponent.store.runs import recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot

from .encoded import encode_queries
from .questions import Question

Progress = Callable[[int], object]


@dataclass(frozen=True)
class NamedCurvature:
    """A curvature of an encoder, ready to score under."""

    name: str
    curvature_id: str
    encoder: str
    curvature: Curvature
    recorded: dict[str, Any]
    """What every trace under it records: id, lambda (`mixing`), R0's shrinkage (`rho`), ranks and spectra."""

    @property
    def is_reference(self) -> bool:
        """Whether it is what encodings are whitened with, so that all norms under it are 1."""
        return isinstance(self.curvature, ReferenceCurvature)

    def norms(self, lake: LakeStore, at: Snapshot) -> np.ndarray | None:
        """Return the norms of a snapshot's encodings (n,) float32 in stored order; those that were missing are kept.

        None under the reference curvature, where all are 1.
        """
        if self.is_reference:
            return None
        norms = stored_norms(lake, at, encoder=self.encoder, curvature_id=self.curvature_id)
        if np.isnan(norms).any():
            self.fill(lake, at)
            norms = stored_norms(lake, at, encoder=self.encoder, curvature_id=self.curvature_id)
        return norms

    def known_norms(self, lake: LakeStore, at: Snapshot, *, rows: pa.BooleanArray | None = None) -> np.ndarray | None:
        """Return the same, without keeping those that were missing; of rows that are not meant they may be NaN."""
        if self.is_reference:
            return None
        return known_norms(
            lake, at, encoder=self.encoder, curvature_id=self.curvature_id, rows=rows, norms_of=self._norms_of
        )

    def fill(self, lake: LakeStore, at: Snapshot, *, progress: Progress = lambda _n: None) -> int:
        """Compute and keep the norms that a snapshot's encodings lack; return how many."""
        return fill_norms(
            lake, at, encoder=self.encoder, curvature_id=self.curvature_id, norms_of=self._norms_of, progress=progress
        )

    def _norms_of(self, unit: np.ndarray) -> np.ndarray:
        norms: np.ndarray = self.curvature.norms(torch.from_numpy(unit)).numpy()
        return norms


def find_curvature(lake: LakeStore, encoder_row: models.Encoder, encoder: Encoder | None, name: str) -> NamedCurvature:
    """Return a curvature of an encoder, which need not be loaded, by its name. Raises NotFoundError for no such one."""
    rows = {row.name: row for row in _rows(lake, encoder_row.name)}
    reference = {"name": name, "mixing": 0.0, "rho": rows[REFERENCE].diagnostics["rho"]}
    if name == IDENTITY:
        curvature_id = identity_curvature_id(encoder_row.artifact)
        recorded = reference | {"curvature_id": curvature_id}
        whitening = (
            encoder.whitening if encoder else restore_whitening(load_artifact(lake.artifacts_dir, encoder_row.artifact))
        )
        return NamedCurvature(name, curvature_id, encoder_row.name, IdentityCurvature(whitening), recorded)
    if name not in rows:
        raise NotFoundError(
            f"encoder {encoder_row.name!r} has no curvature {name!r}, only {', '.join([*rows, IDENTITY])}; "
            "fit one with `proponent curvature`"
        )
    row = rows[name]
    recorded = reference | row.diagnostics | {"curvature_id": row.curvature_id, "mixing": row.mixing}
    curvature: Curvature = ReferenceCurvature()
    if row.artifact is not None:
        curvature = TaskCurvature.restore(load_artifact(lake.artifacts_dir, row.artifact))
    return NamedCurvature(name, row.curvature_id, encoder_row.name, curvature, recorded)


def scored_by(
    lake: LakeStore, settings: TraceSettings, encoder_row: models.Encoder, encoder: Encoder | None
) -> tuple[Method, NamedCurvature]:
    """Return the method and the curvature of a score, by an encoder that need not be loaded.

    Raises ModelMismatchError when the encoder is not made for the method, NotFoundError for an unknown curvature.
    """
    method = METHODS[settings.method]
    require_moments(method, encoder=encoder_row.name, moments=encoder_row.moments)
    named = settings.curvature or (REFERENCE if method.whitened else IDENTITY)
    return method, find_curvature(lake, encoder_row, encoder, named)


def fit_curvature(
    lake: LakeStore,
    questions: Sequence[Question],
    settings: CurvatureSettings,
    *,
    encoder_row: models.Encoder,
    encoder: Encoder,
    progress: Progress = lambda _n: None,
) -> models.Curvature:
    """Fit a task's curvature on questions with their true targets, register it, and fill in its norms.

    Raises SettingsError without questions, for one that the model completed itself, and when the name belongs to a
    curvature of other questions or another lambda; EncodingError for a question that has no encoding.
    """
    if not questions or any(question.completed for question in questions):
        raise SettingsError("a task's curvature needs queries, each with its true target")
    asked, query_set = sorted(question.query_id for question in questions), questions[0].query_set
    chosen = "rule" if settings.mixing is None else repr(float(settings.mixing))
    curvature_id = content_id("curvature", encoder_row.artifact, settings.name, chosen, *asked)
    described = {"encoder": encoder_row.name, "curvature": settings.name, "mixing": chosen, "query_set": query_set}
    with lease(lake.catalog, f"curvature {encoder_row.name}", wait_s=5):
        row = _registered(lake, encoder_row.name, settings.name, curvature_id)
        if row is None:
            with recorded_run(lake.catalog, "curvature", described | {"queries": asked}) as run:
                psi = encode_queries(encoder, questions, progress).vectors
                fitted, found = fit_task(psi, n_groups=len(encoder.whitening.values), mixing=settings.mixing)
                row = models.Curvature(
                    curvature_id=curvature_id,
                    encoder=encoder_row.name,
                    name=settings.name,
                    n_rows=len(questions),
                    mixing=fitted.mixing,
                    diagnostics=found | {"query_set": query_set},
                    artifact=save_artifact(lake.artifacts_dir, fitted.state()),
                )
                run.counts = {"queries": len(questions)}
                with lake.catalog.write() as session:
                    session.add(row)
    named = find_curvature(lake, encoder_row, encoder, settings.name)
    named.fill(lake, latest_snapshot(lake.catalog))
    return row


def describe(row: models.Curvature) -> dict[str, Any]:
    """Return a task's curvature as a row for people."""
    found = row.diagnostics
    return {
        "curvature": row.name,
        "encoder": row.encoder,
        "queries": row.n_rows,
        "lambda": row.mixing,
        "chosen": found["mixing_chosen"],
        "rank": sum(found["ranks"]),
        "k": found["k"],
    }


def _rows(lake: LakeStore, encoder: str) -> list[models.Curvature]:
    of_encoder = select(models.Curvature).where(models.Curvature.encoder == encoder)
    with lake.catalog.read() as session:
        return list(session.scalars(of_encoder.order_by(models.Curvature.created_at)))


def _registered(lake: LakeStore, encoder: str, name: str, curvature_id: str) -> models.Curvature | None:
    row = next((row for row in _rows(lake, encoder) if row.name == name), None)
    if row is not None and row.curvature_id != curvature_id:
        raise SettingsError(
            f"curvature {name!r} of encoder {encoder!r} was fitted on other queries, or with another mixing; "
            "choose another name"
        )
    return row
