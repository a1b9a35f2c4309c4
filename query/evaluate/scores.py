"""What each method scores all texts with, for every fact: a subset's score is the sum of its texts' scores."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import pyarrow.compute as pc

from proponent.query.lexical import search_text
from proponent.schema.settings import BM25, HYBRID
from proponent.schema.tables import encodings_table
from proponent.store.full_text import match_texts, open_full_text
from proponent.store.matching import texts_of
from proponent.store.scan import all_scores

from .dense import dense_scores
from .methods import DENSE, RANDOM, RUN
from .rankings import Resolved, Searched, scans

Progress = Callable[[int], object]

UNSCORED: Final = {
    RUN: "a run lists some texts and says nothing of the others",
    HYBRID: "it joins ranks, and a sum of them stands for nothing",
}
"""Kinds of methods that have an order and no scores of all texts, and why."""


def each_scores(one: Resolved, searched: Searched, progress: Progress) -> Iterator[np.ndarray]:
    """Yield scores (facts, texts) of some facts after the other, the texts in the order of their keys.

    `progress` is told facts. The method is none of UNSCORED. Raises EncodingError for a fact that cannot be encoded.
    """
    if one.spec.kind == BM25:
        yield from _by_words(searched, progress)
    elif one.spec.kind == RANDOM:
        yield from _drawn(searched)
    elif one.spec.kind == DENSE:
        assert one.spec.path is not None
        asked = [search_text(fact.question) for fact in searched.facts]
        yield dense_scores(searched.lake, searched.at, searched.texts, one.spec.path, asked)
    else:
        yield from _by_gradients(one, searched, progress)


def _by_gradients(one: Resolved, searched: Searched, progress: Progress) -> Iterator[np.ndarray]:
    for scan in scans(one, searched, progress):
        encodings = searched.lake.table(encodings_table(scan.encoder), at=searched.at)
        keys, scores = texts_of(encodings, scan.how["rows"]), all_scores(encodings, scan.queries, **scan.how)
        yield scores[pc.sort_indices(keys).to_numpy()].T.astype(np.float64)


def _by_words(searched: Searched, progress: Progress) -> Iterator[np.ndarray]:
    """Score texts that share no word with the fact by 0."""
    passages, passes = open_full_text(searched.lake, searched.at), searched.texts.have
    places = {key: place for place, key in enumerate(searched.texts.keys)}
    for fact in searched.facts:
        matched = match_texts(passages, search_text(fact.question), passes=passes, k=len(places))
        scores = np.zeros((1, len(places)))
        scores[0, [places[key] for key in matched.keys]] = matched.scores
        progress(1)
        yield scores


def _drawn(searched: Searched) -> Iterator[np.ndarray]:
    for place in range(len(searched.facts)):
        draw = np.random.default_rng([searched.settings.seed, place, 2])
        yield draw.standard_normal((1, len(searched.texts.keys)))
