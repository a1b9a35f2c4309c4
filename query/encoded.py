"""Queries as vectors: the weighted sums of their parts' encodings.

Notable: a query that the lake has is not encoded again. In another batch, or on another processor, the last bits of its
vector could be others than of the one that its stored hits were scored with.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from proponent.encode.encoder import Encoder
from proponent.encode.gradients import Example
from proponent.encode.tokens import query_example
from proponent.schema.errors import EncodingError
from proponent.store.lake import LakeStore
from proponent.store.rows import in_lists
from proponent.store.snapshots import latest_snapshot

from .questions import Question, naming

_COLUMNS: Final = ["query_id", "vector", "loss", "n_tokens"]


class EncodedQueries(NamedTuple):
    """Queries, each the weighted sum of its parts, in order."""

    vectors: torch.Tensor
    """psi, (q, d) float32."""
    losses: np.ndarray
    """Mean of the targets' summed cross-entropies in nats, without what is taken off, (q,) float32."""
    n_tokens: np.ndarray
    """Tokens of the targets, without those of what is taken off, (q,) int64."""


def encode_queries(
    encoder: Encoder, queries: Sequence[Question], progress: Callable[[int], object] = lambda _n: None
) -> EncodedQueries:
    """Encode queries, none of them a mean. Raises EncodingError for one that has no encoding."""
    examples = [example for query in queries for example in query_examples(encoder, query)]
    encodings = encoder.encode(examples, progress=progress)
    parts = [part for query in queries for part in query.summed]
    of = torch.tensor([place for place, query in enumerate(queries) for _ in query.summed])
    weights = torch.tensor([part.weight for part in parts])
    towards = weights.clamp(min=0)
    n_tokens = torch.tensor([example.n_loss for example in examples]) * (weights > 0)
    n = len(queries)
    encoded = EncodedQueries(
        torch.zeros(n, encodings.vectors.shape[1]).index_add_(0, of, weights[:, None] * encodings.vectors),
        torch.zeros(n).index_add_(0, of, towards * encodings.losses).numpy(),
        torch.zeros(n, dtype=torch.long).index_add_(0, of, n_tokens).numpy(),
    )
    norms = encoded.vectors.norm(dim=1)
    for query, norm, loss in zip(queries, norms.tolist(), encoded.losses.tolist(), strict=True):
        with naming(query.origin):
            if not (np.isfinite(norm) and np.isfinite(loss) and norm > 0):
                raise EncodingError(f"the gradient of {query.target!r} after {query.prompt!r} is zero or not finite")
    return encoded


def encode_new(
    lake: LakeStore,
    encoder: Encoder,
    queries: Sequence[Question],
    *,
    name: str,
    progress: Callable[[int], object] = lambda _n: None,
) -> EncodedQueries:
    """Return queries as `encode_queries` does, by an encoder of a lake; those that are stored are read.

    Raises EncodingError for one that has no encoding.
    """
    asked = {query.query_id: query for query in queries}
    known = _stored(lake, list(asked), name)
    new = [query for query_id, query in asked.items() if query_id not in known]
    progress(sum(len(asked[query_id].summed) for query_id in known))
    if new:
        made = encode_queries(encoder, new, progress)
        known |= zip((query.query_id for query in new), zip(*made, strict=True), strict=True)
    found = [known[query.query_id] for query in queries]
    return EncodedQueries(
        torch.stack([vector for vector, _, _ in found]),
        np.array([loss for _, loss, _ in found], np.float32),
        np.array([n_tokens for _, _, n_tokens in found], np.int64),
    )


def _stored(lake: LakeStore, query_ids: Sequence[str], encoder: str) -> dict[str, tuple[torch.Tensor, float, int]]:
    """Return the vector (d,), the loss and the tokens of those queries that an encoder has encoded."""
    stored = lake.table("queries", at=latest_snapshot(lake.catalog))
    found: dict[str, tuple[torch.Tensor, float, int]] = {}
    for chosen in in_lists("query_id", pa.array(query_ids, pa.string())):
        rows = stored.to_table(columns=_COLUMNS, filter=f"encoder = '{encoder}' AND {chosen}").to_pylist()
        found |= {row["query_id"]: (torch.tensor(row["vector"]), row["loss"], row["n_tokens"]) for row in rows}
    return found


def means(questions: Sequence[Question], vectors: torch.Tensor) -> np.ndarray:
    """Return the questions' vectors (n, d): the means of those of their queries (q, d), which a method has made.

    A mean is not normalised again, so that a passage's score is the mean of its scores.
    """
    return np.stack([group.mean(0) for group in by_question(questions, vectors.numpy())])


def by_question(questions: Sequence[Question], values: np.ndarray) -> list[np.ndarray]:
    """Cut what there is for each query (q, ...) into groups, one for each question."""
    return np.split(values, np.cumsum([len(question.queries) for question in questions])[:-1])


def query_examples(encoder: Encoder, query: Question) -> list[Example]:
    """Return the examples of a query's parts, in order. Raises EncodingError for one that cannot be encoded."""
    with naming(query.origin):
        examples = [
            query_example(
                encoder.projector.checkpoint.tokenizer,
                part.prompt if part.rendered is None else part.rendered,
                part.target,
                context_length=encoder.context_length,
                rendered=part.rendered is not None,
            )
            for part in query.summed
        ]
        if len(set(examples)) < len(examples):  # their difference would be rounding errors, brought to unit length
            raise EncodingError(f"two of these are the same tokens to the model's tokenizer: {query.target}")
    return examples
