"""Near-duplicates are those that a comparison of every two documents finds, in whatever order documents came."""

import json
import random
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import proponent
from proponent.cli import cli
from proponent.ingest import document_texts, near_duplicates, sorting
from proponent.ingest.minhash import MISSED, PERMUTATIONS, Bands
from proponent.ingest.shingles import SHINGLE_WORDS, jaccard_with, shingles
from proponent.lake import Lake
from proponent.schema import catalog as models
from proponent.schema.errors import LakeBusyError, LakeError, SettingsError
from proponent.schema.settings import EncoderSettings
from proponent.store.commit import Committer
from proponent.store.leases import lease

Write = Callable[..., Path]
Marks = dict[str, tuple[str, float]]

VOCABULARY = [f"word{n}" for n in range(400)]
ALPHABET = "abc"


def marks(lake: Lake, *, at: int | None = None) -> Marks:
    """The key of every marked document, with its original's key and their similarity."""
    rows = lake.sql(
        "SELECT d.doc_key AS key, o.doc_key AS of_key, similarity FROM near_duplicates "
        "JOIN documents AS d USING (doc_id) JOIN documents AS o ON o.doc_id = of_doc_id",
        at=at,
    )
    return {row.key: (row.of_key, row.similarity) for row in rows}


def rows_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"id": f"d{n:03}", "text": text} for n, text in enumerate(texts)]


def random_text(chance: random.Random, n_words: int = 120) -> str:
    return " ".join(chance.choices(VOCABULARY, k=n_words))


def edited(text: str, n_edits: int, chance: random.Random) -> str:
    words = text.split()
    for place in chance.sample(range(len(words)), n_edits):
        words[place] = chance.choice(VOCABULARY)
    return " ".join(words)


@cache
def tuples(text: str) -> frozenset[tuple[str, ...]]:
    """The shingles of words that white space separates, without hashes."""
    words = text.split()
    n_words = min(SHINGLE_WORDS, len(words))
    starts = range(len(words) - n_words + 1) if words else ()
    return frozenset(tuple(words[start : start + n_words]) for start in starts)


def similarity(one: str, other: str) -> float:
    first, second = tuples(one), tuples(other)
    return len(first & second) / max(1, len(first | second))


def brute_force(rows: Sequence[dict[str, Any]], threshold: float) -> Marks:
    """Compare every document with all that come before it and have no mark."""
    found: Marks = {}
    for place, row in enumerate(rows):
        alike = [
            (-similarity(row["text"], earlier["text"]), earlier["id"])
            for earlier in rows[:place]
            if earlier["id"] not in found
        ]
        if alike and -min(alike)[0] >= threshold:
            found[row["id"]] = (min(alike)[1], -min(alike)[0])
    return found


@pytest.fixture
def chance() -> random.Random:
    return random.Random(7)


