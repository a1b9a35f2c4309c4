"""How many of the true best an index finds: measured on a lake's own queries, and asked before an index is used.

Notable: every method that the encoder allows is measured under every curvature that was fitted, since an index knows
directions only: neither the norms of passages under a task's curvature nor those that some methods multiply with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from sqlalchemy import select

from proponent.encode.methods import METHODS, Method, query_vectors
from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError, SettingsError
from proponent.schema.settings import IDENTITY, REFERENCE, TraceSettings
from proponent.schema.tables import code_columns, encodings_table
from proponent.store.codes import dequantise, read_codes
from proponent.store.indexes import Proposer, built_index, record_index, recorded_index
from proponent.store.lake import LakeStore
from proponent.store.matching import rows_of
from proponent.store.scan import exact_scan, in_list
from proponent.store.snapshots import Snapshot
from proponent.store.stale import encoded_texts

from .curvatures import NamedCurvature, find_curvature

MEASURED_K: Final = (10, 100)
"""Numbers of hits that recall is measured for."""
_PROPOSED: Final = (10, 20, 40, 100)
"""Candidates for each hit, of which the fewest are taken that find nearly all."""
_NEARLY_ALL: Final = 0.99
_QUERIES: Final = 32
_FEW: Final = 8
"""With fewer stored queries, stored encodings stand for queries."""


@dataclass(frozen=True)
class UsableIndex:
    """An index whose recall is known for what is asked."""

    index_id: str
    kind: str
    proposed: int
    """Candidates that it proposes for each hit asked for, on each side."""
    recall: float
    """Measured recall, the lower of the two sides."""

    def candidates(self, k: int) -> int:
        """Return how many candidates are proposed on each side for k hits."""
        return self.proposed * max(k, MEASURED_K[0])


class _Sample(NamedTuple):
    psi: torch.Tensor
    """(q, d), of unit norm."""
    origin: str


def measure_index(
    lake: LakeStore, at: Snapshot, encoder: models.Encoder, *, n_queries: int = _QUERIES
) -> models.IndexBuild:
    """Measure the index that a snapshot has against the exact scan, and record it.

    Raises NotFoundError when there is no index.
    """
    built = built_index(lake, at, encoder.name)
    if built is None:
        raise NotFoundError(_none(encoder.name))
    texts = encoded_texts(lake, at, encoder.name)
    sample = _sample(lake, at, encoder.name, texts, n_queries)
    rows = rows_of(lake.table(encodings_table(encoder.name), at=at), texts)
    proposer = Proposer(lake, at, encoder.name, rows)
    measured = [
        _measured(lake, at, encoder, method, curvature=curvature, psi=sample.psi, proposer=proposer, rows=rows, k=k)
        for method, curvature in _asked_for(lake, encoder)
        for k in MEASURED_K
    ]
    recall = {"queries": len(sample.psi), "measured_with": sample.origin, "measured": measured}
    return record_index(lake, at, built, recall)


def find_index(lake: LakeStore, at: Snapshot, encoder: str, settings: TraceSettings, *, curvature: str) -> UsableIndex:
    """Return the index that a snapshot has, with what was measured for a trace's method and k under a curvature.

    Raises NotFoundError when there is no index or it was not measured for that, SettingsError when it finds too few.
    """
    method, k = settings.method, settings.k
    built = built_index(lake, at, encoder)
    if built is None:
        raise NotFoundError(_none(encoder))
    row = recorded_index(lake, built)
    of_these = [
        one
        for one in (row.recall["measured"] if row else ())
        if (one["method"], one["curvature"]) == (method, curvature)
    ]
    if row is None or not of_these:
        raise NotFoundError(
            f"the recall of the index of encoder {encoder!r} was not measured for method {method!r} under curvature "
            f"{curvature!r}; run `proponent index`"
        )
    # Between two measured numbers of hits the worse counts, above the last one the last.
    above = [one for one in of_these if one["k"] >= k] or of_these[-1:]
    below = [one for one in of_these if one["k"] <= k]
    counted = [above[0], *below[-1:]]
    worst = min(counted, key=lambda one: min(one["proponents"], one["opponents"]))
    side = min(("proponents", "opponents"), key=lambda one: worst[one])
    if worst[side] < settings.min_recall:
        raise SettingsError(
            f"the index of encoder {encoder!r} found {worst[side]:.3f} of the {worst['k']} best {side} of method "
            f"{method!r} under curvature {curvature!r}, less than {settings.min_recall:g}; leave out --approximate, or "
            f"ask for it all the same with --min-recall {int(1000 * worst[side]) / 1000:g}"
        )
    return UsableIndex(row.index_id, built.kind, max(one["proposed"] for one in counted), worst[side])


def describe(row: models.IndexBuild) -> dict[str, Any]:
    """Return an index with what was measured of it, for people."""
    return {
        "encoder": row.encoder,
        "kind": row.kind,
        "rows": row.n_rows,
        "bytes": row.settings["bytes"],
        "segments": len(row.settings["segments"]),
        **row.recall,
    }


def unmeasured(lake: LakeStore, at: Snapshot) -> list[models.Encoder]:
    """Return the encoders whose index nobody has measured yet."""
    with lake.catalog.read() as session:
        encoders = session.scalars(select(models.Encoder).order_by(models.Encoder.name)).all()
    built = [(encoder, built_index(lake, at, encoder.name)) for encoder in encoders]
    return [encoder for encoder, index in built if index is not None and recorded_index(lake, index) is None]


def _none(encoder: str) -> str:
    return f"encoder {encoder!r} has no index; build one with `proponent index`"


def _asked_for(lake: LakeStore, encoder: models.Encoder) -> Iterator[tuple[Method, NamedCurvature]]:
    """Yield the methods that an encoder allows with every curvature that was fitted, or with none if they take none."""
    of_encoder = select(models.Curvature.name).where(models.Curvature.encoder == encoder.name)
    with lake.catalog.read() as session:
        names = sorted(session.scalars(of_encoder), key=lambda name: (name != REFERENCE, name))
    found = {name: find_curvature(lake, encoder, None, name) for name in [*names, IDENTITY]}
    for method in METHODS.values():
        if method.needs_moments == (encoder.moments != "none"):
            for name, curvature in found.items():
                if method.whitened == (name != IDENTITY):
                    yield method, curvature


def _measured(
    lake: LakeStore,
    at: Snapshot,
    encoder: models.Encoder,
    method: Method,
    *,
    curvature: NamedCurvature,
    psi: torch.Tensor,
    proposer: Proposer,
    rows: pa.BooleanArray,
    k: int,
) -> dict[str, Any]:
    queries = query_vectors(method, curvature.curvature, psi).numpy()
    exact = exact_scan(
        lake.table(encodings_table(encoder.name), at=at),
        queries,
        rows=rows,
        k=k,
        unit_norm=method.unit_norm,
        norms=curvature.norms(lake, at) if method.unit_norm else None,
    )
    for proposed in _PROPOSED:
        shares: list[tuple[float, float]] = []
        for query, truth in zip(queries, exact, strict=True):
            near = proposer.propose(query, proposed * k)
            within = None if near is None else set(near.to_pylist())
            top, bottom = (sum(within is None or key in within for key in side.keys) / len(side.keys) for side in truth)
            shares.append((top, bottom))
        proponents, opponents = np.mean(shares, axis=0).tolist()
        if min(proponents, opponents) >= _NEARLY_ALL:
            break
    return {
        "method": method.name,
        "curvature": curvature.name,
        "k": k,
        "proposed": proposed,
        "proponents": proponents,
        "opponents": opponents,
    }


def _sample(lake: LakeStore, at: Snapshot, encoder: str, texts: pa.Array, n_queries: int) -> _Sample:
    """Return stored queries that are drawn at random, or, where there are few, stored encodings in their place."""
    queries, of_encoder = lake.table("queries", at=at), f"encoder = '{encoder}'"
    asked = queries.to_table(columns=["query_id"], filter=of_encoder)["query_id"].combine_chunks()
    enough = len(asked) >= min(_FEW, n_queries)
    ids = asked.sort() if enough else texts.sort()
    drawn = ids.take(pa.array(np.random.default_rng(0).permutation(len(ids))[:n_queries]))
    if enough:
        rows = queries.to_table(columns=["vector"], filter=f"{of_encoder} AND {in_list('query_id', drawn)}")
        vectors = np.stack(rows["vector"].to_numpy()).astype(np.float32)
    else:
        encodings = lake.table(encodings_table(encoder), at=at)
        found = encodings.to_table(columns=code_columns(encodings.schema), filter=in_list("text_hash", drawn))
        vectors = dequantise(read_codes(found))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return _Sample(torch.from_numpy(vectors / norms), "stored queries" if enough else "stored encodings")
