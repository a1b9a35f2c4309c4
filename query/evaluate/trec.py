"""Runs of other tools as lists of passages for facts.

The query of a run is the `id` of the file of facts, its passage a passage_id or a document's own id.
"""

from collections.abc import Collection
from pathlib import Path

from proponent.query.imported_files import read_run as read_listed
from proponent.schema.errors import InputError


def read_run(path: Path, facts: Collection[str]) -> dict[str, list[str]]:
    """Return what a run lists for each fact, best first, each once. Raises InputError, which names what is wrong."""
    known, listed = set(facts), {}
    for one in read_listed(path, "proponent"):
        if one.query not in known:
            raise InputError(f"{one.origin}: no fact has the id {one.query!r}")
        listed[one.query] = list(dict.fromkeys(hit.passage for hit in one.hits if hit.passage is not None))
    return listed
