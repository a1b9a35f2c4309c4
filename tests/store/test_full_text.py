"""The full-text index finds what shares a word, in many scripts, with one BM25 score for one text, and hides no row."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sqlalchemy import select, update

from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError
from proponent.schema.ids import text_hash
from proponent.schema.tables import PASSAGES
from proponent.store.full_text import build_full_text, had_full_text, has_full_text, match_texts, open_full_text
from proponent.store.lake import LakeStore
from proponent.store.snapshots import latest_snapshot


def rows_of(texts: Sequence[str], *, first: int = 0) -> pa.Table:
    blank = {"ordinal": 0, "char_start": 0, "char_end": 1, "n_tokens": None}
    named = [
        {"passage_id": f"p{place:04}", "doc_id": f"d{place:04}", "text": text, "text_hash": text_hash(text)}
        for place, text in enumerate(texts, start=first)
    ]
    return pa.Table.from_pylist([blank | row for row in named], schema=PASSAGES)


@pytest.fixture
def add(lake: LakeStore, publish: Callable[..., Any]) -> Callable[..., None]:
    def add(texts: Sequence[str], *, first: int = 0) -> None:
        publish(lake, [("passages", rows_of(texts, first=first))])

    return add


def among(allowed: pa.Array) -> Callable[[pa.Array], np.ndarray]:
    return lambda keys: pc.is_in(keys, value_set=allowed).to_numpy()


def search(lake: LakeStore, query: str, *, k: int = 1000, allowed: Sequence[str] | None = None) -> dict[str, float]:
    """Return texts with their scores, best first."""
    at = latest_snapshot(lake.catalog)
    rows = lake.table("passages", at=at).to_table(columns=["text", "text_hash"])
    text_of = dict(zip(rows["text_hash"].to_pylist(), rows["text"].to_pylist(), strict=True))
    keys = pa.array([*text_of] if allowed is None else [text_hash(text) for text in allowed], pa.string())
    found = match_texts(open_full_text(lake, at), query, passes=among(keys), k=k)
    return {text_of[key]: score for key, score in zip(found.keys, found.scores, strict=True)}


def bm25(texts: Sequence[str], query: str, *, k1: float = 1.2, b: float = 0.75) -> dict[str, float]:
    """Score texts of words in lower case by the definition (Robertson and Zaragoza, 2009), idf as Lucene has it."""
    words = [text.split() for text in texts]
    mean = sum(map(len, words)) / len(words)
    scores: dict[str, float] = {}
    for term, times in Counter(query.split()).items():
        n = sum(term in some for some in words)
        idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
        for text, some in zip(texts, words, strict=True):
            tf = some.count(term)
            weight = times * idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(some) / mean))
            if tf:
                scores[text] = scores.get(text, 0) + weight / texts.count(text)
    return scores


def drawn(n: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 41)
    words = np.array([f"w{place}" for place in range(40)])
    return [" ".join(draw.choice(words, draw.integers(2, 20), p=weights / weights.sum())) for _ in range(n)]


def test_scores_are_bm25_by_the_definition(lake: LakeStore, add: Callable[..., None]) -> None:
    texts = drawn(300, 0)
    add(texts)
    build_full_text(lake)
    for query in ("w30", "w30 w35 w2", "w30 w30 w5"):
        found, expected = search(lake, query), bm25(texts, query)
        assert found == pytest.approx(expected, rel=1e-5)
        assert [*found.values()] == sorted(found.values(), reverse=True)


QUERIES = {
    "首都": ["北京是中华人民共和国的首都。", "東京は日本の首都です。"],
    "テスト": ["カタカナのテスト"],
    "ประเทศไทย": ["กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"],
    "مصر": ["القاهرة هي عاصمة جمهورية مصر العربية"],
    "राजधानी": ["दिल्ली भारत की राजधानी है"],
    "ÉTÉ": ["L'été à Côte d'Ivoire"],
    "cote": ["L'été à Côte d'Ivoire"],
    "strasse": ["Große Straße"],
    "РАСТЁТ": ["Ёлка растёт в Москве"],
    "mail": ["an e-mail about foo_bar"],
    "bar": ["an e-mail about foo_bar"],
}


@pytest.mark.parametrize("indexed", [True, False])
def test_words_of_many_languages_are_found_indexed_or_not(
    lake: LakeStore, add: Callable[..., None], indexed: bool
) -> None:
    texts = sorted({text for found in QUERIES.values() for text in found})
    if indexed:
        add(texts)
        build_full_text(lake)
    else:
        add(["something else"])
        build_full_text(lake)
        add(texts, first=1)
    assert {query: sorted(search(lake, query)) for query in QUERIES} == {q: sorted(t) for q, t in QUERIES.items()}


def test_a_query_is_words_and_nothing_else(lake: LakeStore, add: Callable[..., None]) -> None:
    add(["One two.", "three", "..."])
    build_full_text(lake)
    for query in ("one AND -two", "+one", '"two one"', "(one", "one~9", "on* one", "\x00 one", "one\none"):
        assert [*search(lake, query)] == ["One two."]
    for query in ("", " ", "!!!", '"', "nothing"):
        assert search(lake, query) == {}


def test_without_an_index_the_command_is_named(lake: LakeStore, add: Callable[..., None]) -> None:
    with pytest.raises(NotFoundError, match="proponent ingest"):
        build_full_text(lake)
    add(["one"])
    with pytest.raises(NotFoundError, match="no full-text index; build one with `proponent index`"):
        search(lake, "one")
    before = latest_snapshot(lake.catalog)
    build_full_text(lake)
    assert search(lake, "one")
    with pytest.raises(NotFoundError, match=f"snapshot {before.snapshot_id} has no full-text index"):
        open_full_text(lake, before)


def test_passages_that_arrive_are_searched_before_they_are_indexed(lake: LakeStore, add: Callable[..., None]) -> None:
    texts, more = drawn(100, 0), drawn(40, 1)
    add(texts)
    assert vars(build_full_text(lake)) == {"rows": 100, "added": 100}
    add(more, first=100)
    assert search(lake, "w30 w35").keys() == bm25(texts + more, "w30 w35").keys()
    assert vars(build_full_text(lake)) == {"rows": 140, "added": 40}
    assert search(lake, "w30 w35") == pytest.approx(bm25(texts + more, "w30 w35"), rel=1e-5)


def test_building_again_publishes_nothing_when_nothing_is_new(lake: LakeStore, add: Callable[..., None]) -> None:
    add(["one", "...", ""])
    build_full_text(lake)
    before = latest_snapshot(lake.catalog)
    assert vars(build_full_text(lake)) == {"rows": 3, "added": 0}
    assert latest_snapshot(lake.catalog) == before


def test_passages_that_go_are_neither_found_nor_counted(
    lake: LakeStore, add: Callable[..., None], publish: Callable[..., Any]
) -> None:
    texts = drawn(100, 0)
    add(texts[:60])
    add(texts[60:], first=60)
    build_full_text(lake)
    publish(lake, deletes=[("passages", "passage_id >= 'p0050'")])
    assert search(lake, "w30 w2").keys() == bm25(texts[:50], "w30 w2").keys()
    assert vars(build_full_text(lake)) == {"rows": 50, "added": 50}
    assert search(lake, "w30 w2") == pytest.approx(bm25(texts[:50], "w30 w2"), rel=1e-5)
    assert build_full_text(lake).added == 0


def test_equal_texts_have_one_score_indexed_or_not(lake: LakeStore, add: Callable[..., None]) -> None:
    texts = drawn(80, 0)
    add([*texts, "w30 w31"])
    build_full_text(lake)
    add(["w30 w31", "w30", *drawn(20, 2)], first=81)
    at = latest_snapshot(lake.catalog)
    found = match_texts(open_full_text(lake, at), "w30 w31", passes=among(pa.array([text_hash("w30 w31")])), k=5)
    assert found.keys == [text_hash("w30 w31")]


def test_fewer_are_the_first_of_more_with_all_that_are_as_good(
    lake: LakeStore, add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from proponent.store import full_text

    monkeypatch.setattr(full_text, "_FIRST", 2)  # so that what is asked for has to be widened
    monkeypatch.setattr(full_text, "_MORE", 2)
    same = [f"x{place} w30" for place in range(30)]
    add([*drawn(200, 0), *same])
    build_full_text(lake)
    everything = [*search(lake, "w30", k=10_000).items()]
    assert len(everything) > 40
    for k in (1, 3, 5, 10, 500):
        found = [*search(lake, "w30", k=k).items()]
        assert found == everything[: len(found)]
        assert len(found) >= min(k, len(everything))
        if len(found) > k:
            assert {score for _, score in found[k - 1 :]} == {found[k - 1][1]}
        if len(found) < len(everything):
            assert everything[len(found)][1] < found[-1][1]
    few = same[::7]
    assert [*search(lake, "w30", k=3, allowed=few)] == [text for text, _ in everything if text in few]


def test_equal_scores_are_in_the_order_of_their_hashes(lake: LakeStore, add: Callable[..., None]) -> None:
    texts = [f"x{place} w30" for place in range(30)]
    add(texts)
    build_full_text(lake)
    found = search(lake, "w30", k=1)
    assert len({*found.values()}) == 1
    assert [*found] == sorted(texts, key=text_hash)


def test_an_earlier_snapshot_is_searched_as_it_was(lake: LakeStore, add: Callable[..., None]) -> None:
    add(["one two", "two three"])
    build_full_text(lake)
    before = latest_snapshot(lake.catalog)
    allowed = pa.array([text_hash("one two"), text_hash("one again")])
    earlier = match_texts(open_full_text(lake, before), "one", passes=among(allowed), k=9)
    add(["one again"], first=2)
    build_full_text(lake)
    assert match_texts(open_full_text(lake, before), "one", passes=among(allowed), k=9) == earlier
    assert len(search(lake, "one")) == 2


def test_an_index_that_cuts_otherwise_is_built_anew(
    lake: LakeStore, add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from proponent.store import full_text

    add(["中国 runs"])
    with monkeypatch.context() as changed:
        changed.setattr(full_text, "TOKENIZER", full_text.TOKENIZER | {"base_tokenizer": "simple", "stem": True})
        build_full_text(lake)
    assert [*search(lake, "running")] == ["中国 runs"]
    assert build_full_text(lake).added == 1
    assert not search(lake, "running")
    assert search(lake, "中国")


def test_whether_it_was_ever_built_is_known(lake: LakeStore, add: Callable[..., None]) -> None:
    assert not had_full_text(lake)
    add(["one"])
    build_full_text(lake)
    assert had_full_text(lake)
    assert has_full_text(lake, latest_snapshot(lake.catalog))
    with lake.catalog.read() as session:
        run = session.scalars(select(models.Run).where(models.Run.kind == "index")).one()
    assert (run.status, run.counts, run.settings) == ("done", {"rows": 1, "added": 1}, {"kind": "full text"})


def test_a_build_that_ends_at_any_step_is_finished_by_building_again(
    make_lake: Any, tmp_path: Any, publish: Any, crashes: Any, crash: type[BaseException]
) -> None:
    for step in range(0, 1000, 5):
        lake = make_lake(tmp_path / f"lake{step}")
        publish(lake, [("passages", rows_of(["one two", "three"]))])
        try:
            with crashes.after_steps(step):
                build_full_text(lake)
            break
        except crash:
            with lake.catalog.write() as session:
                session.execute(update(models.Lock).values(process_start="gone"))
            publish(lake, [("passages", rows_of(["two four"], first=2))])
            build_full_text(lake)
            assert [*search(lake, "two")] == sorted(["one two", "two four"], key=text_hash), step
            assert build_full_text(lake).added == 0
    assert step > 6
