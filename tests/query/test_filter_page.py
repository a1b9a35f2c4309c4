"""The tables of docs/filter.md are true: what they say can be asked can be, and every mistake says what they say."""

import re
from pathlib import Path

import pytest

from proponent.query.filter import COLUMNS, OF_MENTIONS
from proponent.query.search import passing
from proponent.query.session import Session
from proponent.schema.errors import FilterError

PAGE = Path(__file__).parents[2] / "docs" / "filter.md"
ROWS = [line.strip("| \n").split(" | ", 1) for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
MISTAKES = {left.strip("`"): right for left, right in ROWS if left.startswith("`")}
ASKED = [code for left, right in ROWS if not left.startswith("`") for code in re.findall(r"`([^`]+)`", right)]
COLUMN_NAMES = {code for code in ASKED if re.fullmatch(r"\w+", code)}


@pytest.mark.parametrize("fragment", [code for code in ASKED if code not in COLUMN_NAMES and "proponent" not in code])
def test_what_can_be_asked_can_be_asked(session: Session, fragment: str) -> None:
    passing(session, fragment)


@pytest.mark.parametrize("fragment", MISTAKES)
def test_a_mistake_says_what_the_page_says(session: Session, fragment: str) -> None:
    with pytest.raises(FilterError) as caught:
        passing(session, fragment)
    said = ".*".join(map(re.escape, MISTAKES[fragment].split("...")))
    assert re.fullmatch(said, str(caught.value))


def test_the_page_names_every_column() -> None:
    assert COLUMNS <= COLUMN_NAMES
    text = PAGE.read_text("utf-8")
    assert all(f"`{name}`" in text for name in OF_MENTIONS)
    assert len(MISTAKES) > 20
