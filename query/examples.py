"""Queries to start from, as `sql/examples.sql` has them: each a comment that says what it asks, and a statement."""

from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Example(NamedTuple):
    """A statement, and what it asks."""

    asks: str
    statement: str


def examples_text() -> str:
    """Return all of them as they are written."""
    return files(__package__).joinpath("sql", "examples.sql").read_text("utf-8").strip()


@cache
def examples() -> tuple[Example, ...]:
    """Return them one by one, without the semicolons."""
    found = []
    for block in examples_text().split("\n\n"):
        comment, _, statement = block.partition("\n")
        found.append(Example(comment.removeprefix("--").strip(), statement.strip().removesuffix(";")))
    return tuple(found)
