"""A row becomes a document with nothing lost, or one reason why it is none."""

import json
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proponent.ingest.documents import documents_of
from proponent.schema.ids import content_id
from proponent.schema.settings import FieldMapping, IngestSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
Row = dict[str, Any]


def mapped(
    *rows: Row, mapping: FieldMapping | None = None, corpus: str = "c", rule: str = "r", split: str | None = None
) -> list[Row | str]:
    """What rows become together: a document's columns, text and entities, or the reason why it is none."""
    settings = IngestSettings(corpus=corpus, fields=mapping or FieldMapping(), split_entities=split)
    documents, places, reasons = documents_of(rows, settings, rule)
    found: dict[int, Row | str] = dict(reasons)
    for number, place in enumerate(places):
        found[place] = {name: column[number] for name, column in documents.columns.items()}
        found[place] |= {"text": documents.texts[number], "entities": documents.entities[number]}
    return [found.pop(place) for place in range(len(rows))]


def document(row: Row, **options: Any) -> Row:
    [one] = mapped(row, **options)
    assert isinstance(one, dict), one
    return one


def made(mapping: FieldMapping | None = None, **fields: Any) -> Row:
    return document({"id": "1", "text": "Paris."} | fields, mapping=mapping)


def why(row: Row, mapping: FieldMapping | None = None) -> str:
    [one] = mapped(row, mapping=mapping)
    assert isinstance(one, str), one
    return one


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": None}, "no usable id in field 'id'"),
        ({"id": ""}, "no usable id"),
        ({"id": True}, "no usable id"),
        ({"id": 1.0}, "no usable id"),
        ({"id": ["1"]}, "no usable id"),
        ({"id": "\ud800"}, "lone surrogate at character 0"),
        ({"text": None}, "no text in field 'text'"),
        ({"text": 5}, "no text"),
        ({"text": ""}, "is empty"),
        ({"text": " \n\u3000"}, "is empty"),
        ({"text": "ab\udfff"}, "lone surrogate at character 2"),
        ({"title": "\ud800"}, "title has a lone surrogate"),
        ({"title": {"en": "x"}}, "is an object"),
        ({"date": "\ud800"}, "date has a lone surrogate"),
        ({"entities": 5}, "entities must be"),
        ({"entities": ["x", 5]}, "entities must be"),
        ({"entities": {"name": "x"}}, "entities must be"),
        ({"entities": ["\ud800"]}, "entities has a lone surrogate"),
        ({"other": "\ud800"}, "metadata has a lone surrogate"),
        ({"\ud800": 1}, "metadata has a lone surrogate"),
    ],
    ids=repr,
)
def test_a_row_that_cannot_be_a_document_has_a_reason(fields: dict[str, Any], reason: str) -> None:
    assert reason in why({"id": "1", "text": "Paris."} | fields)


@pytest.mark.parametrize("field", ["id", "text"])
def test_a_row_without_id_or_text_is_told_which_option_names_the_field(field: str) -> None:
    row = {"id": "1", "text": "x"}
    del row[field]
    assert f"--{field}" in why(row)


@given(st.dictionaries(st.sampled_from([*FieldMapping().selectors, "a", "b"]), JSON))
def test_whatever_a_row_holds_it_is_a_storable_document_or_a_reject(fields: dict[str, Any]) -> None:
    [one] = mapped({"id": "1", "text": "Paris."} | fields)
    if isinstance(one, str):
        return
    days = {"published", "trained_on"}
    texts = [value for name, value in one.items() if name not in {"entities", *days}]
    pa.array([*texts, *one["entities"]], pa.string())
    assert json.dumps(json.loads(one["metadata"]), allow_nan=False)


@given(st.lists(st.dictionaries(st.sampled_from([*FieldMapping().selectors, "a", "b.c"]), JSON), max_size=5))
def test_a_row_becomes_the_same_in_any_company(rows: list[Row]) -> None:
    rows = [{"id": "1", "text": "Paris."} | row for row in rows]
    assert mapped(*rows) == [one for row in rows for one in mapped(row)]


@given(st.dictionaries(st.sampled_from([*FieldMapping().selectors, "a", "b"]), JSON))
@example({"text": "".join(map(chr, range(127)))})
@example({"text": "".join(map(chr, range(128)))})
@example({"text": "".join(map(chr, range(0x800)))})
def test_the_content_hash_is_that_of_what_a_document_says_as_json(fields: Row) -> None:
    [one] = mapped({"id": "1", "text": "Paris."} | fields)
    if isinstance(one, str):
        return
    named = {name: one[name] for name in ("source", "title", "url", "author", "language", "license")}
    said = [one["doc_key"], one["text"], named, one["published_text"], one["entities"], one["metadata"]]
    said += [] if one["trained_on"] is None else [one["trained_on"]]
    assert one["content_hash"] == content_id("content", json.dumps(said, sort_keys=True), "r")


def test_integer_and_text_ids_of_the_same_digits_are_one_document() -> None:
    assert made(id=7)["doc_id"] == made(id="7")["doc_id"]


