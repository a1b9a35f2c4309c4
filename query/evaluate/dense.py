"""A dense baseline: texts near the question by an encoder of sentences, which knows nothing of the model."""

from collections.abc import Callable, Iterator, Sequence
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from proponent.encode.sentences import load_sentence_encoder
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

from .texts import Texts, each_text

_AT_ONCE: Final = 1024


def rank_dense(
    lake: LakeStore,
    at: Snapshot,
    texts: Texts,
    path: Path,
    asked: Sequence[str],
    *,
    k: int,
    progress: Callable[[int], object],
) -> list[list[str]]:
    """Return the hashes of the k texts nearest to each question by the cosine, equal ones by their hashes.

    Texts stream past, some at a time, and only the best of each question are kept.
    """
    encoder = load_sentence_encoder(path)
    queries = encoder.embed(asked)
    best: list[list[tuple[float, str]]] = [[] for _ in asked]
    for part in _parts(each_text(lake, at, texts.n_passages)):
        keys = [key for key, _ in part]
        scores = queries @ encoder.embed([text for _, text in part]).T  # (questions, texts)
        for place, row in enumerate(scores):
            found = [(-score, key) for score, key in zip(row.tolist(), keys, strict=True)]
            best[place] = nsmallest(k, [*best[place], *found])
        progress(len(part))
    return [[key for _, key in one] for one in best]


def _parts(texts: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    while part := list(islice(texts, _AT_ONCE)):
        yield part


def dense_scores(lake: LakeStore, at: Snapshot, texts: Texts, path: Path, asked: Sequence[str]) -> np.ndarray:
    """Return the cosines (questions, texts) float64 of all texts, in the order of their keys."""
    encoder = load_sentence_encoder(path)
    queries, places = encoder.embed(asked), {key: place for place, key in enumerate(texts.keys)}
    scores = np.empty((len(asked), len(places)))
    for part in _parts(each_text(lake, at, texts.n_passages)):
        scores[:, [places[key] for key, _ in part]] = queries @ encoder.embed([text for _, text in part]).T
    return scores
