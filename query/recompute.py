"""A third stage: a trace's first hits scored again with full gradients, and how much their order changes.

Notable: from a stored score to the full one there are three steps, and each has an order of its own, so that Kendall's
tau tells apart what each of them changes:

| score | codes | curvature | projection |
| --- | --- | --- | --- |
| stored | yes | yes | yes |
| exact: encoded again, in float32 | no | yes | yes |
| unwhitened: R = I | no | no | yes |
| full: the gradients themselves | no | no | no |

There is no R without a projection: it would be a matrix over all weights. All four are under the method's V, and
under unit norm where it has that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from sqlalchemy import select

from proponent.encode.curvature import Curvature, IdentityCurvature
from proponent.encode.encoder import Encoder
from proponent.encode.full_gradients import FullGradient, add_scaled, compare, full_gradient, norm
from proponent.encode.gradients import Example
from proponent.encode.methods import METHODS, Method, query_vectors
from proponent.encode.tokens import passage_examples
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, SettingsError
from proponent.schema.settings import MOST_RECOMPUTED, SIDES
from proponent.store.lake import LakeStore
from proponent.store.rows import rows_with
from proponent.store.runs import library_versions, recorded_run
from proponent.store.snapshots import get_snapshot

from .curvatures import find_curvature
from .encoded import encode_queries, query_examples
from .questions import Question
from .session import Session
from .stored import require_gradients, stored_question

SCORES: Final = ("stored", "exact", "unwhitened", "full")
_TAUS: Final = {
    "tau": ("stored", "full"),
    "tau_codes": ("stored", "exact"),
    "tau_curvature": ("exact", "unwhitened"),
    "tau_projection": ("unwhitened", "full"),
}


class _Hit(NamedTuple):
    side: str
    passage_id: str
    score: float
    text_hash: str
    text: str


def recompute(
    lake: LakeStore,
    session: Session,
    trace_id: str,
    *,
    n: int | None = None,
    encoder_row: models.Encoder,
    encoder: Encoder,
    progress: Callable[[int], object] = lambda _n: None,
) -> list[models.Recomputation]:
    """Score the n first hits of each side of a trace again, by default all; return what became of each side's order.

    The encoder's model is in float32. What was computed before is not computed again. Raises SettingsError for a trace
    whose scores are not influence and for more hits than it has, EncodingError for a passage without a gradient.
    """
    trace = session.trusted("report_trace", {"trace_id": trace_id}).to_pylist()[0]
    n = _checked(trace, n)
    known = select(models.Recomputation).where(models.Recomputation.trace_id == trace_id, models.Recomputation.n == n)
    with lake.catalog.read() as reading:
        if stored := list(reading.scalars(known.order_by(models.Recomputation.side.desc()))):
            return stored
    hits = _hits(lake, session, trace, n)
    with recorded_run(lake.catalog, "recompute", {"trace": trace_id, "n": n}) as run:
        method = METHODS[trace["method"]]
        curvature = find_curvature(lake, encoder_row, encoder, trace["curvature"]).curvature
        texts = {hit.text_hash: hit.text for hit in hits}
        scores = _scores(encoder, trace, texts, method=method, curvature=curvature, progress=progress)
        rows = [_side(trace_id, n, side, [hit for hit in hits if hit.side == side], scores) for side in SIDES]
        run.counts = {"texts": len(texts)}
        with lake.catalog.write() as writing:
            for row in rows:
                writing.merge(row)
    return rows


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two lists of scores; None when one of them orders nothing.

    tau_b = (concordant - discordant) / sqrt(pairs untied in one * pairs untied in the other), Kendall (1945).
    """
    upper = np.triu_indices(len(one), 1)
    a, b = (np.sign(np.subtract.outer(values, values))[upper] for values in map(np.asarray, (one, other)))
    untied = np.sqrt(np.count_nonzero(a) * np.count_nonzero(b))
    return float((a * b).sum() / untied) if untied else None


def _checked(trace: Mapping[str, Any], n: int | None) -> int:
    require_gradients(trace["trace_id"], trace["method"])
    most = min(trace["k"], MOST_RECOMPUTED)
    if n is not None and not 1 <= n <= most:
        raise SettingsError(f"of this trace 1 to {most} hits of each side can be recomputed, not {n}; ask with more -k")
    return n or most


