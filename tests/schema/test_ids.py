"""Ids depend on content alone, and different contents have different ids."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema import ids
from proponent.schema.ids import (
    content_id,
    content_ids,
    document_id,
    document_ids,
    fresh_id,
    passage_and_text_ids,
    passage_id,
    query_id,
    stream_id,
    text_hash,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too


def test_ids_are_what_they_were_when_the_format_was_fixed() -> None:
    assert document_id("factbook", "FR-1") == content_id("document", "factbook", "FR-1")
    assert text_hash("Paris is the capital of France.") == "vydjkskcmdkgbx2lxzzt5bi5d4"


@given(st.lists(ANY_TEXT, max_size=4))
def test_every_id_is_128_bits_in_lower_case_base32(parts: list[str]) -> None:
    assert re.fullmatch(r"[a-z2-7]{26}", content_id("some kind", *parts))


@given(st.lists(ANY_TEXT, max_size=4), st.lists(ANY_TEXT, max_size=4))
def test_equal_ids_mean_equal_parts(one: list[str], other: list[str]) -> None:
    assert (content_id("kind", *one) == content_id("kind", *other)) == (one == other)


@given(st.lists(ANY_TEXT, max_size=20))
def test_ids_of_many_are_those_of_each(texts: list[str]) -> None:
    assert document_ids("c", texts) == [document_id("c", text) for text in texts]
    assert content_ids("kind", texts, before=["b"], after=["a", ""]) == [
        content_id("kind", "b", text, "a", "") for text in texts
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 300), ANY_TEXT), max_size=20))
def test_ids_of_many_passages_are_those_of_each(passages: list[tuple[int, int, str]]) -> None:
    doc_ids = ["d", "e", "f"]
    columns = [[passage[part] for passage in passages] for part in range(3)]
    found, hashes = passage_and_text_ids(doc_ids, *columns)
    found.validate(full=True)
    assert found.to_pylist() == [passage_id(doc_ids[of], ordinal, text) for of, ordinal, text in passages]
    assert hashes.to_pylist() == [text_hash(text) for _, _, text in passages]


@given(st.binary(min_size=16, max_size=16))
def test_ids_are_the_base32_of_the_standard_library(digest: bytes) -> None:
    expected = base64.b32encode(digest).decode().rstrip("=").lower()
    assert ids._text(digest) == expected
    assert ids._texts([digest] * 3) == [expected] * 3
    assert ids._column([digest] * 3).to_pylist() == [expected] * 3


def test_moving_a_character_between_parts_changes_the_id() -> None:
    assert query_id("ab", "c") != query_id("a", "bc")
    assert passage_id("d", 1, "2") != passage_id("d", 12, "")


def test_things_of_different_kinds_never_share_an_id() -> None:
    assert content_id("document", "x") != content_id("passage", "x")


@given(st.binary(max_size=100), st.integers(1, 7))
def test_a_stream_has_one_id_however_it_is_cut(data: bytes, size: int) -> None:
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assert stream_id("file", chunks) == stream_id("file", [data])


def test_fresh_ids_differ() -> None:
    assert len({fresh_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("kind", ["é", "日本"])
def test_a_kind_is_plain_ascii(kind: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        content_id(kind, "x")
