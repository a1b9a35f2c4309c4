"""A line means what the standard library says it means, whichever library reads it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proponent.ingest.readers import jsonl

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def outcome(read: Callable[[bytes], Any], line: bytes) -> str:
    """What a line becomes, with the types of numbers and the order of members."""
    try:
        return repr(read(line))
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"


def same(line: bytes) -> None:
    assert outcome(jsonl._value, line) == outcome(lambda data: json.loads(data.decode()), line)


@given(ANY, st.booleans(), st.sampled_from([None, 1]))
def test_every_value_is_read_as_the_standard_library_reads_it(value: Any, is_ascii: bool, indent: int | None) -> None:
    same(json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass"))


@given(ANY, st.integers(0, 200), st.binary(max_size=2))
def test_damaged_lines_are_too(value: Any, place: int, damage: bytes) -> None:
    line = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    same(line[:place] + damage + line[place + 1 :])


@given(st.from_regex(rb"-?[0-9]{0,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{0,4})?", fullmatch=True))
@example(b"-0")
@example(b"9" * 5000)
@example(b"2.2250738585072011e-308")
def test_every_number_is_too(number: bytes) -> None:
    same(number)


@pytest.mark.parametrize(
    "line",
    [
        *(b"NaN", b"[Infinity, -Infinity]", b"1E400", b'"\\ud800"', b'"\\ude00\\ud83d"', b'{"a": 1, "b": 2, "a": 3}'),
        *(b"\xef\xbb\xbf{}", b"{}\x0c", b"\xc2\xa0{}", b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b""),
        *(b'"\x7f"', b'"\t"', b"[1,]", b"{1: 2}", b"[" * 60 + b"]" * 60, b"[" * 5000 + b"]" * 5000, b"nul", b"tru"),
    ],
)
def test_hard_lines_are_too(line: bytes) -> None:
    same(line)
