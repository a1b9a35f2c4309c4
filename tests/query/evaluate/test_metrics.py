"""Metrics are what their definitions say, counted by hand; ranks are of texts, of which each counts once."""

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.evaluate.metrics import METRICS, distinct, precision, ranks_of, recall, reciprocal_rank

KEYS = st.lists(st.sampled_from("abcdefghij"), max_size=30)
GOLD = st.frozensets(st.sampled_from("abcdefghijklm"))


def measure(ranks: Sequence[int]) -> dict[str, float]:
    return {name: metric(ranks) for name, metric in METRICS.items()}


@given(KEYS, GOLD, st.integers(1, 12))
def test_metrics_are_those_of_their_definitions(listed: list[str], gold: frozenset[str], k: int) -> None:
    texts: list[str] = []
    for key in listed:
        if key not in texts:
            texts.append(key)
    ranks = ranks_of(listed, gold)
    first = next((Fraction(1, place + 1) for place in range(len(texts)) if texts[place] in gold), Fraction(0))
    assert reciprocal_rank(ranks) == pytest.approx(float(first))
    assert recall(ranks, k=k) == any(text in gold for text in texts[:k])
    assert precision(ranks, k=k) == pytest.approx(sum(text in gold for text in texts[:k]) / k)


@given(KEYS, GOLD, st.data())
def test_repeated_passages_of_a_text_change_nothing(
    listed: list[str], gold: frozenset[str], data: st.DataObject
) -> None:
    copies = [key for key in distinct(listed) for _ in range(data.draw(st.integers(1, 4)))]
    assert measure(ranks_of(copies, gold)) == measure(ranks_of(distinct(listed), gold))


@given(KEYS, GOLD)
def test_metrics_lie_between_nothing_and_all_and_recall_grows_with_k(listed: list[str], gold: frozenset[str]) -> None:
    found = measure(ranks_of(listed, gold))
    assert set(found) == set(METRICS)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["recall@1"] <= found["recall@10"] <= found["recall@100"]
    assert found["recall@1"] <= found["mrr"]


def test_known_values() -> None:
    assert measure((2, 5, 40)) == {"mrr": 0.5, "recall@1": 0, "recall@10": 1, "recall@100": 1, "precision@10": 0.2}
    assert set(measure(()).values()) == {0}
