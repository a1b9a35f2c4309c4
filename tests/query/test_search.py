"""A search is a sort of the candidates' scores; a filter chooses the candidates before it."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query import search as module
from proponent.query.search import Found, PassagesOfTexts, ScoredPassage, find_candidates, passing, ranked, search
from proponent.query.session import Session
from proponent.store.codes import dequantise, read_codes
from proponent.store.lake import LakeStore
from proponent.store.scan import Ranked
from proponent.store.snapshots import Snapshot, get_snapshot

DIM = 64


def ask(
    lake: LakeStore, session: Session, at: Snapshot, queries: np.ndarray, where: str | None, k: int, **more: Any
) -> list[Found]:
    candidates = find_candidates(lake, session, at, encoder="e", where=where)
    options = {"unit_norm": True} | more
    return search(lake, session, at, encoder="e", queries=queries, candidates=candidates, k=k, **options)


def passage_ids(session: Session, where: str | None, lake: LakeStore, at: Snapshot) -> set[str]:
    """Return the passages that pass a filter and are encoded, one by one."""
    encoded = {*lake.table("encodings_e", at=at).to_table(columns=["text_hash"])["text_hash"].to_pylist()}
    return {row["passage_id"] for row in passing(session, where).to_pylist() if row["text_hash"] in encoded}


def query_vectors(seed: int, n: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def passages(lake: LakeStore, at: Snapshot) -> dict[str, str]:
    rows = lake.table("passages", at=at).to_table(columns=["passage_id", "text_hash"])
    return dict(zip(rows["passage_id"].to_pylist(), rows["text_hash"].to_pylist(), strict=True))


def direct_scores(lake: LakeStore, at: Snapshot, query: np.ndarray, *, unit_norm: bool) -> dict[str, float]:
    """Score every encoded passage without the scan."""
    rows = lake.table("encodings_e", at=at).to_table()
    scores = dequantise(read_codes(rows)) @ query
    if not unit_norm:
        scores = scores * rows["norm"].to_numpy()
    by_text = dict(zip(rows["text_hash"].to_pylist(), scores.tolist(), strict=True))
    return {passage: by_text[text] for passage, text in passages(lake, at).items() if text in by_text}


LITERALS = st.sampled_from(["'news'", "'wiki'", "'O''Reilly'", "'wëb'", "NULL"])
ATOMS = st.one_of(
    st.tuples(
        st.sampled_from(["source", "title"]), st.sampled_from(["=", "<>", "IS DISTINCT FROM", "<"]), LITERALS
    ).map(" ".join),
    st.sampled_from("0123456789abcdefghijklmnopqrstuvwxyz").map(lambda c: f"passage_id >= '{c}'"),
    st.integers(0, 59).map(lambda n: f"doc_key = 'd{n}'"),
    st.integers(0, 70).map(lambda n: f"n_tokens < {n}"),
    st.dates().map(lambda day: f"published <= DATE '{day}'"),
    st.sampled_from(["France", "Peru", "日本", "nobody"]).map(lambda name: f"entity('{name}')"),
    st.sampled_from(["trained_on", "ordinal = 1", "source IS NULL", "text LIKE 'Repeated%'", "true", "false"]),
)
PREDICATES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"NOT ({one})"),
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda three: "({}) {} ({})".format(*three)),
    ),
    max_leaves=4,
)


@given(PREDICATES, st.integers(0, 2**32 - 1), st.integers(1, 140), st.booleans())
def test_a_filtered_search_is_the_unlimited_search_with_the_others_left_out(
    filled: LakeStore, session: Session, at: Snapshot, where: str, seed: int, k: int, unit_norm: bool
) -> None:
    query = query_vectors(seed)
    kept = passage_ids(session, where, filled, at)
    assert len(find_candidates(filled, session, at, encoder="e", where=where)) == len(kept)
    (found,) = ask(filled, session, at, query, where, k, unit_norm=unit_norm)
    (all_found,) = ask(filled, session, at, query, None, 10_000, unit_norm=unit_norm)
    for some, everything in zip(found, all_found, strict=True):
        expected = [hit for hit in everything if hit.passage_id in kept][:k]
        assert [hit.passage_id for hit in some] == [hit.passage_id for hit in expected]
        assert np.allclose([hit.score for hit in some], [hit.score for hit in expected], rtol=1e-4, atol=1e-5)
        assert [hit.rank for hit in some] == list(range(1, len(some) + 1))


@pytest.mark.parametrize("unit_norm", [True, False])
def test_every_candidate_is_on_one_side_with_its_direct_score(
    filled: LakeStore, session: Session, at: Snapshot, unit_norm: bool
) -> None:
    query = query_vectors(1)
    (found,) = ask(filled, session, at, query, None, 10_000, unit_norm=unit_norm)
    scores = direct_scores(filled, at, query[0], unit_norm=unit_norm)
    hits = [*found.proponents, *found.opponents]
    assert sorted(hit.passage_id for hit in hits) == sorted(scores)
    for hit in hits:
        assert hit.score == pytest.approx(scores[hit.passage_id], rel=1e-4, abs=1e-5)
    assert [hit.score for hit in found.proponents] == sorted((hit.score for hit in found.proponents), reverse=True)
    assert [hit.score for hit in found.opponents] == sorted(hit.score for hit in found.opponents)
    assert found.proponents[-1].score > 0 > found.opponents[-1].score


def test_percentile_is_the_share_of_candidates_that_score_lower(
    filled: LakeStore, session: Session, at: Snapshot
) -> None:
    for where in (None, "ordinal = 1", "entity('Peru')"):
        candidates = passage_ids(session, where, filled, at)
        query = query_vectors(2)
        (found,) = ask(filled, session, at, query, where, 7)
        scores = {
            key: value
            for key, value in direct_scores(filled, at, query[0], unit_norm=True).items()
            if key in candidates
        }
        for hit in [*found.proponents, *found.opponents]:
            lower = sum(score < scores[hit.passage_id] - 1e-6 for score in scores.values())
            assert hit.percentile == pytest.approx(100 * lower / len(scores))


def test_repeated_texts_count_every_passage(filled: LakeStore, session: Session, at: Snapshot) -> None:
    candidates = find_candidates(filled, session, at, encoder="e", where="ordinal = 1")
    by_text = passages(filled, at)
    repeats = Counter(by_text[passage] for passage in passage_ids(session, "ordinal = 1", filled, at))
    assert len(candidates) == repeats.total() > 20
    assert candidates.rows.true_count == len(repeats)
    assert len(repeats) == 3
    (found,) = ask(filled, session, at, query_vectors(3), "ordinal = 1", 1000)
    hits = [*found.proponents, *found.opponents]
    assert len(hits) == len(candidates)
    for side in found:
        for text in {by_text[hit.passage_id] for hit in side}:
            group = [hit for hit in side if by_text[hit.passage_id] == text]
            assert len(group) == repeats[text]
            assert len({(hit.score, hit.percentile) for hit in group}) == 1
            assert [hit.passage_id for hit in group] == sorted(hit.passage_id for hit in group)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_fewer_hits_are_the_first_of_more_even_among_repeated_texts(
    filled: LakeStore, session: Session, at: Snapshot, k: int
) -> None:
    for seed in range(5):
        (few,) = ask(filled, session, at, query_vectors(seed), "ordinal = 1", k)
        (many,) = ask(filled, session, at, query_vectors(seed), "ordinal = 1", 1000)
        for some, everything in zip(few, many, strict=True):
            assert [hit.passage_id for hit in some] == [hit.passage_id for hit in everything[:k]]


@given(st.permutations(["p1", "p2", "p3"]), st.integers(1, 3))
def test_equal_scores_of_different_texts_keep_their_order_whatever_k(passages: list[str], k: int) -> None:
    by_text = dict(zip(["ta", "tb", "tc"], ([one] for one in passages), strict=True))
    side = Ranked(["ta", "tb", "tc"][:k], [0.5] * k)
    assert [hit.passage_id for hit in ranked(side, by_text, k=k, n=3, sign=1)] == passages[:k]


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("where", [None, "ordinal = 1", "source = 'news'", "entity('Peru')", "false"])
def test_passages_of_texts_are_looked_up_once(
    filled: LakeStore, session: Session, at: Snapshot, where: str | None, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FEW", few)
    read, asked = session.trusted_read, list[str]()
    monkeypatch.setattr(
        session, "trusted_read", lambda *of, **more: asked.append(more["predicate"]) or read(*of, **more)
    )
    texts = sorted(set(passages(filled, at).values()))
    expected: dict[str, set[str]] = {text: set() for text in [*texts, "unknown"]}
    for row in passing(session, where).to_pylist():
        expected[row["text_hash"]].add(row["passage_id"])
    asked.clear()
    looking = PassagesOfTexts(session, where)
    first = looking.of(texts[:20])
    assert {text: set(found) for text, found in first.items()} == {text: expected[text] for text in texts[:20]}
    assert len(asked) == 1
    everything = looking.of([*texts, "unknown"])
    assert {text: set(found) for text, found in everything.items()} == expected
    assert not any(repr(text) in asked[-1] for text in texts[:20])
    assert len(asked) == 2
    have = PassagesOfTexts(session, where).have(pa.chunked_array([[texts[0], *texts], ["unknown"]]))
    assert have.tolist() == [bool(expected[text]) for text in [texts[0], *texts, "unknown"]]


def test_many_queries_find_what_each_finds_alone(filled: LakeStore, session: Session, at: Snapshot) -> None:
    queries = query_vectors(4, n=9)
    together = ask(filled, session, at, queries, "source = 'news'", 5)
    for place, found in enumerate(together):
        (alone,) = ask(filled, session, at, queries[place : place + 1], "source = 'news'", 5)
        for some, others in zip(found, alone, strict=True):
            assert [hit.passage_id for hit in some] == [hit.passage_id for hit in others]


def test_texts_that_are_not_encoded_are_no_candidates(filled: LakeStore, session: Session, at: Snapshot) -> None:
    candidates = find_candidates(filled, session, at, encoder="e", where=None)
    expected = passage_ids(session, None, filled, at)
    assert len(candidates) == len(expected) < len(passages(filled, at))
    (found,) = ask(filled, session, at, query_vectors(0), None, 10_000)
    assert {hit.passage_id for side in found for hit in side} == expected


def test_a_filter_that_nothing_passes_finds_nothing(filled: LakeStore, session: Session, at: Snapshot) -> None:
    assert ask(filled, session, at, query_vectors(0, n=2), "false", 3) == [Found([], [])] * 2


def test_a_query_that_is_orthogonal_to_everything_has_no_hits(
    filled: LakeStore, session: Session, at: Snapshot
) -> None:
    assert ask(filled, session, at, np.zeros((1, DIM), np.float32), None, 3) == [Found([], [])]


def test_scores_are_plain_numbers(filled: LakeStore, session: Session, at: Snapshot) -> None:
    (found,) = ask(filled, session, at, query_vectors(0), None, 1)
    assert [type(value) for value in found.proponents[0]] == [str, int, float, float]
    assert ScoredPassage._fields == ("passage_id", "rank", "score", "percentile")


def test_before_it_was_encoded_there_is_nothing_to_search(filled: LakeStore, session: Session) -> None:
    from proponent.schema.errors import NotFoundError

    with pytest.raises(NotFoundError, match="has encoded nothing yet"):
        find_candidates(filled, session, get_snapshot(filled.catalog, 2), encoder="e", where=None)