def _hits(lake: LakeStore, session: Session, trace: Mapping[str, Any], n: int) -> list[_Hit]:
    """Return the first hits of both sides, with the texts that were searched."""
    found = session.trusted("report_hits", {"trace_id": trace["trace_id"]}).to_pylist()
    first = [row for row in found if row["rank"] <= n]
    then = lake.table("passages", at=get_snapshot(lake.catalog, trace["snapshot"]))
    ids = pa.array([row["passage_id"] for row in first], pa.string())
    rows = rows_with(then, "passage_id", ids, columns=["passage_id", "text_hash", "text"]).to_pylist()
    passages = {row["passage_id"]: row for row in rows}
    return [_Hit(side=row["side"], score=row["score"], **passages[row["passage_id"]]) for row in first]


def _scores(
    encoder: Encoder,
    trace: Mapping[str, Any],
    texts: Mapping[str, str],
    *,
    method: Method,
    curvature: Curvature,
    progress: Callable[[int], object],
) -> dict[str, dict[str, float]]:
    """Return the scores of texts that have to be computed, by their hashes."""
    if not texts:
        return {}
    question = stored_question(trace)
    psi = encode_queries(encoder, question.queries).vectors
    examples = [
        Example(one.token_ids[: encoder.context_length])
        for one in passage_examples(encoder.projector.checkpoint.tokenizer, [*texts.values()])
    ]
    passages = encoder.encode(examples).vectors
    exact = _encoded(method, curvature, passages, psi)
    unwhitened = _encoded(method, IdentityCurvature(encoder.whitening), passages, psi)
    query = _query_gradient(encoder, question, method)
    scores = {}
    for key, example, *others in zip(texts, examples, exact, unwhitened, strict=True):
        found = compare(encoder.projector, example, query)
        full = found.dot / found.norm if method.unit_norm and found.norm else found.dot
        scores[key] = dict(zip(SCORES[1:], [*others, full], strict=True))
        if not np.isfinite([*scores[key].values()]).all():
            raise EncodingError(f"the gradient of {texts[key][:60]!r} is not finite")
        progress(1)
    return scores


def _encoded(method: Method, curvature: Curvature, psi: torch.Tensor, queries: torch.Tensor) -> list[float]:
    """Return the scores of passages' psi (n, d) under the mean of queries' psi (q, d)."""
    scores = psi.double() @ query_vectors(method, curvature, queries).mean(0).double()
    if method.unit_norm:
        lengths = psi.norm(dim=1, keepdim=True)
        scores = scores / (lengths[:, 0] * curvature.norms(psi / lengths)).double()
    result: list[float] = scores.tolist()
    return result


def _query_gradient(encoder: Encoder, question: Question, method: Method) -> FullGradient:
    """Return the mean of the queries' gradients, each of unit norm where the method normalises."""
    total: FullGradient | None = None
    for query in question.queries:
        weights = [part.weight for part in query.summed]
        gradient = full_gradient(encoder.projector, query_examples(encoder, query), weights)
        length = norm(gradient) if method.unit_norm else 1.0
        total = add_scaled(total, gradient, 1 / (length * len(question.queries)))
    assert total is not None
    return total


def _side(
    trace_id: str, n: int, side: str, hits: Sequence[_Hit], computed: Mapping[str, Mapping[str, float]]
) -> models.Recomputation:
    by_text = {hit.text_hash: {"stored": hit.score, **computed[hit.text_hash]} for hit in hits}
    orders = {name: [scores[name] for scores in by_text.values()] for name in SCORES}
    return models.Recomputation(
        trace_id=trace_id,
        side=side,
        n=n,
        n_texts=len(by_text),
        **{tau: kendall_tau(orders[one], orders[other]) for tau, (one, other) in _TAUS.items()},
        scores=[{"passage_id": hit.passage_id, **by_text[hit.text_hash]} for hit in hits],
        versions=library_versions(),
        created_at=models.now(),
    )


def describe(row: models.Recomputation) -> dict[str, Any]:
    """Return how one side's order changed, as a row for people."""
    return {"side": row.side, "texts": row.n_texts, **{tau: getattr(row, tau) for tau in _TAUS}}
