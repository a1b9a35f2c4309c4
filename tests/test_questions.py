"""The worked questions of docs/questions.md: every block of SQL gives the table that the page shows below it.

python tests/test_questions.py proponent-demo/lake     # writes the tables anew
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proponent

PAGE = Path(__file__).parents[1] / "docs" / "questions.md"
QUESTION = re.compile(r"^## (.*?)$\n(.*?)^```sql\n(.*?)^```\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
QUESTIONS = [title for title, *_ in QUESTION.findall(PAGE.read_text("utf-8"))]
NEAR = 0.05
"""Scores differ a little between processors; 5 % is more than they do, and less than what any sentence relies on."""


def cells(lines: list[str]) -> list[list[str]]:
    """Return the cells of a Markdown table's header and rows."""
    rows = [re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |")) for line in lines if line]
    return [row for row in rows if not all(set(cell) <= set("-: ") for cell in row)]


def told(value: Any) -> str:
    """Return a value as the page shows it."""
    if value is None:
        return ""
    return f"{value + 0.0:g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


def table(lake: "proponent.Lake", sql: str) -> list[list[str]]:
    """Return the header and the rows that a query gives."""
    found = lake.sql(sql).to_arrow()
    return [found.column_names, *([told(value) for value in row.values()] for row in found.to_pylist())]


def same(shown: str, found: str) -> bool:
    """Return whether two cells are equal, or numbers that are near each other."""
    try:
        return float(found) == pytest.approx(float(shown), rel=NEAR, abs=0.02)
    except ValueError:
        return shown == found


@pytest.fixture(scope="module")
def lake(demo_folder: Path) -> Iterator["proponent.Lake"]:
    with proponent.open(demo_folder / "lake") as lake:
        yield lake


@pytest.fixture(scope="module")
def page(lake: "proponent.Lake") -> dict[str, tuple[str, list[str]]]:
    """The SQL and the lines of the table of every question."""
    if os.environ.get("PROPONENT_SNAPSHOTS") == "write":
        PAGE.write_text(written(lake, PAGE.read_text("utf-8")), "utf-8")
    return {title: (sql, shown.split("\n")) for title, _, sql, shown in QUESTION.findall(PAGE.read_text("utf-8"))}


def test_there_are_twenty_questions() -> None:
    assert len(QUESTIONS) == 20


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_gives_what_the_page_shows(
    lake: "proponent.Lake", page: dict[str, tuple[str, list[str]]], question: str
) -> None:
    sql, lines = page[question]
    shown, found = cells(lines), table(lake, sql)
    assert shown[0] == found[0]
    assert len(shown) == len(found) > 1
    missing = [row for row in shown[1:] if not any(all(map(same, row, other)) for other in found[1:])]
    assert not missing  # in any order: scores that are nearly equal may change places


def written(lake: "proponent.Lake", text: str) -> str:
    """Return the page with the tables that the lake gives."""

    def anew(match: re.Match[str]) -> str:
        title, about, sql, _ = match.groups()
        header, *rows = table(lake, sql)
        lines = [header, ["---"] * len(header), *rows]
        shown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {title}\n{about}```sql\n{sql}```\n\n{shown}\n\n"

    return QUESTION.sub(anew, text).rstrip() + "\n"