@pytest.fixture
def families(chance: random.Random) -> list[dict[str, Any]]:
    """Three hundred documents: originals, and copies of them and of copies with few or many edits."""
    texts = [random_text(chance, chance.randint(3, 150)) for _ in range(40)]
    while len(texts) < 300:
        text = chance.choice(texts)
        texts.append(edited(text, chance.randint(0, 1 + len(text.split()) // 20), chance))
    chance.shuffle(texts)
    return rows_of(texts)


@pytest.fixture
def pair(lake: Lake, write_jsonl: Write, chance: random.Random) -> Lake:
    """A lake with an original, an edited copy of it and something else, marked."""
    text = random_text(chance)
    lake.ingest(write_jsonl(rows_of([text, edited(text, 2, chance), random_text(chance)])), corpus="c")
    assert lake.mark_near_duplicates() == {"documents": 3, "near_duplicates": 1, "originals": 1}
    return lake


@pytest.mark.parametrize(("threshold", "at_once"), [(0.5, 1 << 20), (0.65, 100), (0.8, 300), (0.95, 1 << 20), (1, 1)])
def test_the_marks_are_those_of_brute_force(
    lake: Lake,
    write_jsonl: Write,
    families: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    threshold: float,
    at_once: int,
) -> None:
    monkeypatch.setattr(near_duplicates, "_BATCH_SHINGLES", at_once)
    lake.ingest(write_jsonl(families), corpus="c")
    counts = lake.mark_near_duplicates(threshold=threshold)
    expected = brute_force(families, threshold)
    assert marks(lake) == expected
    assert counts["near_duplicates"] == len(expected) > 20
    assert counts["originals"] == len({of for of, _ in expected.values()})
    assert min(found for _, found in expected.values()) >= threshold


def test_neither_the_order_of_arrival_nor_an_update_nor_a_repetition_changes_the_marks(
    tmp_path: Path, write_jsonl: Write, families: list[dict[str, Any]], chance: random.Random
) -> None:
    results = []
    for turn in range(3):
        with proponent.init(tmp_path / f"lake{turn}") as lake:
            if turn:  # first as something else, so that an update brings the rows out of order
                lake.ingest(write_jsonl([row | {"text": f"Once {row['id']}."} for row in families[::7]]), corpus="c")
            for part in (families[:150], families[150:]):
                lake.ingest(write_jsonl(part), corpus="c")
            lake.mark_near_duplicates()
            results.append(lake.sql("FROM near_duplicates ORDER BY ALL").to_dicts())
            before = lake.snapshot
            lake.mark_near_duplicates()
            assert lake.snapshot == before
        chance.shuffle(families)
    assert results[0] == results[1] == results[2] != []


def test_what_is_merely_on_the_same_topic_is_kept_apart(lake: Lake, write_jsonl: Write) -> None:
    texts = [
        f"{city} is the capital of {name}. It lies on a river, it has many old districts, and it is the largest city."
        for city, name in [("Paris", "France"), ("Lima", "Peru"), ("Nairobi", "Kenya")]
    ]
    lake.ingest(write_jsonl(rows_of(texts)), corpus="c")
    lake.mark_near_duplicates()
    assert marks(lake) == {}


def test_similarity_is_not_passed_on(lake: Lake, write_jsonl: Write) -> None:
    first = [f"w{n}" for n in range(100)]
    second, third = first.copy(), first.copy()
    second[20] = third[20] = third[50] = "other"
    rows = rows_of([" ".join(words) for words in (first, second, third)])
    near, far = similarity(rows[0]["text"], rows[1]["text"]), similarity(rows[0]["text"], rows[2]["text"])
    assert similarity(rows[1]["text"], rows[2]["text"]) == near > 0.9 > far
    lake.ingest(write_jsonl(rows), corpus="c")
    lake.mark_near_duplicates(threshold=0.9)
    assert marks(lake) == {"d001": ("d000", near)}


def test_a_document_is_marked_with_the_most_similar_and_the_first_of_equals(lake: Lake, write_jsonl: Write) -> None:
    words = [f"w{n}" for n in range(100)]
    texts = []
    for changed in ([10, 30, 50, 70], [90], [50]):
        texts.append(" ".join("other" if n in changed else word for n, word in enumerate(words)))
    rows = rows_of([texts[0], texts[1], " ".join(words), " ".join(words)])
    assert similarity(texts[0], texts[1]) < 0.7
    lake.ingest(write_jsonl(rows), corpus="c")
    lake.mark_near_duplicates(threshold=0.7)
    assert {key: of for key, (of, _) in marks(lake).items()} == {"d002": "d001", "d003": "d001"}


def test_the_earliest_published_is_the_original(lake: Lake, write_jsonl: Write, chance: random.Random) -> None:
    text = random_text(chance)
    dates = {"a": None, "b": "2021", "c": "2020-06-01", "d": "2020-06-01"}
    rows = [{"id": key, "text": text} | ({"date": date} if date else {}) for key, date in dates.items()]
    lake.ingest(write_jsonl(rows), corpus="c")
    lake.ingest(write_jsonl([{"id": "z", "text": text, "date": "2020-06-01"}]), corpus="b")
    lake.mark_near_duplicates()
    assert marks(lake) == dict.fromkeys("abcd", ("z", 1.0))


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("北京是中华人民共和国的首都,也是全国的政治中心和文化中心,位于华北平原的北部边缘,历史悠久。", "上海"),
        ("กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุดของประเทศไทยและเป็นศูนย์กลางการปกครอง", "เชียงใหม่"),
        ("東京は日本の首都であり、関東地方に位置する都市で、世界最大級の人口を有するメガシティである。", "大阪"),
        (" ".join(f"Москва{n} столица{n} России{n}" for n in range(20)), "Киев"),
        (" ".join(f"दिल्ली{n} भारत{n} की राजधानी{n} है" for n in range(20)), "मुंबई"),
        (" ".join(f"القاهرة{n} عاصمة{n} مصر{n}" for n in range(20)), "بغداد"),
    ],
)
def test_scripts_of_every_kind_are_compared(lake: Lake, write_jsonl: Write, text: str, changed: str) -> None:
    copy = text + changed[:2]
    other = "".join(reversed(text))
    lake.ingest(write_jsonl(rows_of([text, copy, other])), corpus="c")
    lake.mark_near_duplicates()
    assert list(marks(lake)) == ["d001"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The CAPITAL, of France: is Paris!", "the capital of france is paris"),
        ("Le café est fermé à midi", unicodedata.normalize("NFD", "Le café est fermé à midi")),
        ("Die Straße war gesperrt", "die STRASSE war gesperrt"),
        ("ＡＢＣ １２３ ﾃｽﾄ", "abc 123 テスト"),  # noqa: RUF001
        ("one\n\ntwo\tthree  four five", "one two three four five"),
        ("東京、日本。首都", "東京 日本 首都"),
    ],
)
def test_case_accents_width_punctuation_and_space_make_no_difference(one: str, other: str) -> None:
    assert jaccard_with(shingles(one), [shingles(other)]) == [1]


