"""Which tokens of a passage carry its influence on a query.

Notable: an encoding is a sum over the passage's positions and every score is linear in it, so that a score splits into
what each position adds. A position's share is what it contributes as an input; the gradients that reach it are those of
the losses of all tokens behind it. The shares add up to the score at full precision; the stored codes give it rounded.
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from proponent.encode.encoder import Encoder
from proponent.encode.gradients import Example
from proponent.encode.methods import METHODS, query_vectors
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, NotFoundError
from proponent.schema.tables import encodings_table
from proponent.store.lake import LakeStore
from proponent.store.matching import rows_of
from proponent.store.scan import all_scores
from proponent.store.snapshots import get_snapshot, latest_snapshot

from .curvatures import NamedCurvature, find_curvature
from .session import Session


class TokenShare(NamedTuple):
    """What one token of a passage adds to its score."""

    token: str
    """The token's text, or its name for one that stands for no text."""
    char_start: int
    char_end: int
    share: float


@dataclass(frozen=True)
class Explanation:
    """A passage's score, token by token."""

    trace_id: str
    passage_id: str
    method: str
    curvature: str
    text: str
    tokens: tuple[TokenShare, ...]
    score: float
    """The score at full precision, which the shares add up to."""
    stored_score: float
    """The score from the stored codes, as a trace ranks it."""

    @property
    def gap(self) -> float:
        """What storing the passage's encoding in few bits added to the score."""
        return self.stored_score - self.score


def explain(
    lake: LakeStore,
    session: Session,
    trace_id: str,
    passage: str,
    *,
    encoder_row: models.Encoder,
    encoder: Encoder,
) -> Explanation:
    """Split the score of a passage under a trace into shares of its tokens.

    `passage` is an id, or the rank of one of the trace's proponents. Any passage that the encoder has encoded has a
    score, found by the trace or not. Raises NotFoundError for another, EncodingError when it cannot be encoded anew.
    """
    trace = session.trusted("report_trace", {"trace_id": trace_id}).to_pylist()[0]
    passage_id, text, text_hash = _find_passage(session, trace_id, passage)
    curvature = find_curvature(lake, encoder_row, encoder, trace["curvature"])
    vector = _query_vector(lake, trace, encoder_row.name, curvature)
    method = METHODS[trace["method"]]
    example, offsets = _example(encoder, text)
    psi = encoder.encode([example]).vectors
    norm = float(psi.norm())
    if not np.isfinite(norm) or norm == 0:
        raise EncodingError(f"the gradient of passage {passage_id} is zero or not finite")
    scale = 1 / (norm * float(curvature.curvature.norms(psi / norm)[0])) if method.unit_norm else 1.0
    shares = (encoder.token_shares(example, torch.from_numpy(vector)) * scale).tolist()
    at = get_snapshot(lake.catalog, trace["snapshot"])
    encodings = lake.table(encodings_table(encoder_row.name), at=at)
    rows = rows_of(encodings, pa.array([text_hash]))
    norms = curvature.norms(lake, at) if method.unit_norm else None
    scores = all_scores(encodings, vector[None], rows=rows, unit_norm=method.unit_norm, norms=norms)
    if not len(scores):
        raise NotFoundError(f"passage {passage_id} has no encoding by {encoder_row.name!r} in the trace's snapshot")
    return Explanation(
        trace_id=trace_id,
        passage_id=passage_id,
        method=method.name,
        curvature=curvature.name,
        text=text,
        tokens=tuple(
            TokenShare(text[start:end] or name, start, end, share)
            for (name, start, end), share in zip(offsets, shares, strict=True)
        ),
        score=float((psi[0].double() @ torch.from_numpy(vector).double()) * scale),
        stored_score=float(scores[0, 0]),
    )


def _find_passage(session: Session, trace_id: str, passage: str) -> tuple[str, str, str]:
    by_rank = "SELECT passage_id FROM hits WHERE trace_id = $trace AND side = 'proponent' AND rank = $rank"
    if passage.isdecimal() and len(passage) < 6:
        ranked = session.sql(by_rank, {"trace": trace_id, "rank": int(passage)}).to_dicts()
        if not ranked:
            raise NotFoundError(
                f"trace {trace_id} has no proponent of rank {passage}; name other passages by their ids"
            )
        passage = ranked[0]["passage_id"]
    found = session.sql(
        "SELECT passage_id, text, text_hash FROM passages WHERE passage_id = $passage", {"passage": passage}
    ).to_dicts()
    if not found:
        raise NotFoundError(f"there is no passage {passage!r}; give an id, or the rank of a proponent")
    return found[0]["passage_id"], found[0]["text"], found[0]["text_hash"]


def _query_vector(lake: LakeStore, trace: dict[str, Any], encoder: str, curvature: NamedCurvature) -> np.ndarray:
    """Return the vector (d,) that the trace took dot products with, from the stored encodings of its queries."""
    parts = json.loads(trace["parts"] or "[]")
    members = _members(parts) or [trace["query_id"]]
    wanted = ", ".join(f"'{member}'" for member in set(members))
    newest = latest_snapshot(lake.catalog)  # a trace is stored in a snapshot after the one that it searched
    rows = lake.table("queries", at=newest).to_table(filter=f"encoder = '{encoder}' AND query_id IN ({wanted})")
    vector_of = dict(zip(rows["query_id"].to_pylist(), rows["vector"].to_pylist(), strict=True))
    psi = torch.tensor([vector_of[member] for member in members], dtype=torch.float32)
    vectors: np.ndarray = query_vectors(METHODS[trace["method"]], curvature.curvature, psi).mean(0).numpy()
    return vectors


def _members(parts: list[dict[str, Any]]) -> list[str]:
    """Return the queries that a mean is taken over, each as often as it was asked: no query has two equal parts."""
    firsts: dict[str, dict[str, Any]] = {}
    of_means = [part for part in parts if "query" in part]
    return [part["query"] for part in of_means if part == firsts.setdefault(part["query"], part)]


def _example(encoder: Encoder, text: str) -> tuple[Example, list[tuple[str, int, int]]]:
    tokenizer = encoder.projector.checkpoint.tokenizer
    encoded = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True)
    ids = tuple(encoded["input_ids"][: encoder.context_length])
    names = tokenizer.convert_ids_to_tokens(list(ids))
    offsets = [(name, start, end) for name, (start, end) in zip(names, encoded["offset_mapping"], strict=False)]
    return Example(ids), offsets
