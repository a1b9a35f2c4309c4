"""Evaluations beside the lake: the `results.json` that `proponent evaluate -o DIR` wrote, and what it says of a query.

Notable: facts are known by prompt and target, as queries are. Results of versions that kept neither have their tables
here, and nothing beside queries.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from proponent.query.evaluate.gold import STRICT
from proponent.query.evaluate.results import Evaluation
from proponent.query.evaluate.sections import Section
from proponent.query.evaluate.study import FORMAT, RESULTS
from proponent.query.evaluate.tail import SIDES
from proponent.schema.errors import InputError

_MOST_BYTES: Final = 1 << 30


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation measured of a method for one query."""

    evaluation: str
    method: str
    reciprocal_rank: float | None
    """One over the rank of the first text that states the fact, 0 for none; null where nobody says what states it."""
    tail_patch: float | None
    """Mean change of the target's log-probability by a step on one of the first ten; null where none was taken."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation."""

    name: str
    results: dict[str, Any]
    by_question: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    """Measures by prompt and target."""

    @property
    def told(self) -> list[str]:
        """What a reader has to know before the numbers."""
        return Evaluation(self.results).told

    @property
    def sections(self) -> list[Section]:
        """Its tables and charts."""
        return Evaluation(self.results).sections


def read_evaluations(folders: Sequence[Path]) -> dict[str, Evaluated]:
    """Return evaluations by the names of their folders. Raises InputError for a folder without finished results."""
    found: dict[str, Evaluated] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in found:
            raise InputError(f"two evaluations are called {name}; rename one of the folders")
        found[name] = _read(folder, name)
    return found


def _read(folder: Path, name: str) -> Evaluated:
    path = folder / RESULTS
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than 1 GB, too large to be shown")
        results = json.loads(path.read_text("utf-8"))
        if results["format"] != FORMAT:
            raise InputError(f"{path} is of another version, {results['format']}; evaluate again")
        if "comparisons" not in results:
            raise InputError(f"{path} is of an evaluation that has not ended; run it again, and it goes on")
        evaluated = Evaluated(name, results, _by_question(name, results))
        _ = evaluated.sections, evaluated.told
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no {RESULTS}; name a folder that `proponent evaluate -o` wrote") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no evaluation; name a folder that `proponent evaluate -o` wrote") from error
    return evaluated


def _by_question(name: str, results: dict[str, Any]) -> dict[tuple[str, str], list[Measured]]:
    facts = results["facts"]
    steps = (results["steps"] or {}).get("values", {})
    found: dict[tuple[str, str], list[Measured]] = {}
    for place, question in enumerate(zip(facts.get("prompts", ()), facts.get("targets", ()), strict=True)):
        for method in results["methods"]:
            ranks = method["ranks"][STRICT][place]
            stepped = steps.get(f"{method['name']}, {SIDES[0]}", {}).get(str(place))
            rank = None if ranks is None else 1 / min(ranks) if ranks else 0.0
            if ranks is not None or stepped is not None:
                measured = Measured(
                    evaluation=name,
                    method=method["name"],
                    reciprocal_rank=rank,
                    tail_patch=None if stepped is None else stepped["log_probability"],
                )
                found.setdefault(question, []).append(measured)
    return found
