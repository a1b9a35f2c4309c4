"""A gazetteer finds names as whole words, however they are written, at their places in the text as it is."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import proponent
from proponent.cli import cli
from proponent.ingest.extractor import Entity
from proponent.ingest.gazetteer import Gazetteer, read_gazetteer
from proponent.schema.errors import CorpusError, SettingsError

Write = Callable[..., Path]


def found(text: str, *names: str) -> list[str]:
    """The spellings that are found, as they stand in the text."""
    mentions = Gazetteer({name: (Entity(name, None),) for name in names}).find(text)
    return [text[mention.char_start : mention.char_end] for mention in mentions]


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("Peru and peru, PERU.", ["Peru"], ["Peru", "peru", "PERU"]),
        ("Niger, Nigeria, 2Niger, Niger_2, (Niger)", ["Niger"], ["Niger", "Niger"]),
        ("New York City is in New York", ["New York", "New York City", "York"], ["New York City", "New York"]),
        ("C++ and .NET, not C+", ["C++", ".NET"], ["C++", ".NET"]),
        ("in der STRASSE, Straße", ["Straße"], ["STRASSE", "Straße"]),
        ("Cote, Co\u0302te, C\u00f4te", ["C\u00f4te"], ["Co\u0302te", "C\u00f4te"]),
        ("\u0130stanbul und \u0130zmir", ["\u0130zmir"], ["\u0130zmir"]),
        ("日本語は日本の言語", ["日本"], ["日本", "日本"]),
        ("กรุงเทพมหานคร", ["กรุงเทพ"], ["กรุงเทพ"]),
        ("Москва и МОСКВА, Москвасити", ["москва"], ["Москва", "МОСКВА"]),  # noqa: RUF001
        ("naïve cafe\u0301s, cafe\u0301", ["café"], ["cafe\u0301"]),
        ("Bosnia and Herzegovina", ["Bosnia", "Bosnia and Herzegovina"], ["Bosnia and Herzegovina"]),
        ("the Bosnians", ["Bosnia", "the Bosnian"], []),
        ("", ["x"], []),
    ],
)
def test_names_are_found_as_whole_words(text: str, names: list[str], expected: list[str]) -> None:
    assert found(text, *names) == expected


def test_a_longer_name_that_is_no_whole_word_does_not_hide_a_shorter_one() -> None:
    assert found("New Yorkers of New", "New", "New York") == ["New", "New"]


def test_a_spelling_may_stand_for_several_entities() -> None:
    georgia = (Entity("Georgia (country)", "country"), Entity("Georgia (state)", "state"))
    mentions = Gazetteer({"Georgia": georgia}).find("In georgia.")
    assert [(mention.entity, mention.char_start, mention.char_end) for mention in mentions] == [
        (entity, 3, 10) for entity in georgia
    ]


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5))
def test_offsets_give_back_a_spelling_of_the_name_whatever_the_text(text: str, names: list[str]) -> None:
    try:
        finder = Gazetteer({name: (Entity(name, None),) for name in names})
    except CorpusError:
        return  # nothing but white space
    reached = 0
    for entity, start, end in finder.find(text):
        assert reached <= start < end <= len(text)
        reached = start
        assert _plain(text[start:end]) == _plain(entity.name) or _plain(entity.name) in _plain(text[start:end])


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.strip()).casefold())


@pytest.fixture
def filled(lake: proponent.Lake, write_jsonl: Write) -> proponent.Lake:
    texts = ["Paris is in France.", "Nothing here.", "FRANCE and Peru.", "Lima, Peru; Peru"]
    lake.ingest(
        write_jsonl([{"id": n, "text": text, "entities": ["Earth"]} for n, text in enumerate(texts)]), corpus="c"
    )
    return lake


GAZETTEER: list[dict[str, Any]] = [
    {"entity": "France", "type": "country"},
    {"entity": "Peru", "type": "country", "aliases": ["Perú"]},
    {"entity": "Lima", "aliases": "Lima"},
]


def test_mentions_are_added_to_those_of_the_corpus_and_found_by_filters(
    filled: proponent.Lake, write_jsonl: Write
) -> None:
    counts = filled.extract_entities(write_jsonl(GAZETTEER, "gazetteer.jsonl"), name="places")
    assert counts == {"passages": 4, "known": 0, "mentions": 6, "entities": 3, "replaced": 0}
    rows = filled.sql("SELECT entity, surface, type, origin FROM mentions ORDER BY ALL").to_dicts()
    assert [row["surface"] for row in rows if row["entity"] == "France"] == ["FRANCE", "France"]
    assert {row["origin"] for row in rows} == {"corpus", "gazetteer places"}
    assert {row["type"] for row in rows if row["entity"] == "Peru"} == {"country"}
    wrong = filled.sql(
        "SELECT * FROM mentions JOIN passages USING (passage_id) "
        "WHERE mentions.char_start IS NOT NULL AND text[mentions.char_start + 1:mentions.char_end] <> surface"
    )
    assert len(wrong) == 0
    assert filled.delete("entity('Peru')", dry_run=True)["documents"] == 2


def test_extracting_again_replaces_what_the_same_gazetteer_found(filled: proponent.Lake, write_jsonl: Write) -> None:
    filled.extract_entities(write_jsonl(GAZETTEER, "gazetteer.jsonl"), name="places")
    counts = filled.extract_entities(write_jsonl(GAZETTEER[:1], "less.jsonl"), name="places")
    assert (counts["mentions"], counts["replaced"]) == (2, 6)
    other = filled.extract_entities(write_jsonl(GAZETTEER[1:], "other.jsonl"), name="others")
    assert (other["mentions"], other["replaced"]) == (4, 0)
    [row] = filled.sql("SELECT count(*) AS n FROM mentions WHERE origin LIKE 'gazetteer%'")
    assert row.n == 6


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"name": "x"}, ":1: needs a text `entity`"),
        ({"entity": 3}, ":1: needs a text `entity`"),
        ({"entity": "x", "aliases": [1]}, ":1: needs a text `entity`"),
        ({"entity": "x", "type": []}, ":1: needs a text `entity`"),
        ("{", ":1: not JSON"),
    ],
)
def test_a_row_that_is_no_entity_is_named(write_jsonl: Write, row: Any, named: str) -> None:
    with pytest.raises(CorpusError, match=named):
        read_gazetteer(write_jsonl([row]))


def test_an_empty_gazetteer_changes_nothing(filled: proponent.Lake, write_jsonl: Write) -> None:
    before = filled.snapshot
    with pytest.raises(CorpusError, match=r"empty\.jsonl: the gazetteer has no names"):
        filled.extract_entities(write_jsonl([], "empty.jsonl"), name="places")
    with pytest.raises(SettingsError, match="--name"):
        filled.extract_entities(write_jsonl(GAZETTEER), name="'; DROP")
    assert filled.snapshot == before


def test_the_version_is_that_of_the_names_and_not_of_the_file(write_jsonl: Write) -> None:
    first = read_gazetteer(write_jsonl(GAZETTEER, "first.jsonl")).version
    assert read_gazetteer(write_jsonl(GAZETTEER[::-1], "second.jsonl")).version == first
    assert read_gazetteer(write_jsonl(GAZETTEER[:2], "less.jsonl")).version != first
    retyped = [GAZETTEER[0] | {"type": "state"}, *GAZETTEER[1:]]
    assert read_gazetteer(write_jsonl(retyped, "retyped.jsonl")).version != first


def test_the_command_tells_what_it_found(filled: proponent.Lake, write_jsonl: Write, tmp_path: Path) -> None:
    path = write_jsonl(GAZETTEER, "gazetteer.jsonl")
    done = CliRunner().invoke(cli, ["entities", str(tmp_path / "lake"), str(path), "--format", "json"])
    assert "6 mentions of 3 entities in 4 passages" in done.stderr
    assert json.loads(done.stdout)[0]["mentions"] == 6
