"""Where a statement is wrong, and what may complete it."""

from pathlib import Path

import pytest

import proponent
from proponent.query.examples import examples, examples_text
from proponent.query.mistakes import place_of
from proponent.query.words import WORDS, completions, word_before, words_of
from proponent.schema.errors import SqlError


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes") / "lake"
    proponent.init(folder).close()
    return folder


MANY = ", ".join(f"{n} AS column_{n}" for n in range(60))


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("SELEC 1", "SELEC"),
        ("SELECT\n  rank,\n  beta FROM hits", "beta"),
        ("SELECT 'beta' /* beta */, \"beta\" FROM hits", "beta"),
        ("SELECT '日本日本日本', x y z FROM hits", "z"),
        ("SELECT 日本語 FROM hits", "日本語"),
        ("SELECT nofn(1)", "nofn"),
        ("SELECT sum(1, 2, 'x') FROM hits", "sum"),
        ("SELECT * FROM nothere", "nothere"),
        (f"SELECT {MANY}, x y z FROM hits", "z"),
        ("SELECT cast('x' || passage_id AS int) FROM (SELECT 'y' AS passage_id)", "cast('x' || passage_id AS int)"),
        ("SELECT rank FROM hits GROUP BY side", "rank"),
        ("SELECT 1; SELECT 2", None),
        ("INSERT INTO hits VALUES (1)", None),
        ("", None),
    ],
)
def test_the_place_of_a_mistake_is_found(lake: Path, statement: str, wrong: str | None) -> None:
    with proponent.open(lake) as opened, pytest.raises(SqlError) as failed:
        opened.sql(statement)
    place = place_of(failed.value, statement)
    assert (place and statement[place.start : place.end]) == wrong
    if wrong == "beta" and "/*" in statement:
        assert place is not None
        assert place.start > statement.index("*/"), "neither the text nor the comment"


def test_columns_come_after_an_alias(lake: Path) -> None:
    with proponent.open(lake) as opened:
        words = words_of(opened.sql(WORDS))
    before, after = "SELECT ", " FROM hits AS h, documents d JOIN passages pages USING (passage_id)"
    for word, has, has_not in (
        ("h.ra", "h.rank", "rank"),
        ("D.ti", "D.title", "h.rank"),
        ("pages.te", "pages.text", "t"),
    ):
        found = [text for text, _ in completions(words, before, word, after)]
        assert has in found
        assert has_not not in found
    assert list(completions(words, before, "nobody.", after)) == []
    assert word_before("SELECT h.ra") == "h.ra"
    assert words.functions["influence"].startswith("Score of a passage")


def test_examples_are_what_the_file_has() -> None:
    assert len(examples()) == examples_text().count("\n-- ") + 1
    assert all(one.asks and one.statement and not one.statement.endswith(";") for one in examples())