@pytest.mark.parametrize(
    ("one", "other"),
    [("हिन्दी", "हिन्दु"), ("café", "cafe"), ("ab c", "a bc"), ("one two", "two one"), ("a", "a a"), ("東京", "京東")],
)
def test_other_words_are_other_words(one: str, other: str) -> None:
    assert jaccard_with(shingles(one), [shingles(other)]) == [0]


@given(st.lists(st.lists(st.text(ALPHABET, min_size=1, max_size=2), min_size=1, max_size=40), min_size=2, max_size=5))
def test_hashes_compare_as_the_words_do(words: list[list[str]]) -> None:
    first, *others = map(" ".join, words)
    assert [len(shingles(text)) for text in others] == [len(tuples(text)) for text in others]
    found = jaccard_with(shingles(first), [shingles(other) for other in others])
    assert found.tolist() == [similarity(first, other) for other in others]


def test_short_documents_are_compared_as_wholes_and_those_without_words_with_nothing(
    lake: Lake, write_jsonl: Write
) -> None:
    texts = ["Yes.", "yes", "No.", "Yes, yes", "one two three four", "One two three four!", "...", "...", "👍\ufe0f"]
    lake.ingest(write_jsonl(rows_of(texts)), corpus="c")
    assert lake.mark_near_duplicates()["documents"] == 9
    assert marks(lake) == {"d001": ("d000", 1.0), "d005": ("d004", 1.0)}


@pytest.mark.parametrize("text", ["北京是首都" * 60, "ab" * 400, "one two three. four five! " * 40, "naïve " * 90])
def test_how_a_document_is_cut_makes_no_difference(tmp_path: Path, write_jsonl: Write, text: str) -> None:
    path = write_jsonl([{"id": "x", "text": text}])
    with proponent.init(tmp_path / "lake") as lake:
        lake.ingest(path, corpus="cut", max_chars=40)
        lake.ingest(path, corpus="whole", max_chars=100_000)
        with document_texts.ordered_texts(lake.store, lake.snapshot, tmp_path) as (documents, texts):
            cut, whole = map(shingles, texts)
        assert documents.num_rows == 2
        assert np.array_equal(cut, whole)
        assert np.array_equal(whole, shingles(text))


def test_an_empty_lake_has_none(lake: Lake) -> None:
    assert lake.mark_near_duplicates() == {"documents": 0, "near_duplicates": 0, "originals": 0}
    assert len(lake.sql("FROM near_duplicates")) == 0


