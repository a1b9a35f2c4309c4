"""What other tools found, read from their files: the viewer's records (arXiv:2410.17413) and TREC runs.

Notable: the texts of a viewer's file are read line by line and kept as hashes, so that it may be larger than memory.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from proponent.schema.errors import InputError
from proponent.schema.ids import text_hash
from proponent.schema.settings import SIDES

_PLACED: Final = ("example_id", "query_set", "inputs_plaintext", "targets_plaintext", "proponent_correct")
_FIELDS: Final = 6


class ListedHit(NamedTuple):
    """A passage as a file lists it."""

    side: str
    rank: int
    score: float
    passage: str | None
    """The file's id of it."""
    text_hash: str | None
    """Hash of its text, where the file has that."""


class Listed(NamedTuple):
    """What a file lists for one query."""

    origin: str
    """File and line, or file and query."""
    query: str
    """The file's id of the query."""
    hits: list[ListedHit]
    prompt: str | None = None
    target: str | None = None
    query_set: str | None = None
    metadata: Mapping[str, Any] | None = None


def read_viewer(path: Path) -> Iterator[Listed]:
    """Yield the records of a viewer's file. Raises InputError, which names the line."""
    for origin, record in viewer_records(path):
        yield listed_of(record, origin)


def viewer_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file of JSON Lines, each with its file and line. Raises InputError, which names them."""
    for number, line in _lines(path):
        origin = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{origin}: is no JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{origin}: a record is a JSON object")
        yield origin, record


def listed_of(record: Mapping[str, Any], origin: str) -> Listed:
    """Return what a viewer's record lists. Raises InputError, which names its origin."""
    prompt, target = (_text(record, name, origin) for name in ("inputs_plaintext", "targets_plaintext"))
    lists = {f"{side}{part}" for side in SIDES for part in ("s", "_ids", "_scores")}
    others = {name: value for name, value in record.items() if name not in lists and name not in _PLACED}
    identity = record.get("example_id")
    return Listed(
        origin=origin,
        query="" if identity is None else str(identity),
        hits=[hit for side in SIDES for hit in _side(record, side, origin)],
        prompt=prompt,
        target=target,
        query_set=str(record["query_set"]) if record.get("query_set") else None,
        metadata=({} if identity is None else {"example_id": identity}) | others or None,
    )


def _side(record: Mapping[str, Any], side: str, origin: str) -> list[ListedHit]:
    scores = record.get(f"{side}_scores") or []
    texts, ids = (record.get(f"{side}{part}") or [None] * len(scores) for part in ("s", "_ids"))
    if not all(isinstance(values, list) and len(values) == len(scores) for values in (scores, texts, ids)):
        raise InputError(f"{origin}: {side}s, {side}_ids and {side}_scores must be lists of one length")
    hits = []
    for rank, (score, text, given) in enumerate(zip(scores, texts, ids, strict=True), start=1):
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(f"{origin}: the score of {side} {rank} is no finite number")
        key = text_hash(text) if isinstance(text, str) else None
        hits.append(ListedHit(side, rank, float(score), None if given is None else str(given), key))
    return hits


def _text(record: Mapping[str, Any], name: str, origin: str) -> str:
    if not isinstance(record.get(name), str):
        raise InputError(f"{origin}: needs a text `{name}`")
    return str(record[name])


def read_run(path: Path, side: str) -> Iterator[Listed]:
    """Yield what a TREC run lists for each query, by falling scores, equal ones by their ranks.

    As opponents the scores get the other sign. Raises InputError, which names the line.
    """
    listed: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for number, line in _lines(path):
        try:
            query, _, passage, rank, score, _ = line.split()
            listed[query].append((-float(score), int(rank), passage))
        except ValueError as error:
            raise InputError(
                f"{path}:{number}: needs {_FIELDS} fields, `query_id Q0 passage_id rank score tag`, not {line[:60]!r}"
            ) from error
        if not math.isfinite(float(score)):
            raise InputError(f"{path}:{number}: the score is no finite number")
    sign = 1.0 if side == "opponent" else -1.0
    for query, rows in listed.items():
        hits = [
            ListedHit(side, place, sign * score, passage, None)
            for place, (score, _, passage) in enumerate(sorted(rows), start=1)
        ]
        yield Listed(f"{path}, query {query}", query, hits)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that say something, with their numbers."""
    some = False
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    some = True
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not some:
        raise InputError(f"{path} has no lines")
