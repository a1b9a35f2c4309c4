"""Whether a report still says what the lake says: made again, and compared.

Notable: the block in the file says what to make and what to compare with, thing by thing, so that a difference has a
name. Then the file itself is compared with the one that is made now, since a block says nothing of what somebody wrote
around it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from proponent.schema.errors import InputError, NotFoundError, SettingsError
from proponent.schema.settings import ReportSettings
from proponent.store.runs import library_versions

from .content import Report
from .data import SCHEMA, block
from .filling import templates_id
from .folder import INDEX
from .write import files_of

_BLOCKS: Final = {
    ".html": re.compile(r'<script type="application/json" id="proponent-report">(.*?)</script>', re.DOTALL),
    ".md": re.compile(r"^<!-- proponent-report (.*?) -->$", re.MULTILINE),
}
_BLOCKS[".htm"] = _BLOCKS[".html"]
_BEHIND_IT: Final = {
    "asked": "what was asked, or how likely the model finds it,",
    "words": "the passages that share the question's words",
}

_ROUNDING: Final = 1e-3

Made = Mapping[str, Any]
Build = Callable[[list[str], ReportSettings], Report]


@dataclass(frozen=True)
class Verification:
    """What became of a report: it stands while there are no differences. Remarks say what could not be compared."""

    differences: tuple[str, ...]
    remarks: tuple[str, ...]
    traces: int
    passages: int


def read_block(path: Path) -> Made:
    """Return the block that a report carries; of a folder, that of its index.

    Raises InputError for a file that is no report, or one of a form that this version does not know.
    """
    path = path / INDEX if path.is_dir() else path
    try:
        text = path.read_text("utf-8")
        found = json.loads(text)["check"] if path.suffix.lower() == ".json" else json.loads(_found(path, text))
        schema, traces, _ = found["schema"], found["traces"], found["settings"]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no report of proponent, or the block that it is checked by is damaged") from error
    if schema != SCHEMA or not traces:
        raise InputError(f"{path} is a report of another form ({schema!r}); this version checks {SCHEMA!r}")
    made: Made = found
    return made


def _found(path: Path, text: str) -> str:
    pattern = _BLOCKS.get(path.suffix.lower())
    match = pattern.search(text) if pattern else None
    if match is None:
        raise ValueError
    return match[1]


def verify(path: Path, build: Build, *, templates: Path | None = None) -> Verification:
    """Make a report again and compare; `build` makes the content of traces by settings from the lake.

    Raises InputError as `read_block`, and for settings that this version does not know.
    """
    then = read_block(path)
    try:
        settings = ReportSettings(**then["settings"])
    except (TypeError, SettingsError) as error:
        raise InputError(f"{path} was made with settings that this version does not know") from error
    ids = [trace["trace"] for trace in then["traces"]]
    passages = sum(len(trace["hits"]) for trace in then["traces"])
    try:
        report = build(ids, settings)
    except NotFoundError as error:
        return Verification((f"this lake cannot make it again: {error}",), (), len(ids), passages)
    differences, remarks = list(_differences(then, block(report), report)), []
    apart = _why_apart(then, report, templates)
    if apart:
        remarks.append(f"only the data were compared, and not the text of the file: {apart}")
    elif not differences:
        differences += _changed_files(path, report, templates)
    return Verification(tuple(differences), tuple(remarks), len(ids), passages)


def _why_apart(then: Made, report: Report, templates: Path | None) -> str | None:
    """Return why the file that is made now would be another one in any case."""
    if then.get("page"):
        return "it is a page of a folder; name the folder to compare that, too"
    if then["version"] != library_versions()["proponent"]:
        return f"proponent {then['version']} wrote it, and this is {library_versions()['proponent']}"
    if then["lake"] != report.lake:
        return f"the lake was called {then['lake']}, and is {report.lake}"
    if then.get("templates") != templates_id(templates):
        return "it was made with other templates; name them with --templates"
    return None


def _differences(then: Made, now: Made, report: Report) -> Iterator[str]:
    pairs = zip(then["traces"], now["traces"], report.queries, strict=True)
    for number, (old, new, query) in enumerate(pairs, start=1):
        of = f"question {number}, " if len(report.queries) > 1 else ""
        for label in dict.fromkeys([*old["facts"], *new["facts"]]):
            was, present = (facts.get(label, "not told") for facts in (old["facts"], new["facts"]))
            if was != present:
                yield f"{of}{label.lower()}: was {was}, is {present}"
        yield from (f"{of}{line}" for line in _changed_hits(old["hits"], new["hits"], dict.fromkeys(query.withdrawn)))
        yield from (f"{of}{what} changed" for name, what in _BEHIND_IT.items() if old[name] != new[name])
        if not _same_sums(old["sources"], new["sources"]):
            yield f"{of}where the influence comes from changed"


def _same_sums(old: Any, new: Any) -> bool:
    """Return whether sums of groups are the same but for roundings; what is no list is a sentence, or nothing."""
    if not isinstance(old, list) or not isinstance(new, list):
        return bool(old == new)
    if [one[:2] for one in old] != [one[:2] for one in new]:
        return False
    pairs = [(one[2] or 0.0, other[2] or 0.0) for one, other in zip(old, new, strict=True)]
    largest = max((abs(one) for one, _ in pairs), default=0.0)
    return all(abs(one - other) <= _ROUNDING * largest for one, other in pairs)


def _changed_hits(old: list[Any], new: list[Any], withdrawn: Mapping[tuple[str, int], None]) -> Iterator[str]:
    was, present = ({(side, rank): rest for side, rank, *rest in hits} for hits in (old, new))
    for place in sorted(was.keys() | present.keys(), key=lambda place: (place[0] != "proponent", place[1])):
        name = f"{place[0]} {place[1]}"
        if place not in present:
            passage_id = was[place][0]
            gone = "was withdrawn" if place in withdrawn else "is not there any more"
            yield f"{name}: passage {passage_id} {gone}"
        elif place not in was:
            yield f"{name}: passage {present[place][0]} is there now"
        else:
            (passage, score, said), (passage_now, score_now, said_now) = was[place], present[place]
            if passage != passage_now:
                yield f"{name}: was passage {passage}, is {passage_now}"
            elif score != score_now:
                yield f"{name}: the score of passage {passage} was {score!r}, is {score_now!r}"
            elif said != said_now:
                yield f"{name}: the text of passage {passage}, or what is known of it, changed"


def _changed_files(path: Path, report: Report, templates: Path | None) -> Iterator[str]:
    for file, text in files_of(report, path, templates=templates).items():
        try:
            written = file.read_text("utf-8", errors="replace")
        except OSError:
            yield f"{file.name} is missing"
            continue
        lines = enumerate(zip_longest(written.splitlines(), text.splitlines()), start=1)
        changed = next((number for number, (one, other) in lines if one != other), None)
        if changed is not None or written != text:
            anew = ", or its tokens were shaded on another machine" if report.settings.tokens else ""
            yield f"{file.name} was changed after it was made, from line {changed or 1} on{anew}: its data still hold"