@pytest.mark.parametrize("threshold", [0.5, 0.61, 0.7, 0.8, 0.9, 0.97, 0.999, 1])
def test_bands_are_as_long_as_the_share_that_may_be_missed_allows(threshold: float) -> None:
    cut = Bands.for_threshold(threshold)
    assert cut.missed(threshold) <= MISSED
    longer = Bands(PERMUTATIONS // (cut.rows + 1), cut.rows + 1)
    assert longer.rows > PERMUTATIONS or longer.missed(threshold) > MISSED


@pytest.mark.parametrize("n_common", [8, 80, 800])
def test_bands_miss_as_many_as_they_say(n_common: int) -> None:
    n_each = n_common // 8
    hashes = np.random.default_rng(0).integers(0, 2**63, (2000, 10 * n_each), dtype=np.uint64)
    ones, others = hashes[:, : 9 * n_each], hashes[:, n_each:]  # 8 of 10 parts in common
    cut = Bands.for_threshold(0.8)
    met = (cut.keys(list(ones)) == cut.keys(list(others))).any(axis=1)
    assert met.mean() >= 1 - 2 * MISSED
    strangers = cut.keys(list(ones[:-1])) == cut.keys(list(others[1:]))
    assert not strangers.any()


class StoppedError(Exception):
    """Stands for whatever goes wrong."""


@pytest.mark.parametrize("stop", [KeyboardInterrupt, StoppedError])
def test_a_run_that_is_stopped_changes_nothing(
    pair: Lake, write_jsonl: Write, chance: random.Random, stop: type[BaseException]
) -> None:
    pair.ingest(write_jsonl(rows_of([random_text(chance)] * 5)), corpus="more")
    before, found = pair.snapshot, marks(pair)

    def fail(_n: int) -> None:
        assert (pair.store.root / "work/near-duplicates").is_dir()
        raise stop

    with pytest.raises(stop):
        pair.mark_near_duplicates(progress=fail)
    assert (pair.snapshot, marks(pair)) == (before, found)
    assert not list(pair.store.root.glob("work/*"))
    [row] = pair.sql("SELECT status FROM runs WHERE kind = 'near-duplicates' ORDER BY started_at DESC LIMIT 1")
    assert row.status == "failed"
    assert pair.mark_near_duplicates()["near_duplicates"] == 5


class ProcessDied(BaseException):
    """Stands for a kill."""


def test_a_run_that_died_while_publishing_is_finished(
    pair: Lake, write_jsonl: Write, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.ingest(write_jsonl(rows_of([random_text(chance)] * 5)), corpus="more")

    def die(*_arguments: object) -> None:
        raise ProcessDied

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_carry_out", die)
        with pytest.raises(ProcessDied):
            pair.mark_near_duplicates()
    assert len(marks(pair)) == 1
    (pair.store.root / "work/near-duplicates").mkdir(parents=True)  # which a kill would have left
    (pair.store.root / "work/near-duplicates" / "keys").write_bytes(b"old")
    assert pair.mark_near_duplicates()["near_duplicates"] == 5
    assert len(pair.sql("FROM near_duplicates")) == 5
    assert pair.store.table("near_duplicates", at=pair.snapshot).count_rows() == 5
    assert not list(pair.store.root.glob("work/*"))


def test_what_does_not_fit_is_named(
    pair: Lake, write_jsonl: Write, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.ingest(write_jsonl(rows_of([random_text(chance, 2000) for _ in range(200)])), corpus="more")
    before = pair.snapshot
    monkeypatch.setattr(sorting, "MEMORY_LIMIT", "1MB")
    with pytest.raises(LakeError, match=r"cannot be sorted in .*near-duplicates: Out of Memory.*nothing was changed"):
        pair.mark_near_duplicates()
    assert pair.snapshot == before
    assert not list(pair.store.root.glob("work/*"))


@pytest.mark.parametrize("key", ["d000", "d001"])
def test_a_withdrawn_document_takes_its_marks_with_it(pair: Lake, key: str) -> None:
    earlier = pair.snapshot.snapshot_id
    assert len(marks(pair)) == 1
    pair.delete(f"doc_key = '{key}'")
    assert marks(pair) == marks(pair, at=earlier) == {}
    assert pair.store.table("near_duplicates", at=pair.snapshot).count_rows() == 0


@pytest.mark.parametrize("key", ["d000", "d001"])
def test_a_document_that_was_updated_since_has_no_marks_until_the_next_run(
    pair: Lake, write_jsonl: Write, key: str
) -> None:
    earlier = pair.snapshot.snapshot_id
    [row] = pair.sql("SELECT text FROM passages JOIN documents USING (doc_id) WHERE doc_key = 'd000'")
    pair.ingest(write_jsonl([{"id": key, "text": f"{row.text} more"}]), corpus="c")
    assert marks(pair) == {}
    assert list(marks(pair, at=earlier)) == ["d001"]
    pair.mark_near_duplicates()
    assert list(marks(pair)) == ["d001"]


def test_another_threshold_replaces_the_marks(pair: Lake) -> None:
    assert pair.mark_near_duplicates(threshold=1)["near_duplicates"] == 0
    assert marks(pair) == {}
    assert pair.mark_near_duplicates(threshold=0.5)["near_duplicates"] == 1
    [row] = pair.sql("SELECT settings->>'threshold' AS t FROM runs ORDER BY started_at DESC LIMIT 1")
    assert float(row.t) == 0.5


def test_a_lake_from_before_there_were_marks_gets_them(lake: Lake, write_jsonl: Write, chance: random.Random) -> None:
    lake.ingest(write_jsonl(rows_of([random_text(chance)] * 3)), corpus="c")
    shutil.rmtree(lake.store.tables_dir / "near_duplicates.lance")
    with lake.store.catalog.write() as session:
        for snapshot in session.query(models.Snapshot):
            snapshot.versions = {name: at for name, at in snapshot.versions.items() if name != "near_duplicates"}
    earlier = lake.snapshot.snapshot_id
    assert marks(lake) == {}
    assert lake.delete("doc_key = 'd002'")["documents"] == 1
    assert lake.mark_near_duplicates()["near_duplicates"] == 1
    assert marks(lake) == {"d001": ("d000", 1.0)}
    assert marks(lake, at=earlier) == {}


def test_it_waits_for_an_ingest(pair: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "WAIT_S", 0.2)
    with lease(pair.store.catalog, "ingest c"), pytest.raises(LakeBusyError, match="ingest c"):
        pair.mark_near_duplicates()


@pytest.mark.parametrize("threshold", [0.49, 1.01, -1, float("nan")])
def test_a_threshold_that_makes_no_sense_is_refused(lake: Lake, threshold: float) -> None:
    with pytest.raises(SettingsError, match=r"threshold must be between 0\.5 and 1"):
        lake.mark_near_duplicates(threshold=threshold)


@pytest.fixture
def traced(tmp_path: Path, sentences: list[str], checkpoint_dir: Path, write_jsonl: Write) -> Iterator[Lake]:
    """A lake with documents of which every fifth is repeated, traced and marked."""
    with proponent.init(tmp_path / "traced") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write_jsonl(rows_of([*sentences, *(text.upper() for text in sentences[::5])])), corpus="c")
        lake.encode(settings=EncoderSettings(blocks=1, side=8, moments="none", sample=40))
        lake.trace("The capital of", " France", method="logra", k=100)
        lake.mark_near_duplicates()
        yield lake


def test_influence_is_counted_without_near_duplicates(traced: Lake) -> None:
    [found] = traced.sql(
        "SELECT count(*) AS n, count(*) FILTER (doc_id IN (SELECT doc_id FROM near_duplicates)) AS marked "
        "FROM influence WHERE corpus = 'c'"
    )
    [kept] = traced.sql(
        "SELECT count(*) AS n FROM influence ANTI JOIN near_duplicates USING (doc_id) WHERE corpus = 'c'"
    )
    assert (found.n, found.marked, kept.n) == (72, 12, 60)


def test_the_commands_tell_what_they_marked(tmp_path: Path, write_jsonl: Write, chance: random.Random) -> None:
    text = random_text(chance)
    path = write_jsonl(rows_of([text, edited(text, 2, chance), random_text(chance)]))
    folder = str(tmp_path / "lake")
    invoke: Callable[..., Any] = CliRunner().invoke
    invoke(cli, ["init", folder])
    told = "1 of 3 documents are near-duplicates of 1 others (similarity 0.8 or more)"
    done = invoke(cli, ["ingest", folder, str(path), "--corpus", "c", "--near-duplicates"])
    assert done.stderr.index("3 added") < done.stderr.index(told)
    done = invoke(cli, ["duplicates", folder, "--format", "json"])
    assert told in done.stderr
    assert json.loads(done.stdout) == [{"documents": 3, "near_duplicates": 1, "originals": 1}]
    rows = json.loads(invoke(cli, ["sql", folder, "FROM near_duplicates", "--format", "json"]).stdout)
    assert [list(row) for row in rows] == [["doc_id", "of_doc_id", "similarity"]]
    history = json.loads(invoke(cli, ["history", folder, "--format", "json"]).stdout)
    assert [row["kind"] for row in history] == ["near-duplicates", "near-duplicates", "ingest", "init"]
    assert [row["snapshot"] for row in history[:2]] == [None, history[2]["snapshot"] + 1]