@pytest.mark.parametrize(
    ("value", "entities"),
    [
        (None, ()),
        ("", ()),
        ("Peru", ("Peru",)),
        (" Peru ", ("Peru",)),
        ([], ()),
        (["Peru", "Lima"], ("Peru", "Lima")),
        (["Peru", " ", "Peru "], ("Peru",)),
        (["Peru, Lima"], ("Peru, Lima",)),
    ],
)
def test_entities_are_a_text_or_a_list_of_texts_without_repeats(value: Any, entities: tuple[str, ...]) -> None:
    assert made(entities=value)["entities"] == entities


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), ("", None), ("x", "x"), (5, "5"), (["a", "b"], "a, b"), (0, "0")]
)
def test_columns_of_text_take_numbers_and_lists(value: Any, text: str | None) -> None:
    assert made(author=value)["author"] == text


def test_metadata_keeps_every_field_that_has_no_column() -> None:
    rest = {"a": 1, "b": [None, 1.5, "é"], "c": {"d": True}}
    assert json.loads(made(source="s", **rest)["metadata"]) == rest


def test_metadata_nested_beyond_what_can_be_written_is_a_reason() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    try:
        assert "nested too deeply" in why({"id": 1, "text": "x", "deep": deep})
    finally:
        while deep:  # freed from the outside, or Python does it by recursion
            deep = deep.pop()


def test_a_null_is_a_field_that_is_not_there() -> None:
    assert made(e=None)["content_hash"] == made()["content_hash"]


def test_a_field_that_is_switched_off_stays_in_the_metadata() -> None:
    found = made(FieldMapping(source=None), source="s")
    assert found["source"] is None
    assert json.loads(found["metadata"]) == {"source": "s"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_become_texts_in_the_metadata(number: float) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    kept = json.loads(made(deep=[{"x": number}], exact=0.1)["metadata"], parse_constant=refuse)
    assert float(kept["deep"][0]["x"]) == pytest.approx(number, nan_ok=True)
    assert kept["exact"] == 0.1


def test_renamed_fields_are_read() -> None:
    row = {"key": "1", "body": "x", "when": "2015", "kind": "wire"}
    mapping = FieldMapping(id="key", text="body", date="when", source="kind")
    found = document(row, mapping=mapping)
    assert (found["doc_key"], found["text"], found["published_precision"]) == ("1", "x", "year")
    assert found["source"] == "wire"
    assert found["metadata"] == "{}"


def test_nested_fields_templates_and_constants_become_columns() -> None:
    row = {"meta": {"url": "u", "tags": ["a", "b"], "when": {"day": "2015-06-30"}}, "head": "H", "body": "B", "year": 7}
    mapping = FieldMapping(
        id="meta.url", text="{head}\n{body}", title="{head} ({year})", source="=wire", date="meta.when.day",
        entities="meta.tags",
    )  # fmt: skip
    found = document(row, mapping=mapping)
    assert (found["doc_key"], found["text"], found["entities"]) == ("u", "H\nB", ("a", "b"))
    assert (found["title"], found["source"]) == ("H (7)", "wire")
    assert found["published"] == date(2015, 6, 30)
    assert json.loads(found["metadata"]) == {"year": 7}, "what is in a column as a whole is not kept twice"
    assert row["meta"]["url"] == "u", "the row itself is left alone"  # type: ignore[index]


def test_what_only_a_title_of_parts_takes_stays_in_the_metadata() -> None:
    mapping = FieldMapping(title="{a}: {b.c}", author="d.e", url="l.0")
    row = {"id": 1, "text": "x", "a": "A", "b": {"c": 5}, "d": {"e": "E", "f": None}, "l": ["u", "v"]}
    found = document(row, mapping=mapping)
    assert (found["title"], found["author"], found["url"]) == ("A: 5", "E", "u")
    assert json.loads(found["metadata"]) == {"a": "A", "b": {"c": 5}, "d": {"f": None}, "l": ["u", "v"]}


def test_a_template_that_lacks_a_field_has_no_value() -> None:
    assert made(FieldMapping(title="{a} {b}"), a="A")["title"] is None
    assert "no text in field '{a} {b}'" in why({"id": 1, "a": "A"}, FieldMapping(text="{a} {b}"))


def test_entities_of_one_text_are_split_where_asked() -> None:
    row = {"id": 1, "text": "x", "entities": "Peru; Lima;;Peru"}
    found = document(row, split=";")
    assert found["entities"] == ("Peru", "Lima")
    found = document(row | {"entities": ["a;b"]}, split=";")
    assert found["entities"] == ("a;b",)


@pytest.mark.parametrize("change", [{"text": "y"}, {"title": "t"}, {"date": "2015"}, {"entities": "e"}, {"other": 1}])
def test_any_changed_field_changes_the_content_hash_but_not_the_id(change: dict[str, Any]) -> None:
    assert made()["doc_id"] == made(**change)["doc_id"]
    assert made()["content_hash"] != made(**change)["content_hash"]


def test_the_order_of_a_rows_fields_means_nothing() -> None:
    assert made(a=1, b=2)["content_hash"] == made(b=2, a=1)["content_hash"]


def test_the_rule_of_cutting_is_part_of_the_content() -> None:
    row = {"id": "1", "text": "x"}
    hashes = {document(row, rule=rule)["content_hash"] for rule in ("one", "two")}
    assert len(hashes) == 2


def test_the_same_id_in_two_corpora_is_two_documents() -> None:
    row = {"id": "1", "text": "x"}
    assert len({document(row, corpus=name)["doc_id"] for name in ("a", "b")}) == 2
