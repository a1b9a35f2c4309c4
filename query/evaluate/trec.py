"""Runs of other tools in the form of TREC: `fact Q0 passage rank score tag`, a line for each passage that is listed.

The fact is the `id` of the file of facts, the passage a passage_id or a document's own id. As trec_eval does, the score
decides the order and not the rank; equal scores are in the order of their ranks.
"""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Final

from proponent.schema.errors import InputError

_FIELDS: Final = 6


def read_run(path: Path, facts: Collection[str]) -> dict[str, list[str]]:
    """Return what a run lists for each fact, best first, each once. Raises InputError, which names the line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the run {path} cannot be read: {error}") from error
    listed: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    known = set(facts)
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            fact, _, passage, rank, score = fields[:5]
            listed[fact].append((-float(score), int(rank), passage))
        except ValueError as error:
            raise InputError(f"{path}:{number}: needs `fact Q0 passage rank score tag`, not {line[:60]!r}") from error
        if len(fields) > _FIELDS or -float(score) != -float(score):  # an id with a space, or no number
            raise InputError(f"{path}:{number}: needs six fields and a score that is a number, not {line[:60]!r}")
        if fact not in known:
            raise InputError(f"{path}:{number}: no fact has the id {fact!r}")
    if not listed:
        raise InputError(f"the run {path} has no lines")
    return {fact: list(dict.fromkeys(passage for _, _, passage in sorted(rows))) for fact, rows in listed.items()}
