"""A filter means what SQL's three truth values say, and a filtered search is the unlimited one with the rest left out.

Predicates and lakes are random. Every predicate is evaluated a second time in Python, row by row, without DuckDB.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proponent import migrations
from proponent.encode.methods import METHODS
from proponent.query.recall import UsableIndex
from proponent.query.search import find_candidates, passing, search
from proponent.query.session import Session
from proponent.schema import catalog as models
from proponent.schema.ids import document_id, passage_id, text_hash
from proponent.schema.tables import DOCUMENTS, MENTIONS, NEAR_DUPLICATES, PASSAGES
from proponent.store.codes import codes_arrays, quantise
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.indexes import build_index
from proponent.store.lake import DEFAULT_CATALOG, LakeStore, create_store
from proponent.store.runs import new_run, recorded_run
from proponent.store.snapshots import latest_snapshot

DIM = 64
LAKES = 2
ODD = [
    "France", "france", "O'Higgins", "''", '"quoted"', "日本", "é", "e\u0301", "100%", "_", "a;b--c", "/* x */", "\\",
    "🙂", "\u202eabc", "\u00a0", "", " ", "NULL", "true", "1", "$1", "?", "new\nline", "\ufeff", "ß", "SS", "İ",
]  # fmt: skip

Truth = bool | None
Row = dict[str, Any]


@dataclass(frozen=True)
class Predicate:
    """A predicate as SQL, and as what it is of a row."""

    sql: str
    holds: Callable[[Row], Truth]

    def __repr__(self) -> str:
        return self.sql


@dataclass(frozen=True)
class Random:
    """A random lake, its passages as rows that have everything a filter can name, and predicates over them."""

    lake: LakeStore
    session: Session
    rows: list[Row]
    predicates: st.SearchStrategy[Predicate]


# What a predicate is


def literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, date):
        return f"DATE '{value}'"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "<>": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def binary(value: Any) -> Any:
    """Return texts as DuckDB compares them: byte by byte."""
    return value.encode() if isinstance(value, str) else value


def compared(column: str, operator: str, value: object, *, sql: str | None = None) -> Predicate:
    def holds(row: Row) -> Truth:
        if row[column] is None or value is None:
            return None
        return COMPARE[operator](binary(row[column]), binary(value))

    return Predicate(f"{sql or column} {operator} {literal(value)}", holds)


def either_way(column: str, values: list[Any], *, sql: str | None = None) -> st.SearchStrategy[Predicate]:
    return st.builds(
        lambda operator, value: compared(column, operator, value, sql=sql),
        st.sampled_from(sorted(COMPARE)),
        st.sampled_from(values),
    )


def of_text(column: str, values: list[Any]) -> st.SearchStrategy[Predicate]:
    chosen = st.sampled_from([value for value in values if value is not None])

    def told(test: Callable[[str, str], bool], sql: str) -> st.SearchStrategy[Predicate]:
        return chosen.map(
            lambda value: Predicate(
                sql.format(column=column, value=literal(value)),
                lambda row: None if row[column] is None else test(row[column], value),
            )
        )

    return st.one_of(
        either_way(column, [*values, None]),
        told(lambda text, part: part in text, "contains({column}, {value})"),
        told(lambda text, part: text.startswith(part), "starts_with({column}, {value})"),
        st.just(Predicate(f"{column} IS NULL", lambda row: row[column] is None)),
        st.just(Predicate(f"{column} IS NOT NULL", lambda row: row[column] is not None)),
        chosen.map(
            lambda value: Predicate(
                f"{column} IS DISTINCT FROM {literal(value)}", lambda row: bool(row[column] != value)
            )
        ),
        st.lists(st.sampled_from([*values, None]), min_size=1, max_size=4).map(lambda some: one_of(column, some)),
    )


def one_of(column: str, values: list[Any]) -> Predicate:
    def holds(row: Row) -> Truth:
        if row[column] is None:
            return None
        return True if row[column] in values else None if None in values else False

    return Predicate(f"{column} IN ({', '.join(map(literal, values))})", holds)


def negated(inner: Predicate) -> Predicate:
    def holds(row: Row) -> Truth:
        value = inner.holds(row)
        return None if value is None else not value

    return Predicate(f"NOT ({inner.sql})", holds)


def joined(left: Predicate, word: str, right: Predicate) -> Predicate:
    absorbing = word == "OR"

    def holds(row: Row) -> Truth:
        both = (left.holds(row), right.holds(row))
        return absorbing if absorbing in both else None if None in both else not absorbing

    return Predicate(f"({left.sql}) {word} ({right.sql})", holds)


def chosen_by(condition: Predicate, then: Predicate, otherwise: Predicate) -> Predicate:
    return Predicate(
        f"CASE WHEN {condition.sql} THEN {then.sql} ELSE {otherwise.sql} END",
        lambda row: then.holds(row) if condition.holds(row) else otherwise.holds(row),
    )


def combined(atoms: st.SearchStrategy[Predicate], *, leaves: int) -> st.SearchStrategy[Predicate]:
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            inner.map(negated),
            st.builds(joined, inner, st.sampled_from(["AND", "OR"]), inner),
            st.builds(chosen_by, inner, inner, inner),
        ),
        max_leaves=leaves,
    )


def mentioned(inner: Predicate) -> Predicate:
    return Predicate(
        f"mention({inner.sql})", lambda row: any(inner.holds(row | one) is True for one in row["mentions"])
    )


def entity(name: str) -> Predicate:
    return Predicate(f"entity({literal(name)})", lambda row: any(one["entity"] == name for one in row["mentions"]))


def predicates_over(rows: list[Row]) -> st.SearchStrategy[Predicate]:
    days = sorted({row["published"] for row in rows if row["published"]})
    constants = [
        Predicate("true", lambda _row: True),
        Predicate("false", lambda _row: False),
        Predicate("NULL", lambda _row: None),
        Predicate("near_duplicate", lambda row: bool(row["near_duplicate"])),
        Predicate("trained_on", lambda row: row["trained_on"]),
        Predicate("trained_on IS NOT FALSE", lambda row: row["trained_on"] is not False),
        Predicate("mention()", lambda row: bool(row["mentions"])),
        Predicate("len(entities) = 1", lambda row: len({one["entity"] for one in row["mentions"]}) == 1),
        Predicate("mention(entity = title)", lambda row: row["title"] in [one["entity"] for one in row["mentions"]]),
    ]
    of_mentions = st.one_of(
        of_text("entity", ODD[:14]), of_text("surface", ODD[:14]), of_text("type", ["GPE", "ORG"]),
        of_text("origin", ["corpus", "spacy x'"]), either_way("ordinal", [0, 1]),
    )  # fmt: skip
    one_row = st.sampled_from(rows).map(lambda row: compared("passage_id", "=", row["passage_id"]))
    atoms = st.one_of(
        st.sampled_from(constants),
        of_text("source", ODD[:8]),
        of_text("title", ODD),
        of_text("language", ["en", "fr"]),
        of_text("section", ODD[:8]).map(
            lambda one: Predicate(one.sql.replace("section", "metadata ->> 'section'"), one.holds)
        ),
        either_way("stars", [0, 2, 5], sql="CAST(metadata ->> 'stars' AS INTEGER)"),
        either_way("published", [*days, None]),
        either_way("year", sorted({day.year for day in days}), sql="year(published)"),
        either_way("n_tokens", [3, 5, 9]),
        either_way("ordinal", [0, 1]),
        one_row,
        st.sampled_from(rows).map(lambda row: compared("doc_key", ">=", row["doc_key"])),
        st.sampled_from(ODD[:14]).map(entity),
        combined(of_mentions, leaves=3).map(mentioned),
    )
    return st.one_of(combined(atoms, leaves=5), one_row, atoms)


# What a lake is


def random_tables(chance: random.Random) -> dict[str, list[Row]]:
    def maybe(values: list[Any]) -> Any:
        return chance.choice([None, *values])

    tables: dict[str, list[Row]] = {name: [] for name in ("documents", "passages", "mentions", "near_duplicates")}
    for n in range(40):
        key = f"{chance.choice(ODD)}{n}"
        fields = {"section": chance.choice(ODD), "stars": chance.randint(0, 5)}
        document = {
            "doc_id": document_id("c", key), "doc_key": key, "corpus": "c", "source": maybe(ODD[:8]),
            "published": maybe([date(1990, 1, 1) + timedelta(days=chance.randint(0, 9000)) for _ in range(4)]),
            "title": maybe(ODD), "language": maybe(["en", "fr"]), "trained_on": maybe([True, False]),
            "metadata": json.dumps({name: fields[name] for name in fields if chance.random() < 0.7}),
            "content_hash": f"hash {n}", "run_id": "r",
        }  # fmt: skip
        n_passages = chance.randint(0, 3)
        tables["documents"].append(document | {"n_passages": n_passages})
        for ordinal in range(n_passages):
            text = chance.choice([f"Text {n}.{ordinal} {chance.choice(ODD)}", "The same everywhere.", "Once more."])
            tables["passages"].append(
                {
                    "passage_id": passage_id(document["doc_id"], ordinal, text), "doc_id": document["doc_id"],
                    "ordinal": ordinal, "char_start": 0, "char_end": len(text), "n_tokens": maybe([3, 5, 9]),
                    "text": text, "text_hash": text_hash(text),
                }
            )  # fmt: skip
    for passage in tables["passages"]:
        for _ in range(chance.choice([0, 0, 1, 2, 4])):
            tables["mentions"].append(
                {
                    "passage_id": passage["passage_id"], "doc_id": passage["doc_id"],
                    "entity": chance.choice(ODD[:14]), "surface": maybe(ODD[:14]), "type": maybe(["GPE", "ORG"]),
                    "origin": chance.choice(["corpus", "spacy x'"]),
                }
            )  # fmt: skip
    first, *others = tables["documents"]
    for one in chance.sample(others, 9):
        tables["near_duplicates"].append(
            {
                "doc_id": one["doc_id"], "of_doc_id": first["doc_id"], "similarity": 0.9,
                "content_hash": one["content_hash"], "of_content_hash": first["content_hash"],
            }
        )  # fmt: skip
    return tables


def random_encodings(passages: list[Row], seed: int) -> pa.Table:
    keys = sorted({row["text_hash"] for row in passages})
    draw = np.random.default_rng(seed)
    keys = [key for key in keys if draw.random() < 0.95]
    vectors = draw.standard_normal((len(keys), DIM)).astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    return pa.table(
        {
            "text_hash": keys,
            "norm": norms,
            "loss": np.ones(len(keys), np.float32),
            "n_tokens": np.ones(len(keys), np.int32),
            **codes_arrays(quantise(vectors / norms[:, None], "int8")),
        }
    )


def flat_rows(tables: dict[str, list[Row]]) -> list[Row]:
    documents = {row["doc_id"]: row for row in tables["documents"]}
    marked = {row["doc_id"] for row in tables["near_duplicates"]}
    blank = dict.fromkeys(MENTIONS.names)
    rows = []
    for passage in tables["passages"]:
        document = documents[passage["doc_id"]]
        fields = json.loads(document["metadata"])
        rows.append(
            document
            | passage
            | {
                "mentions": [
                    {name: value for name, value in (blank | one).items() if name not in ("passage_id", "doc_id")}
                    for one in tables["mentions"]
                    if one["passage_id"] == passage["passage_id"]
                ],
                "near_duplicate": passage["doc_id"] in marked,
                "year": document["published"] and document["published"].year,
                "section": fields.get("section"),
                "stars": fields.get("stars"),
            }
        )
    return rows


@pytest.fixture(scope="module", params=range(LAKES))
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Random]:
    chance = random.Random(request.param)
    root: Path = tmp_path_factory.mktemp("random") / "lake"
    run = new_run("init", {})
    run.status, run.finished_at = "done", models.now()
    lake = create_store(root, catalog=DEFAULT_CATALOG, upgrade=migrations.upgrade, run=run)
    model = models.Model(
        model_id="m", name="m", path="p", architecture="a", n_parameters=1, n_layers=1, context_length=8,
        weights_hash="w", tokenizer_hash="t",
    )  # fmt: skip
    encoder = models.Encoder(
        name="e", encoder_id="i", model_id="m", dim=DIM, moments="none", settings={}, projection_hash="x",
        coverage=1.0, uncovered=[], artifact="x",
    )  # fmt: skip
    for row in (model, encoder):
        with lake.catalog.write() as catalog:
            catalog.add(row)
    tables = random_tables(chance)
    schemas = {
        "documents": DOCUMENTS, "passages": PASSAGES, "mentions": MENTIONS, "near_duplicates": NEAR_DUPLICATES,
    }  # fmt: skip
    with recorded_run(lake.catalog, "test", {}) as run, committing(lake) as committer:
        changes = Changes()
        for name, rows in tables.items():
            changes.append(write_batch(lake, name, pa.Table.from_pylist(rows, schemas[name])))
        lake.create_table("encodings_e")
        changes.append(write_batch(lake, "encodings_e", random_encodings(tables["passages"], request.param)))
        committer.publish(run.run_id, changes.take())
    build_index(lake, encoder)
    rows = flat_rows(tables)
    with Session(lake, latest_snapshot(lake.catalog), threads=1) as session:
        yield Random(lake, session, rows, predicates_over(rows))
    lake.close()


@settings(max_examples=60)
@given(data=st.data())
def test_a_filter_keeps_the_passages_for_which_it_is_true(drawn: Random, data: st.DataObject) -> None:
    predicate = data.draw(drawn.predicates)
    kept = passing(drawn.session, predicate.sql)["passage_id"].to_pylist()
    assert sorted(kept) == sorted(row["passage_id"] for row in drawn.rows if predicate.holds(row))


@settings(max_examples=30)
@given(
    data=st.data(),
    method=st.sampled_from(sorted(METHODS)),
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 100),
    n_queries=st.integers(1, 3),
    under_curvature=st.booleans(),
)
def test_a_filtered_search_is_the_unlimited_search_with_the_rest_left_out(
    drawn: Random, data: st.DataObject, method: str, seed: int, k: int, n_queries: int, under_curvature: bool
) -> None:
    predicate = data.draw(drawn.predicates)
    lake, at = drawn.lake, drawn.session.at
    draw = np.random.default_rng(seed)
    options: dict[str, Any] = {
        "queries": draw.standard_normal((n_queries, DIM)).astype(np.float32),
        "unit_norm": METHODS[method].unit_norm,
    }
    if options["unit_norm"] and under_curvature:
        n = lake.table("encodings_e", at=at).count_rows()
        options["norms"] = draw.uniform(0.5, 2, n).astype(np.float32)
    few, everything = (
        search(
            lake, drawn.session, at, encoder="e", k=most, **options,
            candidates=find_candidates(lake, drawn.session, at, encoder="e", where=where),
        )
        for where, most in ((predicate.sql, k), (None, len(drawn.rows)))
    )  # fmt: skip
    meant = {row["passage_id"] for row in drawn.rows if predicate.holds(row)}
    for found, unlimited in zip(few, everything, strict=True):
        for side, whole in zip(found, unlimited, strict=True):
            left = [hit for hit in whole if hit.passage_id in meant][:k]
            assert [hit.passage_id for hit in side] == [hit.passage_id for hit in left]
            assert np.allclose([hit.score for hit in side], [hit.score for hit in left], rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), k=st.integers(1, 5))
def test_an_approximate_search_returns_what_passes_the_filter_with_its_exact_score(
    drawn: Random, data: st.DataObject, seed: int, k: int
) -> None:
    predicate = data.draw(drawn.predicates)
    lake, at = drawn.lake, drawn.session.at
    few = UsableIndex("index", "rq3", proposed=1, recall=1.0)
    query = np.random.default_rng(seed).standard_normal((1, DIM)).astype(np.float32)
    candidates = find_candidates(lake, drawn.session, at, encoder="e", where=predicate.sql)
    asked = {"encoder": "e", "queries": query, "candidates": candidates, "unit_norm": True}
    [found] = search(lake, drawn.session, at, k=k, index=few, **asked)
    [exact] = search(lake, drawn.session, at, k=len(drawn.rows), **asked)
    for side, whole in zip(found, exact, strict=True):
        scores = {hit.passage_id: hit.score for hit in whole}
        assert [hit.score for hit in side] == [scores[hit.passage_id] for hit in side]
        assert len(side) == min(k, len(whole)) or len(candidates) > 20  # of so many not all are proposed


def test_the_predicates_have_every_selectivity(drawn: Random) -> None:
    shares = set()

    @settings(max_examples=100, database=None, derandomize=True)
    @given(data=st.data())
    def look(data: st.DataObject) -> None:
        predicate = data.draw(drawn.predicates)
        shares.add(sum(predicate.holds(row) is True for row in drawn.rows))

    look()
    assert {0, 1, len(drawn.rows)} <= shares
    assert len(shares) > 12
