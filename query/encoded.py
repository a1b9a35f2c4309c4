"""Queries as vectors: the weighted sums of their parts' encodings."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from proponent.encode.encoder import Encoder
from proponent.encode.gradients import Example
from proponent.encode.tokens import query_example
from proponent.schema.errors import EncodingError

from .questions import Question, naming


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
