"""Every entity of a document is findable at each of its passages, with offsets where the passage spells it."""

from hypothesis import given
from hypothesis import strategies as st

from proponent.ingest.mentions import corpus_mentions
from proponent.schema.tables import MENTIONS


def spans(text: str, *entities: str) -> list[tuple[str, int | None, int | None]]:
    rows = corpus_mentions("p", "d", text, entities)
    assert all(row.keys() == set(MENTIONS.names) for row in rows)
    return [(row["entity"], row["char_start"], row["char_end"]) for row in rows]


def test_every_place_is_a_mention() -> None:
    assert spans("Peru and Peru.", "Peru") == [("Peru", 0, 4), ("Peru", 9, 13)]


def test_an_entity_that_the_passage_does_not_spell_has_one_mention_without_a_place() -> None:
    assert spans("It lies in the Andes.", "Peru") == [("Peru", None, None)]


def test_a_part_of_a_word_is_no_mention() -> None:
    assert spans("Niger, Nigeria, 2Niger", "Niger") == [("Niger", 0, 5)]


def test_names_are_no_patterns() -> None:
    assert spans("C++ (1998) and a.b", "C++", "(1998)", "a.b") == [("C++", 0, 3), ("(1998)", 4, 10), ("a.b", 15, 18)]
    assert spans("axb", "a.b") == [("a.b", None, None)]


@given(st.text(), st.lists(st.text(min_size=1), unique=True, max_size=4))
def test_offsets_give_back_the_entity_and_none_is_lost(text: str, entities: list[str]) -> None:
    rows = corpus_mentions("p", "d", text, tuple(entities))
    assert {row["entity"] for row in rows} == set(entities)
    for row in rows:
        if row["char_start"] is not None:
            assert text[row["char_start"] : row["char_end"]] == row["entity"] == row["surface"]
        else:
            assert row["surface"] is None
