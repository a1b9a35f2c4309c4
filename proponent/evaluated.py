"""What is evaluated: facts from files in any format that a corpus may have, from sets of the package, or from rows."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from proponent.query.evaluate.facts import BUILTIN, Fact, builtin_set, read_facts, require_distinct

from .rows import rows_of


def facts_of(given: str | Path | Iterable[str | Path] | Iterable[Mapping[str, Any]]) -> list[Fact]:
    """Return the facts of a file, of several one after the other, or of rows. Raises InputError for what are none."""
    if isinstance(given, str | Path):
        given = [given]
    facts: list[Fact] = []
    rows: list[Mapping[str, Any]] = []
    for one in given:
        if isinstance(one, str | Path):
            path = builtin_set(one) if isinstance(one, str) and one.startswith(BUILTIN) else Path(one)
            facts += read_facts(rows_of(path), origin=str(one), first=len(facts) + 1)
        else:
            rows.append(one)
    if rows or not facts:
        facts += read_facts(rows, first=len(facts) + 1)
    require_distinct(facts, "these files together")
    return facts
